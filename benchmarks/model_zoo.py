"""Fill the tables of docs/model_zoo.md from result files, so that no number there is typed by hand.

    python -m benchmarks.model_zoo

The demo's rows come from `benchmarks/results/adaptation-target-*.csv` (`python -m benchmarks.adaptation`), those from scratch from
`ablation-demo-*.csv` (`python -m benchmarks.ablation`), those of other data sets from `benchmarks/results/<data>-<method>-seeds.json`: copies of what `bash train.bash <data> <method> --seeds 0 1 2` writes
into `output/`, and what the methods cost from `benchmarks/results/model_profile-*.csv` (`python -m benchmarks.model_profile`). What has
no file is marked as not run.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import models
from benchmarks.ablation import VARIANTS
from benchmarks.study import ROOT, config_files
from benchmarks.study_rows import ON_TEST, RESULTS, on_test_text, read_csv, spread_text, table
from engine.several_seeds import IF_SELECTED_ON_TEST, spread

PAGE = ROOT / "docs" / "model_zoo.md"
DATA = {  # by the configuration
    "demo-pretrained": "demo",
    "demo": "demo from scratch",
    "cuhk": "CUHK-PEDES",
    "icfg": "ICFG-PEDES",
    "rstp": "RSTPReid",
}
STUDIES = {
    "demo-pretrained": ("adaptation", "target"),
    "demo": ("ablation", "demo"),
}  # and how their data is called there
METHODS = {  # by the variant that runs it on the demo
    "pspd": "PSPD",
    "tsn": "TSN",
    "cada": "CADA",
    "ssan": "SSAN",
    "irra": "IRRA",
    "rde": "RDE",
    "tbps_clip": "TBPS-CLIP",
    "tbps_clip-simplified": "TBPS-CLIP simplified",
    "syntbpr": "SynTBPR",
}
PROTOCOLS = {name: ("plain", "msm") if name == "tsn" else ("plain",) for name in METHODS}
STARTED = ("pspd", "tsn", "cada")  # what the demo's pre-trained weights are a start for
OTHERS = METHODS.keys() - {"pspd"}  # rows of the zoo that are no variants of PSPD
SCORES = ("itc_r1", "itm_r1", "itm_mAP")
Rows = Sequence[Mapping[str, Any]]


def read_runs(data: str, results: Path = RESULTS) -> list[dict[str, Any]]:
    """The rows of a demo, numbers as numbers; those of a variant come from the newest torch that it was run with.

    Args:
        data: a name of `STUDIES`.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(results.glob("{}-{}-*.csv".format(*STUDIES[data])), key=_version):
        rows = read_csv(path)
        found |= {variant: [row for row in rows if row["variant"] == variant] for variant in _variants(rows)}
    return [row for rows in found.values() for row in rows]


def read_on_test(data: str, results: Path = RESULTS) -> list[dict[str, Any]]:
    """A demo's rows that say what their epoch that is best on test would have reported, of every study, a run once.

    Args:
        data: a name of `STUDIES`.
    """
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for study in ("ablation", "adaptation", "fidelity", "rungs"):
        for path in sorted(results.glob(f"{study}-{STUDIES[data][1]}-*.csv"), key=newest_first):
            for row in read_csv(path):
                if row[f"{ON_TEST}itc_r1"] != "":
                    found.setdefault((row["variant"], row["seed"]), row)
    return [found[key] for key in sorted(found)]


def _variants(rows: Rows) -> list[str]:
    return list(dict.fromkeys(row["variant"] for row in rows))


def read_summaries(results: Path = RESULTS) -> dict[tuple[str, str, str], dict[str, Any]]:
    """What `--seeds` wrote, by (data set, method, protocol)."""
    found = {}
    for path in sorted(results.glob("*-seeds*.json")):
        content = json.loads(path.read_text("utf-8"))
        found[content["dataset"], content["method"], content["protocol"]] = content
    return found


