"""Say what a caption store holds: `python -m captioning.summary pre_gen_data/cuhk/pre_captions.jsonl`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from captioning.store import CaptionStore
from data.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the summary of each store of the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m captioning.summary", description=__doc__)
    parser.add_argument("stores", nargs="+", type=Path, metavar="FILE", help="a .jsonl caption store")
    try:
        for path in parser.parse_args(arguments).stores:
            if not path.is_file():
                raise UserError(f"There is no caption store {path}.")
            print(f"{path}: {CaptionStore(path).summary()}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
