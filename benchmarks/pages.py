"""Fill the tables of the studies on their pages from result files, so that no number there is typed by hand.

    python -m benchmarks.pages

docs/fidelity.md: released configurations beside this project's, and the column of effects (`benchmarks.fidelity`);
docs/demo_results.md: the rungs of supervision (`benchmarks.rungs`) and one set's model on another's people
(`benchmarks.cross_sets`); docs/pretraining.md: what each step and part brings from the pre-trained start (`benchmarks.adaptation`). What has no result yet says so. The model zoo has its own command, `benchmarks.model_zoo`.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import adaptation, fidelity, rungs
from benchmarks.ablation import ON_TEST, RESULTS, ROOT, Study, on_test_text, read_csv, spread_text
from benchmarks.model_zoo import filled, newest_first, read_on_test
from engine.config import load_config
from engine.results import PLAIN
from engine.several_seeds import spread
from retrieval.matrix import ROWS, SHOWN, markdown

FIDELITY, DEMO, START = (ROOT / "docs" / f"{page}.md" for page in ("fidelity", "demo_results", "pretraining"))
PAGES = (FIDELITY, DEMO, START)
COLUMNS_OF_EFFECTS = 9  # of the page's table; the last but one says what was measured
UNKNOWN = "to be measured"
ADAPTATION_SCORES = ("itc_r1", "itm_r1", "itc_mAP", "itm_mAP")
# How what is written into that column begins; anything else in a cell is the page's own and stays.
MADE_UP, TARGET = "made-up features", "labels of the target world"
FILLED = (MADE_UP, TARGET, "demo,", "not measured")
Rows = Sequence[Mapping[str, Any]]


def read_study(study: Study, results: Path = RESULTS) -> list[dict[str, Any]]:
    """A study's plain rows about the data set that it is made for, from the newest torch that it was run with."""
    data = load_config([study.target]).dataset.label
    paths = sorted(results.glob(f"{study.name}-{data}-*.csv"), key=newest_first)
    return [row for row in read_csv(paths[0]) if row["protocol"] == PLAIN] if paths else []


def _of(rows: Rows, variant: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["variant"] == variant]


def _seeds(rows: Rows) -> str:
    return " ".join(str(row["seed"]) for row in rows)


def _scores(rows: Rows) -> list[str]:
    """Seeds, Rank-1 by features and re-ranked, and the mAP of the last of these."""
    if not rows:
        return ["", UNKNOWN, UNKNOWN, UNKNOWN]
    ranking = _ranking(rows)
    return [
        _seeds(rows),
        *(spread_text([row[name] for row in rows]) for name in ("itc_r1", "itm_r1", f"{ranking}_mAP")),
    ]


def _ranking(rows: Rows) -> str:
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


