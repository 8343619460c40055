"""Take in caption files that authors have released, so that nobody pays for the same captions again.

    python -m captioning.import_released cuhk_gen_pre_caption.json --config configs/cuhk.yaml
    python -m captioning.import_released cuhk_gen_caption.json --images datasets/CUHK-PEDES/imgs --out pre_gen_data/cuhk

The captions go into the caption store of their stage, which later stages go on from, and into the caption file made
of it. Captions written by people and identities are left out. What the store has already is kept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from captioning.files import store_beside, write_json
from captioning.pipeline import export, step_key
from captioning.released import Imported, read_released
from captioning.store import CaptionStore
from data.errors import UserError

FOLDERS = {"cuhk_pedes": "CUHK-PEDES", "icfg_pedes": "ICFG-PEDES", "rstpreid": "RSTPReid"}
EXAMPLES = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Import the files of the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        images, out = _places(options)
        for file in options.files:
            imported = read_released(file, images)
            print(take_in(imported, Path(out), options.model or f"released: {Path(file).name}"))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def take_in(imported: Imported, directory: Path, model: str) -> str:
    """Write what was read into the store and the caption file of its kind below `directory`; returns the report.

    Args:
        model: recorded with every caption as what made it.
    """
    path = directory / f"{imported.kind.stem}.json"
    with CaptionStore(store_beside(path)) as store:
        new = store.missing(imported.records, retry_refused=True)
        for image in new:
            store.put(image, model=model, **imported.records[image])
        written = _write(store, path)
    if imported.kind.stem == "captions":
        _keep_groups(imported, new, directory, model)
    without = path.with_suffix(".without.txt")
    without.write_text("".join(f"{image}\n" for image in imported.without), encoding="utf-8")
    return _report(imported, len(new), written, path, without)


def _write(store: CaptionStore, path: Path) -> int:
    """The caption file of everything that is done in the store."""
    done = sorted(record["key"] for record in store if record["status"] == "done" and "step" not in record)
    if path.stem == "pre_captions":
        return export(store, path, done)
    names = ("base_caption", "styled_caption", "upper", "lower", "fixed_caption", "queries")
    records = []
    for image in done:
        record: dict[str, Any] = store.get(image) or {}
        records.append({"image": image, **{name: record[name] for name in names if name in record}})
    return write_json(path, records)


def _keep_groups(imported: Imported, images: Sequence[str], directory: Path, model: str) -> None:
    """The released grouping as answers of a text model, where `group_captions` looks for them."""
    with CaptionStore(directory / "attributes.jsonl") as store:
        for image in images:
            record = imported.records[image]
            store.put(
                step_key(image, "attributes"),
                step="attributes",
                caption=record["styled_caption"],
                text=f"Upper: {' '.join(record['upper'])}\nLower: {' '.join(record['lower'])}",
                model=model,
            )


def _report(imported: Imported, new: int, written: int, path: Path, without: Path) -> str:
    matched = len(imported.records) + len(imported.unusable) + imported.repeated
    lines = [
        f"{imported.kind.title}: {imported.total} records, {matched} matched an image, "
        f"{len(imported.unmatched)} did not{_examples(imported.unmatched)}"
    ]
    if imported.ambiguous:
        lines.append(f"{len(imported.ambiguous)} could be several images{_examples(imported.ambiguous)}")
    if imported.unusable:
        lines.append(f"{len(imported.unusable)} have no usable caption{_examples(imported.unusable)}")
    if imported.repeated:
        lines.append(f"{imported.repeated} repeat an image; the first was taken")
    lines.append(f"{new} taken into {store_beside(path)}, {written} written to {path}")
    lines.append(
        f"{len(imported.without)} images of the folder, whatever their split, have no caption in this file"
        f"{_examples(imported.without)}; all of them: {without}"
    )
    return "\n".join(lines)


def _examples(names: Sequence[str]) -> str:
    if not names:
        return ""
    return f" ({', '.join(names[:EXAMPLES])}{', ...' if len(names) > EXAMPLES else ''})"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m captioning.import_released",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="released caption file (JSON)")
    parser.add_argument(
        "--config", action="append", default=[], metavar="FILE", help="names the dataset; later wins"
    )
    parser.add_argument("--images", metavar="DIR", help="the dataset's imgs/ folder, instead of --config's")
    parser.add_argument("--out", metavar="DIR", help="default: the configuration's pre_gen_data folder")
    parser.add_argument("--model", help="what made the captions, to be recorded with them")
    return parser


def _places(options: argparse.Namespace) -> tuple[Path, Path]:
    """(image folder, output folder) from the options, completed by the configuration."""
    config: dict[str, Any] = {}
    for file in options.config:
        _merge(config, _read_yaml(Path(file)))
    dataset = config.get("dataset") or {}
    name = dataset.get("name", "cuhk_pedes" if config else "")
    out = options.out or str(config.get("pre_gen_data") or "").replace("{seed}", str(config.get("seed", 0)))
    if not out and name:
        out = f"pre_gen_data/{dataset.get('tag') or name}"
    if options.images:
        images = Path(options.images)
    elif name:
        images = _image_folder(name, Path(dataset.get("root", "datasets")))
    else:
        raise UserError("Say where the images are: --config FILE of the dataset, or --images DIR.")
    if not out:
        raise UserError("Say where the captions go: --out DIR, such as pre_gen_data/cuhk.")
    return images, Path(out)


def _image_folder(name: str, root: Path) -> Path:
    """`imgs/` of the dataset below `root` (the folder of datasets, or the dataset's own)."""
    if name not in FOLDERS:
        return root
    tried = [root / FOLDERS[name] / "imgs", root / "imgs"]
    for folder in tried:
        if folder.is_dir():
            return folder
    raise UserError(
        f"There is no image folder of {name}: tried {' and '.join(map(str, tried))}; set dataset.root or --images."
    )


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"There is no configuration {path}.") from None
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise UserError(f"{path} is not readable as YAML: {str(error).splitlines()[0]}") from None
    return content if isinstance(content, dict) else {}


def _merge(target: dict[str, Any], source: dict[str, Any]) -> None:
    for key, value in source.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value


if __name__ == "__main__":
    sys.exit(main())
