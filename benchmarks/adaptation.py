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
_ALL = (*CAPTION_STAGES, "train", "test")
_OWN_CAPTIONS = "pre_gen_data={captions}-{name}"  # where they are made otherwise


def _variant(title: str, *settings: str, **others: object) -> Variant:
    return Variant(title, settings=settings, **others)


VARIANTS = {
    "start": _variant("the start, no training", "train.supervision=zero-shot", captions=False),
    "own-classes": _variant("captions alone, every image its own class", "cluster.enabled=false", _EPOCHS),
    "pspd": _variant("PSPD"),
    "no-correction": _variant("without label correction", "correction.enabled=false"),
    "no-local": _variant("without the local loss", "model.options.local_weight=0"),
    "base-captions": _variant("base captions only, each twice", "train.captions=[base,base]"),
    "learning-text": _variant("the text encoder learns, too", "train.frozen=[]"),
    "no-average": _variant("the last weights instead of their average", "train.average=0"),
    "identity-batches": _variant("batches of 12 pseudo labels by 4", "train.sampler=identity"),
    "sample-kept": _variant(
        "the sample keeps stage A's captions",
        "gen_text.source=both",
        _OWN_CAPTIONS.replace("{name}", "sample"),
        stages=_ALL,
        captions=False,
    ),
    "tsn": Variant("TSN", method="tsn", stages=("gen_pre_train_text", "train", "test")),
    "pairs": _variant("real captions, rounds", "train.supervision=pairs", "train.frozen=[]", captions=False),
    "labels": _variant(
        "real captions and identities", "train.supervision=labels", "train.frozen=[]", _EPOCHS, captions=False
    ),
    "cada": Variant("CADA", method="cada", captions=False),
}
TARGET = ROOT / "configs" / "demo-pretrained.yaml"
STUDY = Study("adaptation", VARIANTS, __doc__, target=TARGET)

if __name__ == "__main__":
    sys.exit(study_command.main(STUDY))
