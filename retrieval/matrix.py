"""How models trained on one data set do on others: a source x target matrix over results that `test.py` wrote.

    bash eval.bash icfg --checkpoint output/cuhk-pspd/best.pth --set run=cuhk-on-icfg
    python -m retrieval.matrix output/cuhk-pspd output/icfg-pspd output/cuhk-on-icfg output/icfg-on-cuhk --to output/matrix

Writes matrix.md, matrix.csv and matrix.png. Several results of one cell (seeds) become their mean and standard deviation.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.errors import UserError
from retrieval.results import ROWS, TITLES, write_atomically

SHOWN = ("r1", "mAP", "mINP")
Source = tuple[str, str]  # method, and the data set it was trained on
Cells = Mapping[tuple[Source, str], Sequence[Mapping[str, Any]]]  # by source and target


def cells_of(paths: Sequence[Path]) -> Cells:
    """The plain results of these runs by what was trained on what and evaluated on what.

    Args:
        paths: results.json files, or the folders that hold them.

    Raises:
        UserError: a file that is missing, damaged, of another split or protocol, or does not say what its model was trained on.
    """
    cells: dict[tuple[Source, str], list[Mapping[str, Any]]] = defaultdict(list)
    for path in dict.fromkeys(path / "results.json" if path.is_dir() else path for path in paths):
        record = _read(path)
        cells[(record["method"], record["trained_on"]), record["dataset"]].append(record)
    return cells


def _read(path: Path) -> Mapping[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        kind = record["split"], record["protocol"]
        known = (
            all(isinstance(record[name], str) for name in ("method", "dataset")) and record["itc"]["r1"] >= 0
        )
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): name runs that were evaluated.") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is no results.json of an evaluation: evaluate that run again.") from None
    if not known or not record.get("trained_on"):
        raise UserError(
            f"{path} does not say what its model was trained on: evaluate it again, with a checkpoint of this version."
        )
    if kind != ("test", "plain"):
        raise UserError(
            f"{path} has {kind[0]} results by the protocol {kind[1]}: a matrix is made of plain ones on test."
        )
    return record


def markdown(cells: Cells) -> str:
    """A table for features alone and one for re-ranked results, Rank-1 / mAP / mINP in each cell."""
    parts = []
    for row, title in ROWS.items():
        table = _values(cells, row)
        if not table:
            continue
        sources, targets = _axes(table)
        lines = [
            f"{title[0].upper()}{title[1:]}, {' / '.join(TITLES[name] for name in SHOWN)} in percent:",
            "",
        ]
        lines.append(f"| trained on \\ evaluated on | {' | '.join(targets)} |")
        lines.append(f"|---|{'---|' * len(targets)}")
        for source in sources:
            texts = [_text(table.get((source, target))) for target in targets]
            lines.append(f"| {source[0]}, {source[1]} | {' | '.join(texts)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def table_rows(cells: Cells) -> str:
    """One line of CSV for each result."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ["method", "trained_on", "dataset", "ranking", *SHOWN, "selected_on", "queries", "gallery"]
    )
    for (source, target), records in sorted(cells.items()):
        for record in records:
            for row, title in ROWS.items():
                if record[row] is not None:
                    told = (record["selected_on"], record["queries"], record["gallery"])
                    writer.writerow([*source, target, title, *(record[row][name] for name in SHOWN), *told])
    return stream.getvalue()


def draw(cells: Cells, path: Path) -> None:
    """Rank-1 as shades, a panel for each of features and re-ranked results."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    tables = {title: table for row, title in ROWS.items() if (table := _values(cells, row))}
    sources, targets = _axes(cells)
    size = (1.6 + 1.4 * len(targets)) * len(tables), 1.6 + 0.7 * len(sources)
    figure, panels = pyplot.subplots(1, len(tables), figsize=size, squeeze=False, layout="constrained")
    for panel, (title, table) in zip(panels[0], tables.items(), strict=True):
        means = [
            [statistics.fmean(table[s, t]["r1"]) if (s, t) in table else float("nan") for t in targets]
            for s in sources
        ]
        panel.imshow(means, vmin=0, vmax=100, cmap="Blues", aspect="auto")
        for y, line in enumerate(means):
            for x, value in enumerate(line):
                text = "-" if value != value else f"{value:.1f}"
                panel.text(x, y, text, ha="center", va="center", color="white" if value > 60 else "black")
        panel.set_xticks(range(len(targets)), targets)
        panel.set_yticks(range(len(sources)), [f"{method}, {data}" for method, data in sources])
        panel.set(title=f"Rank-1, {title}", xlabel="evaluated on", ylabel="trained on")
    temporary = path.with_name(f".{path.name}.tmp.png")
    figure.savefig(temporary, dpi=120)
    pyplot.close(figure)
    temporary.replace(path)


def _values(cells: Cells, row: str) -> dict[tuple[Source, str], dict[str, list[float]]]:
    """The shown metrics of every cell that has results of this kind."""
    return {
        place: {name: [record[row][name] for record in records] for name in SHOWN}
        for place, records in cells.items()
        if all(record[row] is not None for record in records)
    }


def _axes(cells: Mapping[tuple[Source, str], Any]) -> tuple[list[Source], list[str]]:
    return sorted({source for source, _ in cells}), sorted({target for _, target in cells})


def _text(found: Mapping[str, Sequence[float]] | None) -> str:
    if found is None:
        return ""
    return " / ".join(
        f"{statistics.fmean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")
        for values in found.values()
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the matrix of the named runs; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m retrieval.matrix",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folders of evaluated runs, or their results.json"
    )
    parser.add_argument("--to", required=True, type=Path, metavar="DIR", help="where the matrix goes")
    options = parser.parse_args(arguments)
    try:
        cells = cells_of(options.runs)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    text = markdown(cells)
    write_atomically(options.to / "matrix.md", text)
    write_atomically(options.to / "matrix.csv", table_rows(cells))
    draw(cells, options.to / "matrix.png")
    print(text, end="")
    print(f"\nAs Markdown, CSV and a picture: {options.to}/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
