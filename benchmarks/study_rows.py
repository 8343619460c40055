"""Finished runs as rows of a study's table: what each scored, and mean and spread over seeds."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.scheduler import USAGE
from benchmarks.study import CAPTION_TITLES, Run, Study, Variant
from data.errors import UserError
from engine.config import Config
from engine.results import MSM, results_path
from engine.several_seeds import IF_SELECTED_ON_TEST, ROWS, spread
from retrieval.results import METRICS

RESULTS = Path(__file__).parent / "results"
ON_TEST = f"{IF_SELECTED_ON_TEST}_"
COLUMNS = [
    "variant",
    "seed",
    "method",
    "split",
    "protocol",
    "selected_on",
    *(f"{kind}_{name}" for kind in ROWS for name in METRICS),
    *(f"{ON_TEST}{kind}_{name}" for kind in ROWS for name in ("r1", "mAP")),
    "minutes",
    "cpu_minutes",
    "peak_mib",
    *("processor", "processor_features", "precision", "linear"),
]


def is_there(run: Run) -> bool:
    """Whether a run is finished here with these settings."""
    try:
        return (run.directory / USAGE).is_file() and run.finished()
    except UserError:
        return False


def rows_of(run: Run) -> list[dict[str, Any]]:
    """A finished run as rows of the CSV: one per protocol, or one without metrics for captions."""
    usage = [json.loads(line) for line in (run.directory / USAGE).read_text("utf-8").splitlines()]
    row: dict[str, Any] = {
        "variant": run.name,
        "seed": run.seed,
        "minutes": round(sum(record["seconds"] for record in usage) / 60, 2),
        "cpu_minutes": round(sum(record["cpu_seconds"] for record in usage) / 60, 2),
        "peak_mib": max(record["peak_mib"] for record in usage),
    }
    if run.makes_captions:
        return [row]
    rows = []
    for path in (results_path(run.config), results_path(run.config, MSM)):
        if path.is_file():
            found = json.loads(path.read_text("utf-8"))
            told = {name: found[name] for name in ("method", "split", "protocol", "selected_on")}
            scores = {f"{kind}_{name}": found[kind][name] for kind in ROWS if found[kind] for name in METRICS}
            computed = found.get("computed", {})  # results of version 0.1 lack it
            where = {name: computed.get(name, "") for name in ("processor", "precision", "linear")}
            where["processor_features"] = " ".join(computed.get("features", ()))
            rows.append({**row, **told, **scores, **_if_selected_on_test(found), **where})
    return rows


def _if_selected_on_test(found: Mapping[str, Any]) -> dict[str, float]:
    """What the run's epoch that is best on test would have reported, under names that can't be taken for results."""
    best = found.get(IF_SELECTED_ON_TEST) or {}
    return {
        f"{ON_TEST}{kind}_{name}": best[kind][name]
        for kind in ROWS
        if best.get(kind)
        for name in ("r1", "mAP")
    }


def csv_path(results: Path, study: Study, config: Config) -> Path:
    """The study's table about a configuration's data set, on this kind of device with this torch."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    version = torch.__version__.split("+")[0]
    return results / f"{study.name}-{config.dataset.label}-{device}-{version}.csv"


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the table under a temporary name, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)


def read_csv(path: Path) -> list[dict[str, Any]]:
    """The rows of a results file, numbers as numbers; none where there is no file. Columns that it lacks are empty."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as stream:
        return [
            dict.fromkeys(COLUMNS, "") | {name: _value(text) for name, text in row.items()}
            for row in csv.DictReader(stream)
        ]


def _value(text: str) -> Any:
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        return text


def merged(
    old: Iterable[Mapping[str, Any]], new: Sequence[Mapping[str, Any]], variants: Iterable[str]
) -> list[Mapping[str, Any]]:
    """New rows, and those of runs that they say nothing about, which were made elsewhere: by seed, then as `variants` are."""
    known = {(row["variant"], row["seed"]) for row in new}
    rows = [*(row for row in old if (row["variant"], row["seed"]) not in known), *new]
    order = {name: place for place, name in enumerate((*CAPTION_TITLES, *variants))}
    return sorted(rows, key=lambda row: (row["seed"], order.get(row["variant"], len(order))))


def table(rows: Sequence[Mapping[str, Any]], variants: Mapping[str, Variant]) -> str:
    """Mean and spread over the seeds, as a Markdown table."""
    lines = [
        "| variant | protocol | seeds | Rank-1, features alone | Rank-1, re-ranked | mAP, re-ranked | minutes | peak MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["variant"], row.get("protocol", "")), []).append(row)
    for (name, protocol), found in groups.items():
        metrics = [spread_text([row.get(key) for row in found]) for key in ("itc_r1", "itm_r1", "itm_mAP")]
        title = variants[name].title if name in variants else CAPTION_TITLES.get(name, name)
        seeds = " ".join(str(row["seed"]) for row in found)
        minutes = sum(row["minutes"] for row in found) / len(found)
        peak = max(row["peak_mib"] for row in found)
        cells = [f"{title} (`{name}`)", protocol, seeds, *metrics, f"{minutes:.1f}", f"{peak:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def spread_text(values: Sequence[float | str | None]) -> str:
    """ "31.20 ± 0.80 (30.50 to 32.10)"; empty without values."""
    known = [value for value in values if value not in (None, "")]
    if not known:
        return ""
    found = spread(known)
    if found["std"] is None:
        return f"{found['mean']:.2f}"
    return f"{found['mean']:.2f} ± {found['std']:.2f} ({found['min']:.2f} to {found['max']:.2f})"


def on_test_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """What runs would have reported as Rank-1 with their epochs chosen on test, and what the same runs do report.

    "33.38 instead of 33.00 (seeds 0 2)", by the ranking that chooses epochs; empty where no run recorded it.
    """
    known = [row for row in rows if row.get(f"{ON_TEST}itc_r1", "") != ""]
    if not known:
        return ""
    kind = "itc" if any(row["itm_r1"] == "" for row in known) else "itm"
    chosen, honest = (
        sum(row[f"{prefix}{kind}_r1"] for row in known) / len(known) for prefix in (ON_TEST, "")
    )
    seeds = " ".join(str(row["seed"]) for row in known)
    return f"{chosen:.2f} instead of {honest:.2f} (seed{'s' * (len(known) > 1)} {seeds})"
