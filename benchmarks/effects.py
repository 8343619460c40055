"""What the switches of docs/fidelity.md do, in words: from the study on the demo and from what was measured on other data.

`benchmarks.pages` writes it into the page's column of effects.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import fidelity
from benchmarks.model_zoo import STUDIES, newest_first, read_on_test
from benchmarks.study_rows import ON_TEST
from engine.several_seeds import spread

COLUMNS = 9  # of the page's table; the last but one says what was measured
# How what is written into that column begins; anything else in a cell is the page's own and stays.
MADE_UP, TARGET = "made-up features", "labels of the target world"
FILLED = (MADE_UP, TARGET, "demo,", "not measured")
Rows = Sequence[Mapping[str, Any]]


def newest(pattern: str, results: Path) -> list[dict[str, str]]:
    """The rows of the file of that name with the newest torch; none where there is none."""
    paths = sorted(results.glob(pattern), key=newest_first)
    if not paths:
        return []
    with paths[0].open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def of_variant(rows: Rows, variant: str) -> list[Mapping[str, Any]]:
    """A variant's rows."""
    return [row for row in rows if row["variant"] == variant]


def seeds_of(rows: Rows) -> str:
    """ "0 2"."""
    return " ".join(str(row["seed"]) for row in rows)


def ranking_of(rows: Rows) -> str:
    """Re-ranked where everything was."""
    return "itc" if any(row["itm_r1"] == "" for row in rows) else "itm"


def points(rows: Rows, others: Rows, column: str) -> list[float]:
    """How much more than the others, seed by seed, for the seeds that both have."""
    base = {row["seed"]: row[column] for row in others}
    return [row[column] - base[row["seed"]] for row in rows if row["seed"] in base and row[column] != ""]


def points_text(values: Sequence[float]) -> str:
    """ "+0.50", or "+0.50 ± 1.20" over several seeds; empty without any."""
    if not values:
        return ""
    found = spread([round(value, 4) for value in values])
    return f"{found['mean']:+.2f}" + ("" if found["std"] is None else f" ± {found['std']:.2f}")


def effect_text(rows: Rows, name: str) -> str:
    """What a switch alone does: "demo, PSPD: Rank-1 re-ranked +0.50, features -0.12 (seed 0)"; empty if not measured."""
    method = fidelity.SWITCHES[name].method
    found, own = of_variant(rows, name), of_variant(rows, method)
    parts = [
        f"{title} {text}"
        for title, column in (("re-ranked", "itm_r1"), ("features", "itc_r1"))
        if (text := points_text(points(found, own, column)))
    ]
    both = [row for row in found if row["seed"] in {other["seed"] for other in own}]
    seeds = f"seed{'s' * (len(both) > 1)} {seeds_of(both)}"
    return f"demo, {fidelity.TITLES[method]}: Rank-1 {', '.join(parts)} ({seeds})" if parts else ""


def gap_text(rows: Rows) -> str:
    """How much more all runs would have reported with their epochs chosen on test."""
    gaps = [row[f"{ON_TEST}{kind}_r1"] - row[f"{kind}_r1"] for row in rows for kind in [ranking_of([row])]]
    if not gaps:
        return ""
    return f"demo, {len(gaps)} run{'s' * (len(gaps) > 1)}: Rank-1 {sum(gaps) / len(gaps):+.2f} ({min(gaps):+.2f} to {max(gaps):+.2f})"


def _range(values: Sequence[float], digits: int) -> str:
    """The least and the greatest change of them, or the one that all have."""
    least, greatest = (f"{value:+.{digits}f}" for value in (min(values), max(values)))
    return least if least == greatest else f"{least} to {greatest}"


def source_text(results: Path) -> str:
    """How many points of noise a source term takes away on made-up features (`benchmarks.source_term`)."""
    rows = {
        (row["ratio"], row["spread"], row["source"]): float(row["noise %"])
        for row in newest("source_term-*.csv", results)
    }
    parts = []
    for method, ratio in (("pspd", "0.051"), ("tsn", "0.01")):
        changes = [
            rows[ratio, spread, "same model"] - noise
            for (own, spread, source), noise in rows.items()
            if (own, source) == (ratio, "none") and noise
        ]
        parts += [f"{_range(changes, 1)} ({method})"] if changes else []
    return f"{MADE_UP}: points of noise {', '.join(parts)}, see [below](#the-source-term)" if parts else ""


def metric_text(results: Path) -> str:
    """What comparing distances does to noise and ARI on made-up features (`benchmarks.cluster_metric`)."""
    rows = newest("cluster_metric-*.csv", results)
    kinds = [[row for row in rows if row["metric"] == name] for name in ("profile", "jaccard")]
    noise, agreement = (
        [float(b[column]) - float(a[column]) for a, b in zip(*kinds, strict=True)]
        for column in ("noise %", "ARI")
    )
    if not noise:
        return ""
    ranges = f"points of noise {_range(noise, 1)}, ARI {_range(agreement, 3)}"
    return f"{MADE_UP}: {ranges}, see [below](#what-dbscan-compares)"


def agreement_text(results: Path) -> str:
    """What a threshold on votes does to the ARI of corrected labels (`benchmarks.label_correction`)."""
    after: dict[tuple[str, ...], dict[str, float]] = {}
    for row in newest("label_correction-*.csv", results):
        place = (row["wrong captions %"], row["blurred images %"], row["k_tests"])
        after.setdefault(place, {})[row["agreement"]] = float(row["ARI after"])
    changes = [found["0.5"] - found["0.0"] for found in after.values() if {"0.0", "0.5"} <= found.keys()]
    return (
        f"{TARGET}: ARI {_range(changes, 3)}, see [clustering](clustering.md#when-the-correction-helps)"
        if changes
        else ""
    )


def effects_of(rows: Rows, results: Path) -> dict[str, list[str]]:
    """What was measured of every switch, by its setting as it stands on the page.

    Args:
        rows: of the study of switches, plain ones.
        results: the folder of all result files.
    """
    effects = {switch.setting: [effect_text(rows, name)] for name, switch in fidelity.SWITCHES.items()}
    effects[fidelity.SWITCHES["pspd-source"].setting].insert(0, source_text(results))
    effects[fidelity.SWITCHES["pspd-jaccard"].setting].insert(0, metric_text(results))
    effects[fidelity.SWITCHES["pspd-agreement"].setting].insert(0, agreement_text(results))
    effects["test.also_select_on_test=true"] = [
        gap_text([row for data in STUDIES for row in read_on_test(data, results)])
    ]
    return effects


def with_effects(page: str, effects: Mapping[str, Sequence[str]]) -> str:
    """The page with what was measured in the column of effects.

    Args:
        effects: by setting, as it stands between backticks in the column of switches; an empty one was not measured.
    """
    lines = page.split("\n")
    for number, line in enumerate(lines):
        cells = line.split(" | ")
        if not line.startswith("| ") or len(cells) != COLUMNS:
            continue
        settings = [setting for setting in re.findall(r"`([^`]+)`", cells[5]) if setting in effects]
        if not settings:
            continue
        known = [text for setting in settings for text in effects[setting]]
        kept = [part for part in cells[7].split("; ") if not part.startswith(FILLED)]
        cells[7] = "; ".join(filter(None, [*kept, *known])) or "not measured"
        lines[number] = " | ".join(cells)
    return "\n".join(lines)
