"""What is compared and the runs that it takes: variants times seeds, each behind the runs whose captions or weights it reads."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from data.errors import UserError
from engine import warm_up
from engine.building import captioner_method
from engine.config import Config, load_config
from engine.marks import CAPTION_STAGES, Mark
from engine.several_seeds import is_finished

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "configs" / "demo.yaml"
CAPTIONS = "captions"  # the run that makes a seed's captions
RELEASED_CAPTIONS = "captions-released"  # those of released settings
ALSO = "test.also_select_on_test=true"  # of every run: neither weights nor results depend on it


@dataclass(frozen=True)
class Variant:
    """A setting that is compared: the method's and the data set's configuration, and what differs from them.

    In `settings`, {epochs} stands for as many as PSPD's rounds together, {each} for those of one round, {seed} for the run's,
    {output} for the folder of runs and {runs} for how their own begin, {data} for the data set's folder, {tag} for its name
    and {captions} for the seed's captions.

    Attributes:
        captions: whether it needs those of its seed.
        released: whether it is read with `configs/released/<method>.yaml`; its captions are released ones, too.
        after: another variant, whose run with the same seed it reads.
    """

    title: str
    method: str = "pspd"
    settings: tuple[str, ...] = ()
    stages: tuple[str, ...] = ("train", "test")
    captions: bool = True
    released: bool = False
    after: str = ""


CAPTION_TITLES = {
    CAPTIONS: "captions (stages 1 to 3)",
    RELEASED_CAPTIONS: "captions with released settings (stages 1 to 3)",
}


@dataclass(frozen=True)
class Study:
    """Variants that are compared in one table.

    Attributes:
        name: of the table's file.
        prepare: called with PSPD's configuration and the seeds before anything runs.
        target: the configuration of the data set that it is made for.
        shares_with: the study whose runs on that data set it shares, where a variant is the same.
    """

    name: str
    variants: Mapping[str, Variant]
    description: str
    prepare: Callable[[Config, Sequence[int]], None] | None = None
    target: Path = DEMO
    shares_with: Study | None = None


@dataclass
class Run:
    """One variant with one seed, or the captions of a seed."""

    name: str
    seed: int
    files: list[Path]
    settings: list[str]
    stages: list[str]
    needs: tuple[str, ...] = ()  # other runs' labels
    prefix: str = "ablation"

    @property
    def makes_captions(self) -> bool:
        return self.name in (CAPTIONS, RELEASED_CAPTIONS)

    @property
    def label(self) -> str:
        return f"{self.name}-seed{self.seed}"

    @cached_property
    def config(self) -> Config:
        return load_config(self.files, self.settings)

    @property
    def directory(self) -> Path:
        """Where its log and what it took are kept; for a variant the run's own folder."""
        return Path(self.config.output) / f"{self.prefix}-{self.label}"

    def finished(self) -> bool:
        """Whether all its stages are done with these settings.

        Raises:
            UserError: they are done with other settings, so its results would not be those of this configuration; or
                captions are there whose warm-up is not, and runs side by side would each make it.
        """
        if self.makes_captions:
            _check_warm_up(self.config)
        marks = _marks(self.config, self.makes_captions)
        for mark in marks:
            if changed := mark.changes():
                raise UserError(
                    f"{mark.path} was finished with other settings ({'; '.join(changed[:5])}): remove {mark.path.parent} "
                    f"or run the study with --force and the variants and seeds that are to be run again."
                )
        return all(m.changes() == [] for m in marks) if self.makes_captions else is_finished(self.config)

    def command(self, stage: str) -> list[str]:
        """How a stage of it is started."""
        script = str(ROOT / f"{stage}.py")
        return [sys.executable, script, "--config", *map(str, self.files), "--set", *self.settings]


def _check_warm_up(config: Config) -> None:
    captions = config.caption_directory / "captions.json"
    weights = warm_up.warm_up_path(config, captioner_method(config))
    if captions.is_file() and warm_up.is_wanted(config) and not weights.is_file():
        raise UserError(
            f"{captions} is there and its warm-up {weights} is not: remove {captions.parent} as well, or make both again with "
            "train.bash --from pre_train."
        )


def _marks(config: Config, captions: bool) -> list[Mark]:
    return [Mark.of(stage, config) for stage in (CAPTION_STAGES if captions else ("train",))]


def config_files(target: Path, method: str, released: bool = False) -> list[Path]:
    """The files that train.bash reads for a data set and a method, later ones win.

    Args:
        released: with what the method's released code does otherwise, and what that needs on this data set.
    """
    configs, folder = ROOT / "configs", target.with_suffix("")
    files = [configs / "methods" / f"{method}.yaml", target]
    both = [folder / f"{method}.yaml"]
    if released:
        both += [configs / "released" / f"{method}.yaml", folder / "released.yaml"]
    return [*files, *(path for path in both if path.is_file())]


def prefix_of(target: Path) -> str:
    """What the folders of the runs on a data set begin with: a variant is another run on another one."""
    return "ablation" if target.stem == DEMO.stem else f"ablation-{target.stem}"


def _placeholders(plain: Config, target: Path) -> dict[str, Any]:
    """What a variant's settings may name, from PSPD's configuration of the target with a seed."""
    return {
        "epochs": plain.train.rounds * plain.train.max_epoch,
        "each": plain.train.max_epoch,
        "seed": plain.seed,
        "output": plain.output,
        "runs": f"{plain.output}/{prefix_of(target)}",
        "data": plain.dataset.root,
        "tag": plain.dataset.label,
        "captions": plain.caption_directory,
    }


def planned_runs(
    target: Path,
    names: Sequence[str],
    seeds: Sequence[int],
    settings: Sequence[str],
    threads: int,
    variants: Mapping[str, Variant],
) -> list[Run]:
    """The runs of these variants and seeds, each behind what it needs, which is planned with it."""
    wanted = dict.fromkeys(other for name in names for other in (variants[name].after, name) if other)
    runs = []
    for seed in seeds:
        common = [ALSO, *settings, f"seed={seed}", f"runtime.threads={threads}"]
        for released, captions in ((False, CAPTIONS), (True, RELEASED_CAPTIONS)):
            if any(variants[name].captions and variants[name].released == released for name in wanted):
                files = config_files(target, "pspd", released)
                stages = list(CAPTION_STAGES)
                runs.append(Run(captions, seed, files, common, stages, prefix=prefix_of(target)))
        known = _placeholders(load_config(config_files(target, "pspd"), common), target)
        for name in wanted:
            variant = variants[name]
            own = [text.format(**known) for text in variant.settings]
            captions = RELEASED_CAPTIONS if variant.released else CAPTIONS
            needs = [captions] * variant.captions + [variant.after] * bool(variant.after)
            runs.append(
                Run(
                    name,
                    seed,
                    config_files(target, variant.method, variant.released),
                    [*common, f"run={prefix_of(target)}-{name}-seed{seed}", *own],
                    list(variant.stages),
                    tuple(f"{other}-seed{seed}" for other in needs),
                    prefix_of(target),
                )
            )
    return runs
