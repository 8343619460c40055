"""What each part of PSPD brings, and the other methods beside it: variants times seeds, resumable, several at a time.

    python -m benchmarks.ablation                                       # all variants on the demo, seeds 0, 1, 2
    python -m benchmarks.ablation --variants pspd no-local --seeds 0
    python -m benchmarks.ablation --threads 1 --jobs 2                  # two runs side by side, one thread each

Each run starts the entry scripts as a user does and writes `output/ablation-<variant>-seed<N>` (on other data than the demo
`output/ablation-<data>-<variant>-seed<N>`). The captions of a seed are made once and shared by its variants, and so is the
warm-up that belongs to them. Finished runs are skipped; ctrl-C and SIGTERM stop all runs, which save, and the same command
goes on. Results: `benchmarks/results/ablation-<data>-cpu-<torch>.csv`;
rows of runs that are not here stay in it. Every run also records what its epoch that is best on test would have reported,
which changes nothing else.
"""

from __future__ import annotations

import sys

from benchmarks import study_command
from benchmarks.study import Study, Variant

VARIANTS = {
    "pspd": Variant("PSPD"),
    "no-correction": Variant("without label correction", settings=("correction.enabled=false",)),
    "no-local": Variant("without the local loss", settings=("model.options.local_weight=0",)),
    "base-captions": Variant("base captions only, each twice", settings=("train.captions=[base,base]",)),
    # The warm-up learns stage A's captions; without rounds its weights are the model, whatever stage C wrote.
    "warm-up": Variant("palette captions, no rounds", settings=("train.rounds=0",)),
    "labels": Variant(
        "real captions and identities, as many epochs",
        settings=("train.supervision=labels", "train.max_epoch={epochs}"),
        captions=False,
    ),
    "tsn": Variant("TSN", method="tsn", stages=("gen_pre_train_text", "train", "test")),
    "cada": Variant("CADA, as many epochs", method="cada", captions=False),
    "ssan": Variant("SSAN, as many epochs", method="ssan", captions=False),
    "irra": Variant("IRRA, as many epochs", method="irra", captions=False),
    "rde": Variant("RDE, as many epochs", method="rde", captions=False),
    "tbps_clip": Variant("TBPS-CLIP, as many epochs", method="tbps_clip", captions=False),
    "tbps_clip-simplified": Variant(
        "TBPS-CLIP simplified, as many epochs",
        method="tbps_clip",
        settings=("model.options.simplified=true",),
        captions=False,
    ),
    "syntbpr": Variant("SynTBPR, as many epochs", method="syntbpr", captions=False),
}
STUDY = Study("ablation", VARIANTS, __doc__)  # what studies on the demo from scratch share their runs with

if __name__ == "__main__":
    sys.exit(study_command.main(STUDY))
