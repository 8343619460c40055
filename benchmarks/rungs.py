"""The rungs of supervision beside each other: no training, generated captions, captions alone, captions and identities.

    python -m benchmarks.rungs                                  # PSPD's losses and IRRA's on the target world, seeds 0, 1, 2
    python -m benchmarks.rungs --variants pspd pairs labels --seeds 0

Runs, skips, stops and goes on as `benchmarks.ablation` does, with `benchmarks.adaptation`, whose runs it shares where they are the
same. Every rung of a method starts from the same weights, which learnt people of the source world, and has the same budget in
steps: as many epochs as PSPD's rounds together, in rounds where labels are made. Results:
`benchmarks/results/rungs-<data>-cpu-<torch>.csv`; `python -m benchmarks.pages` puts them on their page.

PSPD's start is `checkpoint/demo/pretrained.pth` (docs/pretraining.md), 3,000 people; IRRA's is made here, on as many as the target
has, by each seed anew.
"""

from __future__ import annotations

import sys

from benchmarks import adaptation, study_command
from benchmarks.study import Study, Variant

_CAPTIONS, _CLASSES = "train.supervision=pairs", "cluster.enabled=false"
_ALL_EPOCHS, _EPOCHS_OF_A_ROUND = "train.max_epoch={epochs}", "train.max_epoch={each}"
_SOURCE = "irra-source"
_START = "{runs}-irra-source-seed{seed}/best.pth"


def _irra(title: str, *settings: str, **others: object) -> Variant:
    """IRRA from its model of the source world."""
    start = (f"model.pretrained={_START}", f"model.tokenizer={_START}", "train.warm_up.max_epoch=0")
    return Variant(
        f"IRRA: {title}",
        method="irra",
        settings=(*start, *settings),
        **{"captions": False, "after": _SOURCE, **others},
    )


VARIANTS = {
    "start": adaptation.VARIANTS["start"],
    "pspd": adaptation.VARIANTS["pspd"],
    "pairs-own-classes": Variant(
        "PSPD's losses: captions, every image its own class",
        settings=(_CAPTIONS, _CLASSES, *adaptation.PEOPLES, _ALL_EPOCHS),
        captions=False,
    ),
    "pairs": adaptation.VARIANTS["pairs"],
    "labels": adaptation.VARIANTS["labels"],
    _SOURCE: Variant(
        "IRRA on the source world, where it is evaluated, too",
        method="irra",
        settings=(
            "dataset.tag=source",
            "dataset.root={data}-source-world",
            "dataset.synthesis.world=source",
        ),
        captions=False,
    ),
    "irra-start": _irra("the start, no training", "train.supervision=zero-shot"),
    "irra-pseudo": _irra(
        "generated captions, clusters",
        "train.supervision=pseudo",
        "train.frozen=[text]",
        _EPOCHS_OF_A_ROUND,
        captions=True,
    ),
    "irra-pairs-own-classes": _irra("captions, every image its own class", _CAPTIONS, _CLASSES),
    "irra-pairs": _irra("captions, clusters", _CAPTIONS, _EPOCHS_OF_A_ROUND),
    "irra": _irra("captions and identities"),
}
# The same rungs as a table: method by supervision.
RUNGS = {
    "zero-shot": "nothing of this data set",
    "pseudo": "images alone: generated captions, clusters",
    "pairs, own classes": "captions, every image its own class",
    "pairs": "captions, clusters",
    "labels": "captions and identities",
}
METHODS = {
    "PSPD's losses": ("start", "pspd", "pairs-own-classes", "pairs", "labels"),
    "IRRA": ("irra-start", "irra-pseudo", "irra-pairs-own-classes", "irra-pairs", "irra"),
}

STUDY = Study("rungs", VARIANTS, __doc__, target=adaptation.TARGET, shares_with=adaptation.STUDY)

if __name__ == "__main__":
    sys.exit(study_command.main(STUDY))