def released_table(rows: Rows) -> str:
    """Each method with this project's settings and with released code's."""
    lines = [
        "| demo test set | seeds | Rank-1, features alone | Rank-1, re-ranked | mAP | Rank-1 against ours, same seeds "
        "| no result: Rank-1 with the epoch chosen on test |",
        "|---|---|---|---|---|---|---|",
    ]
    for method in fidelity.RELEASED:
        own = _of(rows, method)
        for title, found in (("", own), (" as released", _of(rows, f"released-{method}"))):
            gap = points_text(points(found, own, f"{_ranking(found)}_r1")) if title else ""
            cells = [f"{fidelity.TITLES[method]}{title}", *_scores(found), gap, on_test_text(found)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def effect_text(rows: Rows, name: str) -> str:
    """What a switch alone does: "demo, PSPD: Rank-1 re-ranked +0.50, features -0.12 (seed 0)"; empty if not measured."""
    method = fidelity.SWITCHES[name].method
    found, own = _of(rows, name), _of(rows, method)
    parts = [
        f"{title} {text}"
        for title, column in (("re-ranked", "itm_r1"), ("features", "itc_r1"))
        if (text := points_text(points(found, own, column)))
    ]
    both = [row for row in found if row["seed"] in {other["seed"] for other in own}]
    seeds = f"seed{'s' * (len(both) > 1)} {_seeds(both)}"
    return f"demo, {fidelity.TITLES[method]}: Rank-1 {', '.join(parts)} ({seeds})" if parts else ""


def gap_text(rows: Rows) -> str:
    """How much more all runs would have reported with their epochs chosen on test."""
    gaps = [row[f"{ON_TEST}{kind}_r1"] - row[f"{kind}_r1"] for row in rows for kind in [_ranking([row])]]
    if not gaps:
        return ""
    return (
        f"demo, {len(gaps)} runs: Rank-1 {sum(gaps) / len(gaps):+.2f} ({min(gaps):+.2f} to {max(gaps):+.2f})"
    )


def _newest(pattern: str, results: Path) -> list[dict[str, str]]:
    """The rows of the file of that name with the newest torch; none where there is none."""
    paths = sorted(results.glob(pattern), key=newest_first)
    if not paths:
        return []
    with paths[0].open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _range(values: Sequence[float], digits: int) -> str:
    """The least and the greatest change of them, or the one that all have."""
    least, greatest = (f"{value:+.{digits}f}" for value in (min(values), max(values)))
    return least if least == greatest else f"{least} to {greatest}"


def source_text(results: Path) -> str:
    """How many points of noise a source term takes away on made-up features (`benchmarks.source_term`)."""
    rows = {
        (row["ratio"], row["spread"], row["source"]): float(row["noise %"])
        for row in _newest("source_term-*.csv", results)
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
    rows = _newest("cluster_metric-*.csv", results)
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
    for row in _newest("label_correction-*.csv", results):
        place = (row["wrong captions %"], row["blurred images %"], row["k_tests"])
        after.setdefault(place, {})[row["agreement"]] = float(row["ARI after"])
    changes = [found["0.5"] - found["0.0"] for found in after.values() if {"0.0", "0.5"} <= found.keys()]
    return (
        f"{TARGET}: ARI {_range(changes, 3)}, see [clustering](clustering.md#when-the-correction-helps)"
        if changes
        else ""
    )


def metric_table(results: Path) -> str:
    """Noise, clusters and ARI of either metric."""
    lines = [
        "| spread | `cluster.metric` | eps | noise | clusters of 200 | ARI (seeds 0, 1, 2) |",
        "|---|---|---|---|---|---|",
    ]
    for row in _newest("cluster_metric-*.csv", results):
        cells = (row["spread"], row["metric"], row["eps"], f"{row['noise %']} %", row["clusters"])
        lines.append(f"| {' | '.join(cells)} | {row['ARI']} ({row['ARI by seed'].replace(' ', ', ')}) |")
    return "\n".join(lines)


def with_effects(page: str, effects: Mapping[str, Sequence[str]]) -> str:
    """The page with what was measured in the column of effects.

    Args:
        effects: by setting, as it stands between backticks in the column of switches; an empty one was not measured.
    """
    lines = page.split("\n")
    for number, line in enumerate(lines):
        cells = line.split(" | ")
        if not line.startswith("| ") or len(cells) != COLUMNS_OF_EFFECTS:
            continue
        settings = [setting for setting in re.findall(r"`([^`]+)`", cells[5]) if setting in effects]
        if not settings:
            continue
        known = [text for setting in settings for text in effects[setting]]
        kept = [part for part in cells[7].split("; ") if not part.startswith(FILLED)]
        cells[7] = "; ".join(filter(None, [*kept, *known])) or "not measured"
        lines[number] = " | ".join(cells)
    return "\n".join(lines)


def rungs_table(rows: Rows) -> str:
    """A row for each method and rung."""
    lines = [
        "| demo test set | learns from | seeds | Rank-1, features alone | Rank-1, re-ranked | mAP |",
        "|---|---|---|---|---|---|",
    ]
    for method, names in rungs.METHODS.items():
        for (rung, title), name in zip(rungs.RUNGS.items(), names, strict=True):
            cells = _scores(_of(rows, name)) if name else ["", "has no such start", "", ""]
            lines.append(f"| {method}, {rung} | {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def adaptation_table(rows: Rows) -> str:
    """A row for each variant, from the start to what labels would bring."""
    lines = [
        "| target test set | seeds | Rank-1, features alone | Rank-1, re-ranked | mAP, features alone | mAP, re-ranked |",
        "|---|---|---|---|---|---|",
    ]
    for name, variant in adaptation.VARIANTS.items():
        found = _of(rows, name)
        scores = [spread_text([row[score] for row in found]) or UNKNOWN for score in ADAPTATION_SCORES]
        lines.append(f"| {' | '.join([variant.title, _seeds(found), *scores])} |")
    return "\n".join(lines)


def matrix_table(results: Path = RESULTS) -> str:
    """The source x target matrix of the newest torch."""
    paths = sorted(results.glob("cross_sets-demo-*.csv"), key=newest_first)
    if not paths:
        return "To be measured."
    cells: dict[tuple[tuple[str, str], str], list[dict[str, Any]]] = {}
    with paths[0].open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            place = (row["method"], row["trained_on"]), row["dataset"]
            scores = {name: float(row[name]) for name in SHOWN}
            if row["ranking"] == ROWS["itc"]:  # comes first of each result
                cells.setdefault(place, []).append({"itc": scores, "itm": None})
            else:
                cells[place][-1]["itm"] = scores
    return markdown(cells).strip()


def made_pages(pages: Mapping[Path, str], results: Path = RESULTS) -> dict[Path, str]:
    """The pages with their tables made anew."""
    rows = read_study(fidelity.STUDY, results)
    effects = {switch.setting: [effect_text(rows, name)] for name, switch in fidelity.SWITCHES.items()}
    effects[fidelity.SWITCHES["pspd-source"].setting].insert(0, source_text(results))
    effects[fidelity.SWITCHES["pspd-jaccard"].setting].insert(0, metric_text(results))
    effects[fidelity.SWITCHES["pspd-agreement"].setting].insert(0, agreement_text(results))
    effects["test.also_select_on_test=true"] = [gap_text(read_on_test(results))]
    tables = {"released": released_table(rows), "metric": metric_table(results)}
    return {
        FIDELITY: with_effects(filled(pages[FIDELITY], tables), effects),
        DEMO: filled(
            pages[DEMO],
            {"rungs": rungs_table(read_study(rungs.STUDY, results)), "matrix": matrix_table(results)},
        ),
        START: filled(pages[START], {"adaptation": adaptation_table(read_study(adaptation.STUDY, results))}),
    }


def main() -> None:
    """Fill the pages."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    pages = {path: path.read_text("utf-8") for path in PAGES}
    for path, text in made_pages(pages).items():
        path.write_text(text, "utf-8")
        print(f"{path.relative_to(ROOT)} is filled.", file=sys.stderr)


if __name__ == "__main__":
    main()
