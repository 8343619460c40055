"""Training curves from a run's metrics.jsonl: losses, validation, and the pseudo labels of each round."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's colours, told apart by colour-blind readers too
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_BEFORE, _AFTER = "#B8CDE0", "#0072B2"


@dataclass
class History:
    """What metrics.jsonl tells: `steps` and `epochs` carry an added "x", in epochs since the start of the run."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    clusters: list[dict[str, Any]] = field(default_factory=list)
    phases: list[tuple[float, str]] = field(default_factory=list)  # where each begins, and its name

    @staticmethod
    def read(path: str | Path) -> History:
        """Reads the events; a torn last line and events of other kinds are passed over."""
        history = History()
        pending: list[dict[str, Any]] = []
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                continue
            kind = event.get("event")
            if kind == "step":
                pending.append(event)
            elif kind == "epoch":
                history._end_epoch(event, pending)
                pending = []
            elif kind == "clusters":
                history.clusters.append(event)
        if pending:  # an epoch that is not over yet
            history._enter_phase(pending[0])
            history._place_steps(pending)
        return history

    def _end_epoch(self, event: dict[str, Any], steps: list[dict[str, Any]]) -> None:
        self._place_steps(steps)
        self._enter_phase(event)
        self.epochs.append({**event, "x": len(self.epochs) + 1.0})

    def _enter_phase(self, event: dict[str, Any]) -> None:
        name = event.get("phase") or f"round {event.get('round', 0)}"
        if not self.phases or self.phases[-1][1] != name:
            self.phases.append((float(len(self.epochs)), name))

    def _place_steps(self, steps: list[dict[str, Any]]) -> None:
        begun, last = len(self.epochs), max((step["step"] for step in steps), default=1)
        self.steps += [{**step, "x": begun + step["step"] / max(last, 1)} for step in steps]


def training_curves(metrics: str | Path, path: str | Path) -> None:
    """Draws a run's metrics.jsonl into a PNG; panels without data are left out.

    Losses per step (faint) and epoch, Rank-1 and mAP on val with (solid) and without (dashed) re-ranking, and per
    round the number of clusters, the share of noise, and NMI and ARI before and after label correction.
    Raises ValueError when the file holds no event that can be drawn.
    """
    history = History.read(metrics)
    wide = [_losses] if history.epochs or history.steps else []
    wide += [_validation] if any(epoch.get("val") for epoch in history.epochs) else []
    narrow = [_cluster_counts, _noise] if history.clusters else []
    narrow += [_agreement] if any("nmi" in round_.get("after", {}) for round_ in history.clusters) else []
    if not wide and not narrow:
        raise ValueError(f"{metrics} holds no step, epoch or clusters event yet; there is nothing to draw.")
    figure = plt.figure(figsize=(10, 3.1 * (len(wide) + bool(narrow))), layout="constrained")
    heights = [height for height in (len(wide), bool(narrow)) if height]
    parts = list(figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])
    for panels, shape in ((wide, (len(wide), 1)), (narrow, (1, len(narrow)))):
        if panels:
            for axes, panel in zip(parts.pop(0).subplots(*shape, squeeze=False).flat, panels, strict=True):
                panel(axes, history)
    _save(figure, Path(path))


def _losses(axes: Axes, history: History) -> None:
    """One colour per part; an epoch's mean stands in the middle of its epoch."""
    names = list(dict.fromkeys(name for event in history.epochs + history.steps for name in event["losses"]))
    for name, colour in zip(names, _COLOURS, strict=False):
        axes.plot([], [], color=colour, label=name)
        for events, shift, style in (
            (history.steps, 0.0, {"alpha": 0.3, "lw": 0.8}),
            (history.epochs, 0.5, {"lw": 1.8}),
        ):
            for run in _by_phase(events, history):
                known = [event for event in run if name in event["losses"]]
                xs = [event["x"] - shift for event in known]
                marker = "o" if len(known) == 1 else None
                axes.plot(
                    xs, [event["losses"][name] for event in known], color=colour, marker=marker, ms=4, **style
                )
    _epoch_axis(axes, history, "loss")


