"""Fill the tables of the studies on their pages from result files, so that no number there is typed by hand.

    python -m benchmarks.pages

docs/fidelity.md: released configurations beside this project's, and the column of effects (`benchmarks.fidelity`);
docs/rungs.md: the rungs of supervision (`benchmarks.rungs`) and one set's model on another's people
(`benchmarks.cross_sets`); docs/pretraining.md: what each step and part brings from the pre-trained start (`benchmarks.adaptation`);
docs/synthesis.md: what synthetic images bring (`benchmarks.synthetic_training`); docs/palette.md: how right the palette is in a
camera's light (`benchmarks.palette_accuracy`). What has no result yet says so. The model zoo has its own command, `benchmarks.model_zoo`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import adaptation, cross_sets, fidelity, rungs, synthetic_training
from benchmarks.effects import (
    effects_of,
    newest,
    of_variant,
    points,
    points_text,
    ranking_of,
    seeds_of,
    with_effects,
)
from benchmarks.model_zoo import filled, newest_first
from benchmarks.study import ROOT, Study
from benchmarks.study_rows import RESULTS, merged, on_test_text, read_csv, spread_text
from engine.config import load_config
from engine.results import PLAIN
from retrieval.matrix import ROWS, SHOWN, markdown

FIDELITY, RUNGS, START, SYNTHETIC, PALETTE = (
    ROOT / "docs" / f"{page}.md" for page in ("fidelity", "rungs", "pretraining", "synthesis", "palette")
)
PAGES = (FIDELITY, RUNGS, START, SYNTHETIC, PALETTE)
UNKNOWN = "to be measured"
SCORES = {
    "itc_r1": "Rank-1, features alone",
    "itm_r1": "Rank-1, re-ranked",
    "itc_mAP": "mAP, features alone",
    "itm_mAP": "mAP, re-ranked",
}
Rows = Sequence[Mapping[str, Any]]


def read_study(study: Study, results: Path = RESULTS) -> list[Mapping[str, Any]]:
    """A study's plain rows about the data set that it is made for, from the newest torch that it was run with.

    Of variants that it shares with another study, seeds that it lacks come from that one's file of the same torch; all come from
    there while it has no file.
    """
    data = load_config([study.target]).dataset.label
    other = study.shares_with
    for one in filter(None, (study, other)):  # its own file says which torch is meant, where there is one
        if paths := sorted(results.glob(f"{one.name}-{data}-*.csv"), key=newest_first):
            break
    else:
        return []
    where = paths[0].name.partition("-")[2]
    rows = read_csv(results / f"{study.name}-{where}")
    if other:
        shared = {name for name, variant in study.variants.items() if other.variants.get(name) is variant}
        others = [row for row in read_csv(results / f"{other.name}-{where}") if row["variant"] in shared]
        rows = merged(others, rows, study.variants)
    return [row for row in rows if row["protocol"] == PLAIN]


def _scores(rows: Rows) -> list[str]:
    """Seeds, Rank-1 by features and re-ranked, and the mAP of the last of these."""
    if not rows:
        return ["", UNKNOWN, UNKNOWN, UNKNOWN]
    ranking = ranking_of(rows)
    return [
        seeds_of(rows),
        *(spread_text([row[name] for row in rows]) for name in ("itc_r1", "itm_r1", f"{ranking}_mAP")),
    ]


def released_table(rows: Rows) -> str:
    """Each method with this project's settings and with released code's."""
    lines = [
        "| demo test set | seeds | Rank-1, features alone | Rank-1, re-ranked | mAP | Rank-1 against ours, same seeds "
        "| no result: Rank-1 with the epoch chosen on test |",
        "|---|---|---|---|---|---|---|",
    ]
    for method in fidelity.RELEASED:
        own = of_variant(rows, method)
        for title, found in (("", own), (" as released", of_variant(rows, f"released-{method}"))):
            gap = points_text(points(found, own, f"{ranking_of(found)}_r1")) if title else ""
            cells = [f"{fidelity.TITLES[method]}{title}", *_scores(found), gap, on_test_text(found)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def metric_table(results: Path) -> str:
    """Noise, clusters and ARI of either metric."""
    lines = [
        "| spread | `cluster.metric` | eps | noise | clusters of 200 | ARI (seeds 0, 1, 2) |",
        "|---|---|---|---|---|---|",
    ]
    for row in newest("cluster_metric-*.csv", results):
        cells = (row["spread"], row["metric"], row["eps"], f"{row['noise %']} %", row["clusters"])
        lines.append(f"| {' | '.join(cells)} | {row['ARI']} ({row['ARI by seed'].replace(' ', ', ')}) |")
    return "\n".join(lines)


def light_table(results: Path) -> str:
    """How right the palette is in the light of each picture and of each camera (`benchmarks.palette_accuracy`)."""
    lines = ["| right of all, % | light of each picture | of each camera |", "|---|---|---|"]
    tables = [newest(f"palette_accuracy-target{light}-cpu.csv", results) for light in ("", "-cameras")]
    for alone, together in zip(*tables, strict=True):
        if alone["asked"]:
            values = [row["right of all %"] for row in (alone, together)]
            lines.append(f"| {' | '.join([alone['measure'], *values])} |")
    return "\n".join(lines)


def rungs_table(rows: Rows) -> str:
    """A row for each method and rung."""
    lines = [
        "| target test set | learns from | seeds | Rank-1, features alone | Rank-1, re-ranked | mAP |",
        "|---|---|---|---|---|---|",
    ]
    for method, names in rungs.METHODS.items():
        for (rung, title), name in zip(rungs.RUNGS.items(), names, strict=True):
            cells = _scores(of_variant(rows, name))
            lines.append(f"| {method}, {rung} | {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def variants_table(data: str, study: Study, rows: Rows, scores: Mapping[str, str]) -> str:
    """A row for each variant of a study, as its titles say.

    Args:
        data: what the table is about.
        scores: the columns to be shown, by their names in the results.
    """
    lines = [f"| {' | '.join([data, 'seeds', *scores.values()])} |", "|---" * (2 + len(scores)) + "|"]
    for name, variant in study.variants.items():
        found = of_variant(rows, name)
        shown = [spread_text([row[score] for row in found]) if found else UNKNOWN for score in scores]
        lines.append(f"| {' | '.join([variant.title, seeds_of(found), *shown])} |")
    return "\n".join(lines)


def parts_table(rows: Rows) -> str:
    """How much more than PSPD each of its parts' runs reaches, by the seeds that both have."""
    lines = [
        f"| points more than PSPD, same seeds | seeds | {' | '.join(SCORES.values())} |",
        "|---" * (2 + len(SCORES)) + "|",
    ]
    own = of_variant(rows, "pspd")
    for name, variant in adaptation.PARTS.items():
        found = of_variant(rows, name)
        both = [row for row in found if row["seed"] in {other["seed"] for other in own}]
        shown = [points_text(points(found, own, score)) or UNKNOWN for score in SCORES]
        lines.append(f"| {' | '.join([variant.title, seeds_of(both), *shown])} |")
    return "\n".join(lines)


