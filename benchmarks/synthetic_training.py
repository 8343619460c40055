"""What synthetic images bring: beside real ones, before them, in their place, edited or not, and with wrong captions.

    python gen_images.py --config configs/syn.yaml                            # the set, once
    python -m benchmarks.synthetic_training                                   # all variants on the demo, seeds 0, 1, 2
    python -m benchmarks.synthetic_training --variants pspd pspd-from-synthetic --seeds 0

Runs, skips, stops and goes on as `benchmarks.ablation` does, with whose runs it shares what is the same. Another set:
`--set gen_images.root=DIR`. Results: `benchmarks/results/synthetic_training-<data>-cpu-<torch>.csv`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks import ablation, study_command
from benchmarks.study import Study, Variant
from benchmarks.synthetic_sets import swapped, without_edits, write_variation
from engine.config import Config

SET = "datasets/synthetic"  # where configs/syn.yaml makes it
SETS = "{output}/synthetic-sets"  # the variations of it that runs read


def _variant(
    title: str, data: str, images: str, *settings: str, method: str = "syntbpr", captions=False
) -> Variant:
    """A run that reads the variation `images` of the synthetic set."""
    own = (f"train.data={data}", f"gen_images.root={SETS}/{images}", *settings)
    return Variant(title, method=method, settings=own, captions=captions)


def _swapped(share: int) -> dict[str, Variant]:
    """Runs on a set with so many per cent of its captions on other people."""
    images, title = f"swapped-{share}-seed{{seed}}", f"SynTBPR, synthetic, {share} % of the captions swapped"
    return {
        f"swapped-{share}": _variant(title, "synthetic", images),
        f"swapped-{share}-weighted": _variant(f"{title}, weighted pairs", "synthetic", images, _WEIGHTED),
    }


SHARES = (20, 50)
_EPOCHS = "train.synthetic.max_epoch={epochs}"  # PSPD's own are those of one round
_WEIGHTED = "train.pair_weights=mixture"
VARIANTS = {
    "syntbpr": ablation.VARIANTS["syntbpr"],
    "synthetic": _variant("SynTBPR, synthetic images alone", "synthetic", "all"),
    "synthetic-then-real": _variant("SynTBPR, synthetic then real", "synthetic_then_real", "all"),
    "mixed": _variant("SynTBPR, both at once", "mixed", "all"),
    "unedited": _variant("SynTBPR, synthetic, each edit's place taken by its image", "synthetic", "unedited"),
    "weighted": _variant("SynTBPR, synthetic, weighted pairs", "synthetic", "all", _WEIGHTED),
    "pspd": ablation.VARIANTS["pspd"],
    "pspd-on-synthetic": _variant(
        "PSPD's losses, synthetic images alone", "synthetic", "all", _EPOCHS, method="pspd"
    ),
    "pspd-from-synthetic": _variant(
        "PSPD, rounds from that model", "synthetic_then_real", "all", _EPOCHS, method="pspd", captions=True
    ),
    **_swapped(SHARES[0]),
    **_swapped(SHARES[1]),
}


def prepare(config: Config, seeds: Sequence[int]) -> None:
    """Write the variations of the synthetic set that runs with these seeds read.

    Raises:
        UserError: there is no synthetic set.
    """
    source = Path(config.gen_images.root if config.gen_images else SET)
    sets = Path(SETS.format(output=config.output))
    write_variation(source, sets / "all", list)
    write_variation(source, sets / "unedited", without_edits)
    for seed in seeds:
        for share in SHARES:
            change = partial(swapped, share=share / 100, seed=seed)
            write_variation(source, sets / f"swapped-{share}-seed{seed}", change)


STUDY = Study("synthetic_training", VARIANTS, __doc__, prepare, shares_with=ablation.STUDY)

if __name__ == "__main__":
    sys.exit(study_command.main(STUDY))
