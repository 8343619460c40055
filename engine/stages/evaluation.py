"""The last stage: Rank-k, mAP and mINP of a checkpoint on a split, with pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from data import PedesDataset
from data.errors import UserError
from data.images import read_image
from engine import best_on_test, distributed
from engine.building import pixels_of
from engine.evaluation import Split, evaluate_split, open_split
from engine.log import LOGGER
from engine.marks import Mark
from engine.opening import Opened, open_model
from engine.results import MSM, PLAIN, results_path, told, where
from engine.run import Run
from engine.sources import open_dataset, say_what_is_cut
from engine.stage import Context
from engine.stages.fixed_style import style_texts
from models import METHODS
from retrieval.curves import training_curves
from retrieval.evaluate import Evaluation
from retrieval.pictures import rank_lists
from retrieval.results import write_results


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
    opened = _open_checkpoint(context, run)
    content = opened.content
    model = context.machine.place(opened.model)
    split = open_split(dataset, config.test.split, config, tuple(content["image_size"]), pixels_of(model))
    if split is None:
        LOGGER.info(
            "This data set has no %s split (a bare folder has no captions to query with): nothing to evaluate. "
            "The model is %s.",
            config.test.split,
            opened.path,
        )
        return
    context.say_machine()
    LOGGER.info("Evaluating %s: %d queries, %d images.", opened.path, len(split.captions), len(split.images))
    say_what_is_cut(model.tokenizer, split.captions, split.name)
    evaluation = evaluate_split(model, split, config, context.machine, config.test.k_test, run.stop_if_asked)
    mark = Mark.of("test", config)
    if distributed.is_main():
        mark.clear()
        # Not beside the plain results of another model.
        results_path(config, MSM).unlink(missing_ok=True)
        record = _write(context, content, split, evaluation, PLAIN)
        _draw(context, split, evaluation, directory)
        print(told(record, config))
    if "fixed" in METHODS[content["method"]].caption_kinds and config.test.msm_weight:
        _evaluate_msm(context, run, model, content, dataset, split)
    if distributed.is_main():
        print(where(config))
    if context.arguments.checkpoint is None:
        mark.set()
    distributed.barrier()


def _open_checkpoint(context: Context, run: Run) -> Opened:
    """The checkpoint that is named, or the run's own.

    Raises:
        UserError: it can't be had, or its results would stand in the wrong place.
    """
    wanted = context.config.model.method
    opened = open_model(
        context.arguments.checkpoint or context.config.run_directory / "best.pth", check=run.stop_if_asked
    )
    found = opened.content["method"]
    if not opened.trained:
        raise UserError(
            f"{opened.path} is {found} as it was released, and results belong to a method: train it first, or search "
            "with it as it is (python search.py index --checkpoint)."
        )
    if found != wanted:
        raise UserError(
            f"{opened.path} is a model of the method '{found}', and the configuration's is '{wanted}': its "
            f"results would stand in the wrong place. Give the method's own file, configs/methods/{found}.yaml."
        )
    return opened


def _evaluate_msm(
    context: Context, run: Run, model: nn.Module, content: dict, dataset: PedesDataset, split: Split
) -> None:
    """The MSM protocol: the main process asks for its texts, all evaluate."""
    config, machine = context.config, context.machine
    style = style_texts(context, dataset, config.test.split) if distributed.is_main() else None
    (style, *_) = machine.processes.gather(style)
    evaluation = evaluate_split(model, split, config, machine, config.test.k_test, run.stop_if_asked, style)
    if distributed.is_main():
        print(told(_write(context, content, split, evaluation, MSM), config))


def _write(
    context: Context, content: dict, split: Split, evaluation: Evaluation, protocol: str
) -> dict[str, Any]:
    return write_results(
        results_path(context.config, protocol),
        evaluation,
        dataset=context.config.dataset.label,
        method=content["method"],
        split=split.name,
        protocol=protocol,
        selected_on=content["meta"].get("selected_on", "last"),
        captions=split.captions,
        query_ids=split.query_ids,
        images=split.images,
        computed=context.machine.describe(),
        trained_on=_trained_on(content),
        if_selected_on_test=_if_selected_on_test(context, split, protocol),
    )


def _trained_on(content: dict) -> str:
    """The data set that a checkpoint's model was trained on; empty where it does not say."""
    meta = content["meta"]
    if "trained_on" in meta:
        return meta["trained_on"]
    dataset = json.loads(meta.get("config", "{}")).get("dataset", {})  # of version 0.1
    return dataset.get("tag") or dataset.get("name", "")


def _if_selected_on_test(context: Context, split: Split, protocol: str) -> dict[str, Any] | None:
    """What training recorded of its best epoch on test, for the plain results of the run's own model."""
    config = context.config
    if (
        not config.test.also_select_on_test
        or context.arguments.checkpoint
        or (split.name, protocol) != ("test", PLAIN)
    ):
        return None
    record = best_on_test.read(config.run_directory / best_on_test.FILE)
    if record is None:
        LOGGER.warning(
            "test.also_select_on_test was not set while this run was trained: --from train does it again with it."
        )
    return record


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
