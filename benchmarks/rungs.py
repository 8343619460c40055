"""The rungs of supervision beside each other: no training, generated captions, captions alone, captions and identities.

    python -m benchmarks.rungs                                  # PSPD's losses, IRRA's and SSAN's on the demo, seeds 0, 1, 2
    python -m benchmarks.rungs --variants pspd pairs labels --seeds 0

Runs, skips, stops and goes on as `benchmarks.ablation` does, with whose runs it shares what is the same. Every rung of a
method has the same budget in steps: a warm-up, then as many epochs as PSPD's rounds together, in rounds where labels are
made. Results: `benchmarks/results/rungs-<data>-cpu-<torch>.csv`; `python -m benchmarks.pages` puts them on their page.

Zero-shot needs weights that were trained on something else. PSPD's are `checkpoint/demo/pretrained.pth`
(docs/pretraining.md); IRRA's are made here, by training it on people of the source world. SSAN has none: what it can start
from is an image encoder alone.
"""

from __future__ import annotations

import sys

from benchmarks import ablation
from benchmarks.ablation import ROOT, Study, Variant

START = ROOT / "checkpoint" / "demo" / "pretrained.pth"
_CAPTIONS, _CLASSES = "train.supervision=pairs", "cluster.enabled=false"
# SSAN's own schedule is one training from scratch; its rounds share that budget with a warm-up, for first labels that say anything.
_SSAN_ROUNDS = ("train.warm_up.max_epoch=10", "train.max_epoch=5", "train.lr_steps=[3,4]")


def _zero_shot(weights: str) -> tuple[str, ...]:
    return ("train.supervision=zero-shot", f"model.pretrained={weights}", f"model.tokenizer={weights}")


def _rung(
    title: str, *settings: str, method: str = "pspd", captions: bool = False, after: str = ""
) -> Variant:
    return Variant(title, method=method, settings=settings, captions=captions, after=after)


VARIANTS = {
    "zero-shot": _rung("PSPD's losses: zero-shot, from the source world", *_zero_shot(str(START))),
    "pspd": ablation.VARIANTS["pspd"],
    "pairs": _rung(
        "PSPD's losses: captions, every image its class", _CAPTIONS, _CLASSES, "train.max_epoch={epochs}"
    ),
    "pairs-clusters": _rung("PSPD's losses: captions, clusters", _CAPTIONS),
    "labels": ablation.VARIANTS["labels"],
    "irra-source": _rung(
        "IRRA on the source world, where it is evaluated, too",
        "dataset.tag=source",
        "dataset.root={data}-source-world",
        "dataset.synthesis.world=source",
        method="irra",
    ),
    "irra-zero-shot": _rung(
        "IRRA: zero-shot, from the source world",
        *_zero_shot("{runs}-irra-source-seed{seed}/best.pth"),
        method="irra",
        after="irra-source",
    ),
    "irra-pseudo": _rung(
        "IRRA: generated captions, clusters",
        "train.supervision=pseudo",
        "train.max_epoch={each}",
        method="irra",
        captions=True,
    ),
    "irra-pairs": _rung("IRRA: captions, every image its class", _CAPTIONS, _CLASSES, method="irra"),
    "irra-pairs-clusters": _rung(
        "IRRA: captions, clusters", _CAPTIONS, "train.max_epoch={each}", method="irra"
    ),
    "irra": ablation.VARIANTS["irra"],
    "ssan-pseudo": _rung(
        "SSAN: generated captions, clusters",
        "train.supervision=pseudo",
        *_SSAN_ROUNDS,
        method="ssan",
        captions=True,
    ),
    "ssan-pairs": _rung("SSAN: captions, every image its class", _CAPTIONS, _CLASSES, method="ssan"),
    "ssan-pairs-clusters": _rung("SSAN: captions, clusters", _CAPTIONS, *_SSAN_ROUNDS, method="ssan"),
    "ssan": ablation.VARIANTS["ssan"],
}
# The same rungs as a table: method by supervision. A rung that a method does not have is empty.
RUNGS = {
    "zero-shot": "nothing of this data set",
    "pseudo": "images alone: generated captions, clusters",
    "pairs": "captions, every image its own class",
    "pairs-clusters": "captions, clusters",
    "labels": "captions and identities",
}
METHODS = {
    "PSPD's losses": ("zero-shot", "pspd", "pairs", "pairs-clusters", "labels"),
    "IRRA": ("irra-zero-shot", "irra-pseudo", "irra-pairs", "irra-pairs-clusters", "irra"),
    "SSAN": ("", "ssan-pseudo", "ssan-pairs", "ssan-pairs-clusters", "ssan"),
}

STUDY = Study("rungs", VARIANTS, __doc__)

if __name__ == "__main__":
    sys.exit(ablation.main(study=STUDY))
