"""Before stage A: a synthetic training set, from prompts over images, filter and edits to captions.

Each step has a manifest that an interrupted run goes on from, and all processes share each step's work; what comes out
depends on neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from captioning.backends import Backend, make_backend
from captioning.pipeline import Progress
from data.errors import UserError
from engine import distributed
from engine.config import BackendConfig, GenImagesConfig
from engine.detector_weights import detector_weights
from engine.hub import is_hub_name, located
from engine.log import LOGGER
from engine.marks import IMAGE_STAGE, Mark
from engine.run import Run
from engine.sources import open_dataset
from engine.stage import Context, set_aside
from engine.stages.asking import progress_bar
from synthesis.generation import export, families, report, sheet, steps
from synthesis.generation.captions import caption
from synthesis.generation.estimate import Parts, estimate
from synthesis.generation.export import Entry
from synthesis.generation.folder import SetFolder
from synthesis.generation.parts import Editor, Generator, PersonFilter, Prompt
from synthesis.generation.personal import IDENTIFIER, STYLE
from synthesis.generation.prompts import seed_of
from synthesis.generation.recipe import Planned, Recipe, planned_edits, planned_images
from synthesis.generation.registry import EDITORS, FILTERS, GENERATORS, make

# Settings that no image depends on: a set may grow, and go on in other batches or with another key.
FREE = ("root", "batch_size", "prompts", "per_prompt", "identity", "edits", "captions", "text")

HELD = ("model", "adapters", "weights")  # options that name files or folders, which a hub may have


def make_images(context: Context) -> None:
    """Write ``synthetic.json`` and its images below ``gen_images.root``.

    Raises:
        UserError: a part that can't be made or fails for good, a folder with another set, or a set that stays empty.
    """
    config = context.config
    settings = config.gen_images
    if settings is None:
        LOGGER.info("%s: not needed, the configuration asks for no synthetic images.", IMAGE_STAGE)
        return
    mark, folder = Mark.of(IMAGE_STAGE, config), SetFolder(settings.root)
    if folder.is_foreign() and not context.force:
        LOGGER.info(
            "%s: not needed, %s was made elsewhere and is used as it is.", IMAGE_STAGE, folder.annotation
        )
        return
    if settings.scenario != "none" and settings.generator.backend != "diffusers":
        raise UserError(
            f"gen_images.scenario={settings.scenario} is a personalised diffusion model's: set gen_images.generator to one."
        )
    if getattr(context.arguments, "dry_run", False):
        if distributed.is_main():
            print(_estimated(context, folder))
        return
    if not context.force and mark.is_set(IMAGE_STAGE):
        return
    if context.force:
        set_aside(folder.root)
        distributed.barrier()
    Run(folder.root, "log.txt", context.stop)
    if distributed.is_main():
        folder.claim(settings.model_dump(mode="json", exclude=set(FREE)))
    distributed.barrier()
    recipe = recipe_of(settings)
    with progress_bar(context, IMAGE_STAGE) as progress:
        images = planned_images(_prompts(context, folder, recipe, progress), recipe.per_prompt)
        entries, kept = _make(context, folder, recipe, images, progress)
        if distributed.is_main():
            _finish(settings, folder, recipe, images, kept, entries, progress)
    distributed.barrier()
    mark.set()


def recipe_of(settings: GenImagesConfig) -> Recipe:
    """The numbers of a set, of its settings."""
    return Recipe(
        prompts=settings.prompts,
        per_prompt=settings.per_prompt,
        families=settings.families,
        seed=settings.seed,
        identity=settings.identity,
        edits=settings.edits.model_dump(),
        captions=settings.captions.kind,
        colours=settings.colours,
        identifier=IDENTIFIER if settings.scenario == "few" else "",
        batch_size=settings.batch_size,
    )


def _prompts(context: Context, folder: SetFolder, recipe: Recipe, progress: Progress | None) -> list[Prompt]:
    """All prompts; those that a text model writes are asked for first."""
    settings, world = context.config.gen_images, context.machine.world
    if settings.scenario == "all":
        return _captions_as_prompts(context, recipe)
    with folder.manifest("prompts") as texts:
        if settings.text is not None:
            with _opened(settings.text) as backend:
                families.ask_for_texts(
                    recipe.families,
                    recipe.prompts,
                    recipe.seed,
                    backend,
                    texts,
                    progress=progress,
                    rank=world.rank,
                    world_size=world.size,
                )
            _all_here(context)
            texts.refresh()
        return recipe.all_prompts(texts)


def _captions_as_prompts(context: Context, recipe: Recipe) -> list[Prompt]:
    """The first caption of each training image in the look that the generator has learned: these are real captions."""
    records = [record for record in open_dataset(context.config).train if record.captions]
    if not records:
        raise UserError(
            "gen_images.scenario=all makes images of the data set's own captions, and it has none."
        )
    return [
        Prompt(number, f"{STYLE}{record.captions[0]}", {}, "caption", seed_of(recipe.seed, "images", number))
        for number, record in enumerate(records[: recipe.prompts])
    ]


def _make(
    context: Context, folder: SetFolder, recipe: Recipe, images: list[Planned], progress: Progress
) -> tuple[list[Entry], dict[str, str]]:
    """Every step up to the captions; the images of the set, and which generated image became which of them."""
    world, settings = context.machine.world, context.config.gen_images
    common = {"progress": progress, "rank": world.rank, "world_size": world.size}
    batches = common | {"batch_size": recipe.batch_size}
    LOGGER.info("%s: %d images of %d prompts.", IMAGE_STAGE, len(images), recipe.prompts)
    # A part is made where it has work to do: it may be gigabytes of weights.
    if folder.is_lacking("generated", [image.path for image in images]):
        steps.generate(folder, images, make_generator(context), **batches)
    _all_here(context)
    filtered = settings.filter.backend != "none"
    if filtered and folder.is_lacking("people", steps.crops_of(folder, images)):
        confidence = settings.filter.confidence
        steps.keep_whole_people(folder, images, make_filter(context), confidence=confidence, **batches)
    _all_here(context)
    kept = steps.kept_images(folder, images, filtered=filtered)
    edits = planned_edits(kept, images, recipe.edits)
    if folder.is_lacking("edited", [entry.path for entry in edits]):
        steps.edit(folder, edits, make_editor(context), **batches)
    _all_here(context)
    entries = export.entries_of(kept, images, edits)
    with _opened(settings.captions) as backend:
        caption(folder, [entry.path for entry in entries], backend, recipe.captions, recipe.seed, **common)
    _all_here(context)
    return entries, kept


def _finish(
    settings: GenImagesConfig,
    folder: SetFolder,
    recipe: Recipe,
    images: list[Planned],
    kept: dict[str, str],
    entries: list[Entry],
    progress: Progress,
) -> None:
    """Annotation, report and contact sheet."""
    filtered = settings.filter.backend != "none"
    content = report.quality_report(folder, images, kept, entries, filtered=filtered, progress=progress)
    report.write_report(folder, content)
    LOGGER.info("%s", report.told(content))
    if not export.write_annotation(folder, entries, recipe):
        raise UserError(
            f"{folder.root} has no image with a caption: see what the filter and the captioning backend say in "
            f"{folder.root / report.REPORT}."
        )
    folder.save_picture(sheet.SHEET, sheet.contact_sheet(folder, images, entries))
    LOGGER.info("%s: %s; look at %s.", IMAGE_STAGE, folder.annotation, folder.root / sheet.SHEET)


def make_generator(context: Context) -> Generator:
    """The configured generator, where this process computes."""
    chosen = context.config.gen_images.generator
    return _part(context, GENERATORS, chosen.backend, chosen.options)


def make_filter(context: Context) -> PersonFilter:
    """The configured finder of people."""
    chosen = context.config.gen_images.filter
    return _part(context, FILTERS, chosen.backend, chosen.options)


def make_editor(context: Context) -> Editor:
    """The configured editor; one of the generator's own backend has the generator's options, too."""
    settings = context.config.gen_images
    shared = settings.generator.options if settings.generator.backend == settings.editor.backend else {}
    return _part(context, EDITORS, settings.editor.backend, shared | settings.editor.options)


def _part(context: Context, table: Mapping[str, str], name: str, options: Mapping[str, Any]) -> Any:
    device, scenario = context.machine.device, context.config.gen_images.scenario
    named = {option: str(located(options[option])) for option in HELD if is_hub_name(options.get(option, ""))}
    return make(
        table,
        name,
        {**options, **named},
        device=device,
        half=device.type == "cuda",
        scenario=scenario,
        read_weights=detector_weights,
    )


@contextmanager
def _opened(settings: BackendConfig) -> Iterator[Backend]:
    backend = make_backend(settings.backend, **settings.options)
    try:
        yield backend
    finally:
        backend.close()


def _all_here(context: Context) -> None:
    """Every process has done its share, and none was asked to stop."""
    context.check_stop()
    distributed.barrier()


def _estimated(context: Context, folder: SetFolder) -> str:
    """What is left to do, measured on a batch that is made elsewhere and thrown away."""
    settings = context.config.gen_images
    recipe = recipe_of(settings)
    images = planned_images(_prompts_known(context, folder, recipe), recipe.per_prompt)
    with _opened(settings.captions) as backend:
        finder = None if settings.filter.backend == "none" else make_filter(context)
        editor = make_editor(context) if any(recipe.edits.values()) else None
        parts = Parts(make_generator(context), finder, editor, backend, settings.filter.confidence)
        return estimate(folder, recipe, images, parts)


def _prompts_known(context: Context, folder: SetFolder, recipe: Recipe) -> list[Prompt]:
    """The prompts without asking a text model: plain ones in the place of those that it has not written yet."""
    if context.config.gen_images.scenario == "all":
        return _captions_as_prompts(context, recipe)
    with folder.manifest("prompts") as texts:
        written = recipe.all_prompts(texts)
    return (
        written if len(written) == recipe.prompts else replace(recipe, families={"plain": 1.0}).all_prompts()
    )