def matrix_table(results: Path = RESULTS) -> str:
    """The source x target matrix of the newest torch."""
    cells: dict[tuple[tuple[str, str], str], list[dict[str, Any]]] = {}
    data = load_config([cross_sets.STUDY.target]).dataset.label
    for row in newest(f"cross_sets-{data}-*.csv", results):
        place = (row["method"], row["trained_on"]), row["dataset"]
        scores = {name: float(row[name]) for name in SHOWN}
        if row["ranking"] == ROWS["itc"]:  # comes first of each result
            cells.setdefault(place, []).append({"itc": scores, "itm": None})
        else:
            cells[place][-1]["itm"] = scores
    return markdown(cells).strip() or "To be measured."


def _shown(data: str, study: Study, results: Path) -> str:
    return variants_table(data, study, read_study(study, results), SCORES)


def made_pages(pages: Mapping[Path, str], results: Path = RESULTS) -> dict[Path, str]:
    """The pages with their tables made anew."""
    rows = [row for study in fidelity.STUDIES for row in read_study(study, results)]
    tables = {"released": released_table(rows), "metric": metric_table(results)}
    return {
        FIDELITY: with_effects(filled(pages[FIDELITY], tables), effects_of(rows, results)),
        RUNGS: filled(
            pages[RUNGS],
            {"rungs": rungs_table(read_study(rungs.STUDY, results)), "matrix": matrix_table(results)},
        ),
        START: filled(
            pages[START],
            {
                "adaptation": _shown("target test set", adaptation.STUDY, results),
                "parts": parts_table(read_study(adaptation.STUDY, results)),
            },
        ),
        PALETTE: filled(pages[PALETTE], {"light": light_table(results)}),
        SYNTHETIC: filled(
            pages[SYNTHETIC], {"synthetic": _shown("demo test set", synthetic_training.STUDY, results)}
        ),
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