def zoo_table(
    demos: Mapping[str, Rows],
    summaries: Mapping[tuple[str, str, str], Mapping[str, Any]],
    on_test: Mapping[str, Rows],
) -> str:
    """One row per data set, method and protocol.

    Args:
        demos: rows of runs, by the names of `STUDIES`; `on_test` those that recorded their epoch that is best on test.
        summaries: of the other data sets, by (data set, method, protocol).
    """
    lines = [
        "| data set | method | configuration | protocol | seeds | selected on | Rank-1, features alone | Rank-1, re-ranked "
        "| mAP, re-ranked | minutes per seed | no result: Rank-1 with the epoch chosen on test |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for data, data_title in DATA.items():
        for name, title in METHODS.items():
            variant = VARIANTS[name]
            if variant.settings and data not in STUDIES:
                continue  # a summary knows its method and not what was set beside it
            if data == "demo-pretrained" and name not in STARTED:
                continue  # has no such start
            files = config_files(ROOT / "configs" / f"{data}.yaml", variant.method)
            links = [f"[{path.relative_to(ROOT / 'configs')}](../{path.relative_to(ROOT)})" for path in files]
            configuration = ", ".join([*links, *(f"`{setting}`" for setting in variant.settings)])
            for protocol in PROTOCOLS[name]:
                if data in STUDIES:
                    cells = _demo_cells(demos[data], name, protocol, on_test[data])
                else:
                    cells = _summary_cells(summaries.get((data, variant.method, protocol)))
                lines.append(f"| {' | '.join([data_title, title, configuration, protocol, *cells])} |")
    return "\n".join(lines)


def ratio_table(demos: Mapping[str, Rows]) -> str:
    """Rank-1 of the unsupervised methods over that of the supervised one: ratios of means over the seeds."""
    lines = [
        "| unsupervised / supervised, plain protocol | Rank-1, features alone | Rank-1, re-ranked |",
        "|---|---|---|",
    ]
    for data, rows in demos.items():
        for method in ("pspd", "tsn"):
            cells = []
            for score in SCORES[:2]:
                ours, bound = (_values(rows, name, "plain", score) for name in (method, "cada"))
                known = ours and bound and spread(bound)["mean"]
                cells.append(
                    f"{spread(ours)['mean'] / spread(bound)['mean']:.2f}" if known else "to be measured"
                )
            lines.append(f"| {METHODS[method]} / CADA, {DATA[data]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def ablation_table(ablation: Rows) -> str:
    """The variants of PSPD, measured ones and those that are not yet."""
    wanted = [row for row in ablation if row["variant"] not in OTHERS]
    there = {row["variant"] for row in wanted}
    missing = [name for name in VARIANTS if name not in there | OTHERS]
    lines = [table(wanted, VARIANTS)]
    lines += [f"| {VARIANTS[name].title} (`{name}`) |{' to be measured |' * 7}" for name in missing]
    return "\n".join(lines)


def read_profiles(results: Path = RESULTS) -> list[dict[str, Any]]:
    """What the methods cost, one row per method, size and device; each device's from the newest torch."""
    newest: dict[str, Path] = {}
    for path in sorted(results.glob("model_profile-*.csv"), key=_version):
        newest[path.stem.split("-")[1]] = path
    rows = []
    for path in newest.values():
        with path.open(encoding="utf-8") as stream:
            rows += list(csv.DictReader(stream))
    return rows


COSTS = {
    "image": "image",
    "parameters": "parameters, M",
    "gflops_per_image": "GFLOPs per image",
    "gflops_per_text": "per text",
    "gflops_per_pair": "per ITM pair",
    "images_per_second": "images per second",
    "texts_per_second": "texts",
    "pairs_per_second": "ITM pairs",
    "peak_mib": "peak MiB",
    "processor": "processor",
}


def cost_table(profiles: Rows) -> str:
    """One row per method, size and device; what was not measured is there and says so."""
    lines = [
        f"| method | size | {' | '.join(COSTS.values())} |",
        "|---" * (len(COSTS) + 2) + "|",
    ]
    for method, kind in models.METHODS.items():
        for size in kind.sizes:
            rows = [row for row in profiles if (row["method"], row["size"]) == (method, size)]
            cells = [_cost_cells(row) for row in rows] or [["to be measured"] * len(COSTS)]
            lines += [f"| {METHODS.get(method, method)} | {size} | {' | '.join(each)} |" for each in cells]
    return "\n".join(lines)


def _cost_cells(row: Mapping[str, Any]) -> list[str]:
    known = {**row, "parameters": f"{int(row['parameters']) / 1e6:.1f}"}
    return [known[name] for name in COSTS]


def filled(page: str, tables: Mapping[str, str]) -> str:
    """The page with each table between its marks, `<!-- name -->` and `<!-- end of name -->`."""
    for name, text in tables.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)"
        page, count = re.subn(
            pattern, lambda found, text=text: f"{found[1]}{text}\n{found[2]}", page, flags=re.DOTALL
        )
        if count != 1:
            raise ValueError(f"The page has {count} places for the table {name!r}: it needs one.")
    return page


def made_page(page: str, results: Path = RESULTS) -> str:
    """The page with its tables made anew."""
    demos, on_test = ({data: read(data, results) for data in STUDIES} for read in (read_runs, read_on_test))
    tables = {
        "zoo": zoo_table(demos, read_summaries(results), on_test),
        "ratios": ratio_table(demos),
        "ablation": ablation_table(demos["demo"]),
        "cost": cost_table(read_profiles(results)),
    }
    return filled(page, tables)


def _demo_cells(ablation: Rows, method: str, protocol: str, on_test: Rows) -> list[str]:
    rows = [row for row in ablation if row["variant"] == method and row["protocol"] == protocol]
    if not rows:
        return ["to be measured"] * 7
    scores = [spread_text(_values(rows, method, protocol, score)) for score in SCORES]
    minutes = sum(row["minutes"] for row in rows) / len(rows)
    selected = ", ".join(sorted({row["selected_on"] for row in rows}))
    best = on_test_text([r for r in on_test if r["variant"] == method]) or "not recorded"
    told = best if protocol == "plain" else ""
    return [" ".join(str(row["seed"]) for row in rows), selected, *scores, f"{minutes:.1f}", told]


def _summary_cells(content: Mapping[str, Any] | None) -> list[str]:
    if content is None:
        return ["", "", "not run here", "not run here", "not run here", "", ""]
    scores = []
    for score in SCORES:
        row, name = score.split("_")
        scores.append(spread_text(content[row][name]["values"]) if content[row] else "")
    minutes = content["training_minutes"]["mean"]
    return [
        " ".join(map(str, content["seeds"])),
        content["selected_on"],
        *scores,
        f"{minutes:.0f} (training)",
        _summary_on_test(content),
    ]


def _summary_on_test(content: Mapping[str, Any]) -> str:
    best = content.get(IF_SELECTED_ON_TEST)
    if not best:
        return "not recorded" if content["protocol"] == "plain" else ""
    kind = "itm" if best["itm"] else "itc"
    seeds = " ".join(map(str, content["seeds"]))
    return f"{best[kind]['r1']['mean']:.2f} instead of {content[kind]['r1']['mean']:.2f} (seeds {seeds})"


def _values(rows: Rows, variant: str, protocol: str, score: str) -> list[float]:
    return [
        row[score]
        for row in rows
        if row["variant"] == variant and row["protocol"] == protocol and row[score] != ""
    ]


def _version(path: Path) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", path.stem)]


def newest_first(path: Path) -> list[int]:
    """Sorts result files by their torch, newest first."""
    return [-part for part in _version(path)]


def main() -> None:
    """Fill the page."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    PAGE.write_text(made_page(PAGE.read_text("utf-8")), "utf-8")
    print(f"{PAGE.relative_to(ROOT)} is filled.", file=sys.stderr)


if __name__ == "__main__":
    main()
