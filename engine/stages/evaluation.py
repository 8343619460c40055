"""The last stage: Rank-k, mAP and mINP of a checkpoint on a split, with pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import nn

from data import PedesDataset
from data.errors import UserError
from data.images import read_image
from engine import checkpoints, distributed
from engine.building import pixels_of
from engine.config import Config
from engine.evaluation import Split, evaluate_split, open_split
from engine.run import LOGGER, Run
from engine.sources import open_dataset, say_what_is_cut
from engine.stage import Context, Mark
from engine.stages.fixed_style import style_texts
from models import METHODS
from retrieval.curves import training_curves
from retrieval.evaluate import Evaluation
from retrieval.pictures import rank_lists
from retrieval.results import table, write_results

SECTIONS = ("seed", "dataset", "test")
MSM = "msm"  # the second protocol, and the folder of its results


def evaluation_mark(config: Config) -> Mark:
    """Says that ``results.json`` is that of the run's own ``best.pth``, and with which settings."""
    return Mark(config.run_directory / ".test.done", config, SECTIONS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--checkpoint``: another file than the run's own best.pth."""
    parser.add_argument("--checkpoint", type=Path, help="the model to evaluate (default: the run's best.pth)")


def evaluate_run(context: Context) -> None:
    """Write ``results.json``, ``queries.jsonl``, ``rank_lists.jpg`` and ``training_curves.png``; print the table.

    For a method of one fixed style the MSM protocol follows, in a folder of its own.

    Raises:
        UserError: no checkpoint, one of another method, no such split, or a damaged data set.
    """
    config = context.config
    dataset = open_dataset(config)
    directory = config.run_directory
    run = Run(directory, "log.txt", context.stop)
    path = context.arguments.checkpoint or directory / "best.pth"
    model, content = checkpoints.load_retrieval_model(path)
    if content["method"] != config.model.method:
        raise UserError(
            f"{path} is a model of the method '{content['method']}', and the configuration's is '{config.model.method}': its "
            f"results would stand in the wrong place. Give the method's own file, configs/methods/{content['method']}.yaml."
        )
    model = context.machine.place(model)
    split = open_split(dataset, config.test.split, config, tuple(content["image_size"]), pixels_of(model))
    if split is None:
        LOGGER.info(
            "This data set has no %s split (a bare folder has no captions to query with): nothing to evaluate. "
            "The model is %s.",
            config.test.split,
            path,
        )
        return
    LOGGER.info("Evaluating %s: %d queries, %d images.", path, len(split.captions), len(split.images))
    say_what_is_cut(model.tokenizer, split.captions, split.name)
    evaluation = evaluate_split(model, split, config, context.machine, config.test.k_test, run.stop_if_asked)
    mark = evaluation_mark(config)
    if distributed.is_main():
        mark.clear()
        # Not beside the plain results of another model.
        (directory / MSM / "results.json").unlink(missing_ok=True)
        _write(directory / "results.json", config, content, split, evaluation, "plain")
        _draw(context, split, evaluation, directory)
        print(table(evaluation))
    if "fixed" in METHODS[content["method"]].caption_kinds and config.test.msm_weight:
        _evaluate_msm(context, run, model, content, dataset, split)
    if distributed.is_main():
        print(f"Results, per-query lists and pictures: {directory}/")
    if context.arguments.checkpoint is None:
        mark.set()
    distributed.barrier()


def _evaluate_msm(
    context: Context, run: Run, model: nn.Module, content: dict, dataset: PedesDataset, split: Split
) -> None:
    """The MSM protocol: the main process asks for its texts, all evaluate."""
    config, machine = context.config, context.machine
    style = style_texts(context, dataset, config.test.split) if distributed.is_main() else None
    (style, *_) = machine.processes.gather(style)
    evaluation = evaluate_split(model, split, config, machine, config.test.k_test, run.stop_if_asked, style)
    if distributed.is_main():
        _write(config.run_directory / MSM / "results.json", config, content, split, evaluation, MSM)
        print(
            f"\nMSM protocol, weight {style.weight}: gallery captioned, queries rewritten\n{table(evaluation)}"
        )


def _write(
    path: Path, config: Config, content: dict, split: Split, evaluation: Evaluation, protocol: str
) -> None:
    write_results(
        path,
        evaluation,
        dataset=config.dataset.label,
        method=content["method"],
        split=split.name,
        protocol=protocol,
        selected_on=content["meta"].get("selected_on", "last"),
        captions=split.captions,
        query_ids=split.query_ids,
        images=split.images,
    )


def _draw(context: Context, split: Split, evaluation: Evaluation, directory: Path) -> None:
    config = context.config
    if config.test.rank_lists:
        rank_lists(
            directory / "rank_lists.jpg",
            evaluation,
            split.captions,
            split.query_ids,
            split.gallery_ids,
            split.feed.paths,
            rows=config.test.rank_lists,
            load=read_image,
        )
    if (directory / "metrics.jsonl").exists():
        training_curves(directory / "metrics.jsonl", directory / "training_curves.png")
