"""Personalisation: a text-to-image model learns the look of real people, for synthetic sets that resemble a data set.

    python -m engine.personalisation --config configs/cuhk.yaml --set personalise.scenario=few
    python -m engine.personalisation --config configs/cuhk.yaml --set personalise.scenario=all

few   DreamBooth on the images of a few identities, without captions: a whole pipeline, for the generator's `model`
all   adapters and two new words on all training images with the first real caption of each, for its `adapters`

It writes `weights/` in `output/personal-<dataset>-<scenario>`, with a record of what they have seen (`personal.json`): weights
that have read real captions are refused where synthetic images alone are asked for. A run that is stopped goes on.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from data import PedesDataset
from data.errors import UserError
from data.images import read_image
from data.records import NO_IDENTITY, Record
from engine import distributed
from engine.command_line import read_command, stage_parser
from engine.config import Config
from engine.hub import located, source_of
from engine.log import LOGGER
from engine.loop import Place, Schedule, Trainer
from engine.marks import Mark
from engine.run import Run
from engine.seeds import seed_of
from engine.sources import open_dataset
from engine.stage import Context, run_stage, set_aside
from models.world import World
from synthesis.generation import pipelines
from synthesis.generation.denoising import Frozen, Noised, draw, squared
from synthesis.generation.diffusion import DiffusionGenerator
from synthesis.generation.dreambooth import OWN_TEXT, PRIOR_TEXT, DreamBooth
from synthesis.generation.parts import Prompt
from synthesis.generation.personal import ALL, FEW, NONE, STYLE, Personalisation, write_record

WEIGHTS, PRIOR = "weights", "prior"
SECTIONS = ("seed", "dataset", "personalise")


@dataclass(frozen=True)
class Examples:
    """What a model learns from: image files, the text of each, and the identities that they are of."""

    images: tuple[Path, ...]
    texts: tuple[str, ...]
    identities: tuple[int, ...]


def directory_of(config: Config) -> Path:
    """Where a personalisation writes."""
    suffix = f"-seed{config.seed}" if config.seed else ""
    return Path(config.output) / f"personal-{config.dataset.label}-{config.personalise.scenario}{suffix}"


def personalise(context: Context) -> None:
    """Write `weights/`; goes on where it was stopped.

    Raises:
        UserError: no scenario, no such model or identities, a batch that the processes can't share.
    """
    config, settings = context.config, context.config.personalise
    _check(config, context.machine.world)
    folder = directory_of(config)
    mark = Mark(folder / ".personalisation.done", config, SECTIONS)
    if not context.force and mark.is_set("personalisation"):
        return
    if context.force:
        mark.clear()
        set_aside(folder)
        distributed.barrier()
    examples = examples_of(config, open_dataset(config))
    run = Run(folder, "log.txt", context.stop)
    with distributed.main_first():
        base = located(settings.model)
    LOGGER.info(
        "Personalising %s with %d images of %d identities%s.",
        base,
        len(examples.images),
        len(examples.identities),
        " and their real captions" if settings.scenario == ALL else "",
    )
    prior = _prior_images(context, run, base, folder / PRIOR) if settings.scenario == FEW else ()
    _train(context, run, base, examples, prior)
    mark.set()


def _check(config: Config, world: World) -> None:
    settings = config.personalise
    if settings.scenario == NONE:
        raise UserError(
            "The scenario 'none' is the plain model, which learns nothing: --set personalise.scenario=few, or all."
        )
    if settings.batch_size % world.size:
        raise UserError(
            f"personalise.batch_size = {settings.batch_size} can't be shared by {world.size} processes: make it a multiple."
        )
    if settings.size % 8:
        raise UserError(f"personalise.size = {settings.size} is no multiple of 8: diffusion models need one.")


def examples_of(config: Config, dataset: PedesDataset) -> Examples:
    """The images of the scenario with their texts.

    few: all images of the identities, under one text; no caption is looked at. all: every training image that has a caption,
    with its first one.

    Raises:
        UserError: identities or captions that the data set does not have.
    """
    if config.personalise.scenario == FEW:
        chosen = _identities(config, sorted({record.identity for record in dataset.train} - {NO_IDENTITY}))
        images = dict.fromkeys(record.image for record in dataset.train if record.identity in chosen)
        return Examples(tuple(map(dataset.path, images)), (OWN_TEXT,) * len(images), chosen)
    captioned: dict[str, Record] = {}
    for record in dataset.train:
        if record.captions:
            captioned.setdefault(record.image, record)
    records = list(captioned.values())
    if not records:
        raise UserError(
            "The scenario 'all' learns real captions, and the data set's training images have none."
        )
    return Examples(
        tuple(dataset.path(record) for record in records),
        tuple(STYLE + record.captions[0] for record in records),
        tuple(sorted({record.identity for record in records} - {NO_IDENTITY})),
    )


def _identities(config: Config, known: list[int]) -> tuple[int, ...]:
    """Those that the configuration names, or as many as it says, drawn by the seed."""
    wanted = config.personalise.identities
    if not isinstance(wanted, int):
        lacking = sorted(set(wanted) - set(known))
        if lacking or not wanted:
            named = ", ".join(map(str, lacking[:5])) or "none is named"
            raise UserError(f"personalise.identities: the training images have no such identities ({named}).")
        return tuple(sorted(set(wanted)))
    if wanted > len(known):
        raise UserError(
            f"personalise.identities asks for {wanted} identities, and the training images name {len(known)}."
        )
    rng = np.random.default_rng(seed_of(config.seed, "personal identities"))
    return tuple(sorted(rng.choice(known, wanted, replace=False).tolist()))


def _prior_images(context: Context, run: Run, base: Path, folder: Path) -> tuple[Path, ...]:
    """Images of other people that the plain model makes, one file each; all processes share the work."""
    settings, machine = context.config.personalise, context.machine
    files = tuple(folder / f"{number:05}.png" for number in range(settings.prior_images))
    world = machine.world
    mine = [number for number in range(len(files)) if number % world.size == world.rank]
    lacking = [number for number in mine if not files[number].exists()]
    if lacking:
        folder.mkdir(parents=True, exist_ok=True)
        generator = DiffusionGenerator(
            str(base),
            steps=settings.prior_steps,
            size=settings.size,
            device=machine.device,
            half=machine.device.type == "cuda",
        )
        step = pipelines.batch_size(0, machine.device)
        for start in tqdm(range(0, len(lacking), step), desc="prior images", leave=False, disable=None):
            numbers = lacking[start : start + step]
            seeds = [seed_of(context.config.seed, "prior", number) for number in numbers]
            made = generator.generate([Prompt(number, PRIOR_TEXT) for number in numbers], seeds)
            for number, image in zip(numbers, made, strict=True):
                # Renamed when it is whole; what is there is not made again.
                temporary = files[number].with_suffix(f".{os.getpid()}.tmp")
                image.save(temporary, format="PNG")
                temporary.replace(files[number])
            run.stop_if_asked()
    distributed.barrier()
    return files


def _train(context: Context, run: Run, base: Path, examples: Examples, prior: Sequence[Path]) -> None:
    config, machine = context.config, context.machine
    settings = config.personalise
    pipeline = pipelines.load(
        "AutoPipelineForText2Image", base, machine.device, half=False, safety_checker=True
    )
    task, groups = _task(config, pipeline)
    steps, rate = settings.training
    trainer = Trainer(
        machine.place(task),
        groups,
        Batches(config, task.frozen, examples, prior, machine.world, machine.device),
        Schedule(rate, 1),  # a constant rate: one epoch of all steps
        Place(f"personalise-{settings.scenario}"),
        run,
        machine,
        run.directory / "state.pth",
        seed=config.seed,
        on_epoch=lambda _epoch, losses, seconds: run.record(
            "personalised", losses=losses, seconds=round(seconds, 1)
        ),
        log_every=settings.log_every,
        save_minutes=settings.save_minutes,
    )
    trainer.fit()
    if distributed.is_main():
        _keep(run.directory, task, _record(config, base, examples, steps))
    distributed.barrier()


def _task(config: Config, pipeline: Any) -> tuple[Any, list[dict[str, Any]]]:
    """What learns, and its parameters with their rates."""
    settings = config.personalise
    _, rate = settings.training
    if settings.scenario == FEW:
        task = DreamBooth(pipeline, settings.prior_weight, settings.recompute)
        return task, [{"params": list(task.parameters()), "lr": rate, "weight_decay": settings.weight_decay}]
    from synthesis.generation.lora import StyleAdapters

    task = StyleAdapters(pipeline, settings.rank, seed_of(config.seed, "adapters"), settings.recompute)
    return task, [
        {"params": list(task.adapters), "lr": rate, "weight_decay": settings.weight_decay},
        {"params": [task.words], "lr": settings.word_lr, "weight_decay": 0.0},
    ]


def _record(config: Config, base: Path, examples: Examples, steps: int) -> Personalisation:
    return Personalisation(
        scenario=config.personalise.scenario,
        base=source_of(base),
        dataset=config.dataset.label,
        identities=examples.identities,
        images=len(examples.images),
        reads_real_captions=config.personalise.scenario == ALL,
        steps=steps,
        seed=config.seed,
    )


def _keep(folder: Path, task: Any, record: Personalisation) -> None:
    """The weights with their record, whole or not at all; then the state of the training is of no use any more."""
    target, unfinished = folder / WEIGHTS, folder / f".{WEIGHTS}"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    task.save(unfinished)
    write_record(unfinished, record)
    shutil.rmtree(target, ignore_errors=True)  # of a run that was killed before it was marked as finished
    unfinished.rename(target)
    (folder / "state.pth").unlink(missing_ok=True)
    use = "generator.adapters" if record.scenario == ALL else "generator.model"
    LOGGER.info(
        "Personalised: %s is gen_images.%s with gen_images.scenario=%s.", target, use, record.scenario
    )


class Batches:
    """One epoch of all steps; what is in a step depends on the seed and its number, not on how it came to it."""

    def __init__(
        self,
        config: Config,
        frozen: Frozen,
        examples: Examples,
        prior: Sequence[Path],
        world: World,
        device: torch.device,
    ) -> None:
        settings = config.personalise
        self.steps = settings.training[0]
        self.examples, self.prior, self.device, self.seed = examples, prior, device, config.seed
        self.size, self.frozen = settings.size, frozen
        self.latent = frozen.latent_shape(settings.size)
        share = settings.batch_size // world.size
        self.whole = settings.batch_size
        self.places = range(world.rank * share, (world.rank + 1) * share)

    def epoch(self, _epoch: int, start: int = 0) -> Iterator[tuple[Noised, Noised | None]]:
        """This process's share of every step from `start` on."""
        for step in range(start, self.steps):
            own = self._batch("own", step, self.examples.images, self.examples.texts)
            prior = (
                self._batch("prior", step, self.prior, (PRIOR_TEXT,) * len(self.prior))
                if self.prior
                else None
            )
            yield own.to(self.device), None if prior is None else prior.to(self.device)

    def _batch(self, what: str, step: int, images: Sequence[Path], texts: Sequence[str]) -> Noised:
        pixels, chosen, draws = [], [], []
        for place in self.places:
            number = step * self.whole + place
            index = self._index(what, number, len(images))
            pixels.append(squared(read_image(images[index]), self.size))
            chosen.append(texts[index])
            draws.append(draw(seed_of(self.seed, what, number), self.latent, len(self.frozen.kept)))
        posterior, noise, times = (torch.stack(parts) for parts in zip(*draws, strict=True))
        return Noised(torch.stack(pixels), self.frozen.ids(chosen), posterior, noise, times)

    def _index(self, what: str, number: int, count: int) -> int:
        """All of them once, in a drawn order, before any comes again."""
        turn, place = divmod(number, count)
        order = np.random.default_rng(seed_of(self.seed, what, "order", turn)).permutation(count)
        return int(order[place])


if __name__ == "__main__":
    run_stage(personalise, read_command(stage_parser(__doc__)))
