"""From a pre-trained start to a world it has never seen: what captions, rounds and each part of PSPD bring, and what labels would.

    python -m benchmarks.adaptation                                     # all variants on the target world, seeds 0, 1, 2
    python -m benchmarks.adaptation --variants start pspd labels --seeds 0

Runs, skips, stops and goes on as `benchmarks.ablation` does. Results: `benchmarks/results/adaptation-<data>-cpu-<torch>.csv`;
`python -m benchmarks.demo_steps` draws them.
"""

from __future__ import annotations

import sys

from benchmarks import study_command
from benchmarks.study import ROOT, Study, Variant
from engine.marks import CAPTION_STAGES

_EPOCHS = "train.max_epoch={epochs}"
_OWN_CLASSES = ("cluster.enabled=false", _EPOCHS)
_ALIKE = "train.pair_weights=none"
# Captions that people wrote are right, and have words that the start may not know.
PEOPLES = ("train.frozen=[]", _ALIKE)
_ALL = (*CAPTION_STAGES, "train", "test")
_OWN_CAPTIONS = "pre_gen_data={captions}-{name}"  # where they are made otherwise


def _variant(title: str, *settings: str, **others: object) -> Variant:
    return Variant(title, settings=settings, **others)


# PSPD's people of the source world as another labelled data set, which rounds encode anew (docs/clustering.md).
SOURCE = (
    "cluster.source.name=cuhk_pedes",
    "cluster.source.tag=source",
    "cluster.source.root={data}-source",
    "cluster.source.synthesis.world=source",
    "cluster.source.synthesis.val=1",
    "cluster.source.synthesis.test=1",
)
# PSPD with a part off, or with one that is off by default.
PARTS = {
    "no-weights": _variant("all pairs count alike", _ALIKE),
    "own-classes": _variant("captions alone, every image its own class", *_OWN_CLASSES),
    "own-classes-no-weights": _variant(
        "captions alone, every image its own class, all pairs count alike", *_OWN_CLASSES, _ALIKE
    ),
    "mixture": _variant(
        "pairs weighed by a mixture of their losses, none dropped", "train.pair_weights=mixture"
    ),
    "caption-agreement": _variant(
        "pairs dropped by what the captions of a label have in common",
        "train.pair_opinions=[captions]",
    ),
    "no-correction": _variant("without label correction", "correction.enabled=false"),
    "no-local": _variant("without the local loss", "model.options.local_weight=0"),
    "base-captions": _variant("base captions only, each twice", "train.captions=[base,base]"),
    "learning-text": _variant("the text encoder learns, too", "train.frozen=[]"),
    "no-average": _variant("the last weights instead of their average", "train.average=0"),
    "identity-batches": _variant("batches of 12 pseudo labels by 4", "train.sampler=identity"),
    "pspd-source": _variant("people of the source world beside the clusters", *SOURCE),
    "sample-kept": _variant(
        "the sample keeps stage A's captions",
        "gen_text.source=both",
        _OWN_CAPTIONS.replace("{name}", "sample"),
        stages=_ALL,
        captions=False,
    ),
}
VARIANTS = {
    "start": _variant("the start, no training", "train.supervision=zero-shot", _ALIKE, captions=False),
    "pspd": _variant("PSPD"),
    **PARTS,
    "tsn": Variant("TSN", method="tsn", stages=("gen_pre_train_text", "train", "test")),
    "pairs": _variant("real captions, rounds", "train.supervision=pairs", *PEOPLES, captions=False),
    "labels": _variant(
        "real captions and identities", "train.supervision=labels", *PEOPLES, _EPOCHS, captions=False
    ),
    "cada": Variant("CADA", method="cada", captions=False),
}
TARGET = ROOT / "configs" / "demo-pretrained.yaml"
STUDY = Study("adaptation", VARIANTS, __doc__, target=TARGET)

if __name__ == "__main__":
    sys.exit(study_command.main(STUDY))
