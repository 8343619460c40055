"""Check a dataset before hours are spent on it.

    python -m data.validate --config configs/cuhk.yaml
    python -m data.validate --name cuhk_pedes --root datasets --deep
    python -m data.validate --config configs/rstp.yaml --against configs/icfg.yaml   # images that both have

Prints what was found beside what was published, what is missing folder by folder, and how to mend it. Exits with 0 if
the set can be used, 1 if it cannot, 2 for a wrong command line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data import DATASETS, UserError, load_dataset
from data.decoding import Progress
from data.inspection import Inspection, inspect_dataset
from data.records import SPLITS, PedesDataset

_FOLDERS_SHOWN = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Validate the dataset of the command line; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.config is None and options.name is None:
        parser.error("say which dataset: --config FILE or --name NAME")
    try:
        name, root = _dataset_of(options)
        dataset = load_dataset(name, root)
        against = options.against and load_dataset(*_named_by(options.against))
        inspection = inspect_dataset(
            dataset, against=against, deep=options.deep, workers=options.workers, progress=_progress()
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report(dataset, inspection))
    return 0 if inspection.usable else 1


def report(dataset: PedesDataset, inspection: Inspection) -> str:
    """The findings as plain text: a table of splits, a table of folders, one line per finding, and the verdict."""
    source = dataset.annotation or dataset.image_root
    parts = [
        f"{dataset.name}: {source}",
        "",
        *_split_table(dataset, inspection),
        "",
        *_folder_table(inspection),
        "",
    ]
    parts += [f"{finding.level + ':':9}{finding.text}" for finding in inspection.findings]
    errors = sum(finding.level == "error" for finding in inspection.findings)
    parts.append(
        "The dataset is ready."
        if inspection.usable
        else f"The dataset can't be used yet: {errors} error(s), see above."
    )
    return "\n".join(parts)


def _split_table(dataset: PedesDataset, inspection: Inspection) -> list[str]:
    rows = [("split", "images", "identities", "captions")]
    for split in SPLITS:
        found = inspection.found[split]
        cells = []
        for kind in ("images", "identities", "captions"):
            cell = f"{getattr(found, kind):,}"
            if dataset.expected is not None:
                cell += f" / {getattr(getattr(dataset.expected, split), kind):,}"
            cells.append(cell)
        rows.append((split, *cells))
    lines = _aligned(rows)
    if dataset.expected is not None:
        lines[0] += "   (found / published)"
        words = f"{inspection.words_per_caption:.1f} / {dataset.expected.words_per_caption}"
        lines.append(f"words per caption: {words}")
    return lines


def _folder_table(inspection: Inspection) -> list[str]:
    """Folders with missing images first; a long list is cut, with what was cut added up."""
    folders = sorted(inspection.folders, key=lambda count: (-count.missing, count.folder))
    rows = [("folder", "named", "missing", "other files")]
    for count in folders[:_FOLDERS_SHOWN]:
        rows.append(
            (f"{count.folder or '.'}/", f"{count.named:,}", f"{count.missing:,}", f"{count.unnamed:,}")
        )
    rest = folders[_FOLDERS_SHOWN:]
    if rest:
        sums = (sum(getattr(count, kind) for count in rest) for kind in ("named", "missing", "unnamed"))
        rows.append((f"{len(rest):,} more folders", *(f"{number:,}" for number in sums)))
    return _aligned(rows)


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def _dataset_of(options: argparse.Namespace) -> tuple[str, str]:
    if options.config is None:
        return options.name, options.root or "datasets"
    name, root = _named_by(options.config)
    return options.name or name, options.root or root


def _named_by(config: str) -> tuple[str, str]:
    """Name and root of the dataset that a configuration means."""
    section = _read_config(Path(config))
    name, root = section.get("name"), section.get("root", "datasets")
    if not isinstance(name, str) or not isinstance(root, str):
        raise UserError(
            f"{config} does not say which dataset it means: it needs dataset.name (and dataset.root)."
        )
    return name, root


def _read_config(path: Path) -> dict[str, Any]:
    """The `dataset` section of a YAML file; the whole config is checked where it is used, by `engine.config`."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        config = YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"The config {path} cannot be read ({error.strerror}): check its name.") from None
    except (YAMLError, ValueError) as error:
        raise UserError(f"The config {path} is not YAML: {' '.join(str(error).split())[:200]}.") from None
    section = config.get("dataset") if isinstance(config, dict) else None
    return section if isinstance(section, dict) else {}


def _progress() -> Progress | None:
    """A counter on the terminal; silent when nobody watches."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        print(
            f"\r{done:,} / {total:,} images", end="\n" if done == total else "", file=sys.stderr, flush=True
        )

    return show


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data.validate", description="Check a dataset on disk.")
    which = parser.add_argument_group(
        "which dataset: --config, or --name (either can be combined with --root)"
    )
    which.add_argument("--config", metavar="FILE", help="a config whose dataset section is taken")
    which.add_argument("--name", choices=sorted(DATASETS), help="the dataset's name")
    which.add_argument("--root", metavar="DIR", help="what holds the dataset's folder (default: datasets)")
    parser.add_argument(
        "--against",
        metavar="FILE",
        help="the config of a set that a model was trained on which is to be evaluated here: are images in both?",
    )
    parser.add_argument(
        "--deep", action="store_true", help="decode every image instead of reading its header"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes that open images (default: one per core)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