def _by_phase(events: list[dict[str, Any]], history: History) -> list[list[dict[str, Any]]]:
    """Events split where a phase begins: every round starts from the same weights, so its curve is its own."""
    begins = [begin for begin, _ in history.phases]
    ends = [*begins[1:], float("inf")]
    return [
        [event for event in events if begin < event["x"] <= end]
        for begin, end in zip(begins, ends, strict=True)
    ]


def _validation(axes: Axes, history: History) -> None:
    curves = (("r1", "Rank-1", _COLOURS[0]), ("mAP", "mAP", _COLOURS[1]))
    for key, title, colour in curves:
        for kind, style, face in (("itm", "-", colour), ("itc", "--", "white")):
            label = title if kind == "itm" else f"{title}, features alone"
            for run in _by_phase(history.epochs, history):
                known = [event for event in run if (event.get("val") or {}).get(kind)]
                values = [event["val"][kind][key] for event in known]
                if known:
                    xs = [event["x"] for event in known]
                    # not clipped: the last epoch of the last round stands on the frame
                    axes.plot(
                        xs,
                        values,
                        style,
                        color=colour,
                        marker="o",
                        ms=5,
                        mfc=face,
                        lw=1.4,
                        label=label,
                        clip_on=False,
                        zorder=3,
                    )
                    label = None
    axes.set_ylim(0, 1.08 * axes.get_ylim()[1])
    _epoch_axis(axes, history, "val, %")


def _epoch_axis(axes: Axes, history: History, title: str) -> None:
    """Axis in epochs, with the beginning of every phase marked and named."""
    end = max([event["x"] for event in history.epochs + history.steps], default=1.0)
    begins = [begin for begin, _ in history.phases]
    for (begin, name), after in zip(history.phases, [*begins[1:], end], strict=True):
        axes.axvline(begin, color="0.8", lw=1, zorder=0)
        if len(history.phases) <= 12:
            axes.text(
                (begin + after) / 2,
                1.02,
                name,
                color="0.4",
                ha="center",
                transform=axes.get_xaxis_transform(),
            )
    axes.set_xlim(0, end)
    axes.set_xlabel("epoch")
    axes.set_ylabel(title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.93")
    axes.set_axisbelow(True)


def _rounds(history: History) -> list[int]:
    return [int(event.get("round", number)) for number, event in enumerate(history.clusters)]


def _both(axes: Axes, history: History, key: str, title: str, scale: float = 1.0) -> None:
    """Bars per round before and after label correction; one bar where only one value is there."""
    for event, at in zip(history.clusters, _rounds(history), strict=True):
        before, after = event.get("before", {}).get(key), event.get("after", {}).get(key, event.get(key))
        if before is not None:
            axes.bar(at - 0.2, scale * before, 0.4, color=_BEFORE)
        if after is not None:
            axes.bar(at + 0.2 * (before is not None), scale * after, 0.4, color=_AFTER)
    _round_axis(axes, history, title)


def _round_axis(axes: Axes, history: History, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("round")
    axes.set_xticks(_rounds(history))
    _plain(axes)


def _cluster_counts(axes: Axes, history: History) -> None:
    _both(axes, history, "clusters", "clusters")
    corrected = any("before" in event for event in history.clusters)
    if corrected:
        axes.bar(_rounds(history)[0], 0, color=_BEFORE, label="before correction")
        axes.bar(_rounds(history)[0], 0, color=_AFTER, label="after")
        axes.set_ylim(top=1.18 * axes.get_ylim()[1])  # room for the legend above the bars
        axes.legend(frameon=False, fontsize=8, loc="upper left", ncols=2)


def _noise(axes: Axes, history: History) -> None:
    _both(axes, history, "noise", "noise, % of images", 100.0)


def _agreement(axes: Axes, history: History) -> None:
    rounds = _rounds(history)
    for key, colour in (("nmi", _COLOURS[2]), ("ari", _COLOURS[3])):
        for when, style in (("before", ":"), ("after", "-")):
            values = [event.get(when, {}).get(key, float("nan")) for event in history.clusters]
            label = f"{key.upper()}{'' if when == 'after' else ' before'}"
            axes.plot(rounds, values, style, marker="o", ms=4, color=colour, label=label)
    axes.set_ylim(0, 1.02)
    axes.legend(frameon=False, fontsize=8)
    _round_axis(axes, history, "agreement with identities")


def _save(figure: plt.Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)
    os.replace(temporary, path)
