"""`search.py export --index`: features, paths and times of an index as a Parquet file, for any other database.

Columns: `row`, `path` (below the image folder), `source`, `seconds`, `frame`, `box` (left, top, width, height) of crops, empty where
nobody knows, and `feature`, F float32 of length 1. What they were made from stands in the schema's metadata under `person_search`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data.errors import UserError
from serving.index import SearchIndex
from serving.store import Indexed

MARK = b"person_search"
FORMAT = 1


def export_index(options: argparse.Namespace) -> int:
    """Write the file, and put it in its place when it is whole; returns the exit code.

    Raises:
        UserError: pyarrow is missing, no index, a file of something else, or no room.
    """
    try:  # an extra that only this needs
        import pyarrow  # noqa: F401
    except ModuleNotFoundError:
        raise UserError(
            "Parquet needs pyarrow, which is not installed: pip install -r requirements-stores.txt."
        ) from None
    target = Path(options.to)
    _refuse_others(target)
    index = SearchIndex(options.index)
    temporary = target.with_name(f".{target.name}.exporting")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        count = _write(index, temporary)
        temporary.replace(target)
    except OSError as error:
        raise UserError(
            f"{target} can't be written ({error.strerror or error}): make room there, or name another file."
        ) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
        index.close()
    print(f"Exported {count} images with their features to {target}.")
    return 0


def _refuse_others(target: Path) -> None:
    if target.suffix != ".parquet":
        raise UserError(f"{target} does not end in .parquet: name a file behind --to.")
    if target.is_dir():
        raise UserError(f"{target} is a folder: name a file behind --to.")
    if target.exists() and not _is_export(target):
        raise UserError(f"{target} is another file: name a new one, nothing is overwritten.")


def _is_export(path: Path) -> bool:
    import pyarrow
    from pyarrow import parquet

    try:
        return MARK in (parquet.read_schema(path).metadata or {})
    except (OSError, pyarrow.ArrowException):
        return False


def _write(index: SearchIndex, path: Path) -> int:
    """Everything, block by block; how many images it were."""
    from pyarrow import parquet

    schema = _schema(index.header)
    done = 0
    with (
        parquet.ParquetWriter(path, schema) as writer,
        tqdm(total=len(index), desc="exporting", unit="image", disable=None) as bar,
    ):
        for images, features in index.everything():
            writer.write_table(_table(images, features, schema))
            done += len(images)
            bar.update(len(images))
    return done


def _schema(header: dict[str, Any]) -> Any:
    import pyarrow as pa

    about = {"format": FORMAT, "checkpoint": header["checkpoint"], "images": header["images"]}
    return pa.schema(
        [
            ("row", pa.int64()),
            ("path", pa.string()),
            ("source", pa.string()),
            ("seconds", pa.float64()),
            ("frame", pa.int64()),
            ("box", pa.list_(pa.int64())),
            ("feature", pa.list_(pa.float32(), header["features"])),
        ],
        metadata={MARK: json.dumps(about)},
    )


def _table(images: Sequence[Indexed], features: np.ndarray, schema: Any) -> Any:
    import pyarrow as pa

    origins = [one.origin for one in images]
    flat = pa.array(np.ascontiguousarray(features, np.float32).reshape(-1))
    columns = [
        [one.row for one in images],
        [one.image for one in images],
        *(
            [origin and getattr(origin, name) for origin in origins]
            for name in ("source", "seconds", "frame")
        ),
        [origin and list(origin.box) for origin in origins],
        pa.FixedSizeListArray.from_arrays(flat, features.shape[1]),
    ]
    return pa.table(columns, schema=schema)
