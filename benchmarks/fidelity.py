"""What the differences of docs/fidelity.md do on the demo: each switch alone, and released configurations as a whole.

    python -m benchmarks.fidelity                                         # BLIP's methods, pre-trained start, seeds 0, 1, 2
    python -m benchmarks.fidelity --variants pspd released-pspd --seeds 0
    python -m benchmarks.fidelity from-scratch                            # the others, which have no such start

Runs, skips, stops and goes on as `benchmarks.ablation` does; it shares its runs, and those of `benchmarks.adaptation`, where
they are the same. A switch is set alone, in the first of the methods that its row names; captions and warm-up are those of the
seed, unless it changes captions. Results: `benchmarks/results/fidelity-<data>-cpu-<torch>.csv`; `python -m benchmarks.pages`
puts them on the page.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks import ablation, adaptation, study_command
from benchmarks.model_zoo import METHODS as TITLES
from benchmarks.model_zoo import STARTED as HAVE_A_START
from benchmarks.study import Study, Variant
from engine.marks import CAPTION_STAGES

# Each method as this project has it, by the study whose runs those are: from a pre-trained start where there is one.
STARTED = {name: adaptation.VARIANTS[name] for name in HAVE_A_START}
FROM_SCRATCH = {name: ablation.VARIANTS[name] for name in ("ssan", "irra", "rde", "syntbpr")}
OWN = STARTED | FROM_SCRATCH


@dataclass(frozen=True)
class Switch:
    """A row of the page that has a switch.

    Attributes:
        setting: as the page has it.
        settings: what a run on the demo sets, where that is more or another thing; empty: the setting.
        captions: whether it changes captions, so that a run makes its own.
    """

    method: str
    setting: str
    settings: tuple[str, ...] = ()
    captions: bool = False

    def variant(self) -> Variant:
        """The run that has this one setting more than its method's."""
        own = OWN[self.method]
        return Variant(
            f"{TITLES[self.method]}, `{self.setting.partition('=')[0]}`",
            method=self.method,
            settings=(*own.settings, *(self.settings or (self.setting,))),
            stages=(*CAPTION_STAGES, *own.stages) if self.captions else own.stages,
            captions=own.captions and not self.captions,
        )


SWITCHES = {
    "pspd-source": Switch("pspd", "cluster.source={name: icfg_pedes, root: datasets}", adaptation.SOURCE),
    "pspd-jaccard": Switch("pspd", "cluster.metric=jaccard", ("cluster.metric=jaccard", "cluster.eps=0.6")),
    "pspd-correction-base": Switch("pspd", "correction.captions=base"),
    "pspd-correction-cls": Switch("pspd", "correction.first_token=cls"),
    "pspd-agreement": Switch("pspd", "correction.agreement=0.5"),
    "pspd-top-k": Switch(
        "pspd",
        "gen_text.top_k=50",
        ("gen_text.top_k=50", "pre_gen_data={captions}-top-k"),
        captions=True,
    ),
    "pspd-decay-vectors": Switch("pspd", "train.decay_vectors=true"),
    "pspd-keep-unknown": Switch("pspd", "model.options.keep_unknown=true"),
    "tsn-raw-fused": Switch("tsn", "model.options.normalise_fused=false"),
    "tsn-normal-start": Switch("tsn", "model.options.fusion_start=normal"),
    "cada-half-padding": Switch("cada", "model.options.half_padding=true"),
    "cada-causal-decoder": Switch("cada", "model.options.causal_decoder=true"),
    "released-ssan": Switch("ssan", "model.options.padding_counts=true"),  # all that is released of it
    "irra-bf16": Switch("irra", "runtime.precision=bf16"),
    "rde-selections-rate": Switch("rde", "model.options.head_lr_factor=1.0"),
    "syntbpr-mixture": Switch("syntbpr", "train.pair_weights=mixture"),
}
# Switches that a run on the demo has no row for, and why.
NOT_HERE = {
    "test.also_select_on_test=true": "every run has it: its effect is the gap that each row tells",
    "gen_pre_train_text.backend=openai": "needs a server",
    "gen_text.attributes={backend: openai}": "needs a server",
    "gen_images.colours=true": "of synthetic sets, which the demo has none of",
}
RELEASED = ("pspd", "tsn", "cada", "ssan")


def _released(method: str) -> Variant:
    """A method as its released code does it."""
    own = OWN[method]
    return Variant(
        f"{TITLES[method]} as released",
        method=method,
        stages=own.stages,
        captions=own.captions,
        released=True,
    )


def _variants(methods: Mapping[str, Variant]) -> dict[str, Variant]:
    """The methods with our settings and released ones, and every switch of theirs."""
    found = dict(methods)
    for method in methods:
        found |= {f"released-{method}": _released(method)} if method in RELEASED else {}
    alone = {
        name: switch for name, switch in SWITCHES.items() if switch.method in methods and name not in found
    }
    return found | {name: switch.variant() for name, switch in alone.items()}


STUDY = Study(
    "fidelity",
    _variants(STARTED),
    __doc__,
    target=adaptation.TARGET,
    shares_with=adaptation.STUDY,
)
SCRATCH = Study("fidelity", _variants(FROM_SCRATCH), __doc__, shares_with=ablation.STUDY)
STUDIES = (STUDY, SCRATCH)


def main(arguments: Sequence[str]) -> int:
    """Run either study; returns the exit status."""
    scratch = arguments[:1] == ["from-scratch"]
    return study_command.main(SCRATCH if scratch else STUDY, arguments[scratch:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
