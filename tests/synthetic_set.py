"""A small synthetic data set on disk, in the layout that `data/synthetic.py` reads."""

from __future__ import annotations

import json
from pathlib import Path

from synthesis.demo import make_demo


def write_synthetic_set(root: Path, people: int = 6, images: int = 2) -> Path:
    """Drawn people of the source world, numbered from 0 as the demo's are, with keys that nobody reads; returns `root`."""
    folder = make_demo(
        root.with_name(f"{root.name} as drawn"), "icfg_pedes", people, 1, 1, images, seed=3, world="source"
    )
    records = json.loads((folder / "ICFG-PEDES.json").read_text("utf-8"))
    kept = [
        {key: record[key] for key in ("split", "file_path", "id", "captions")}
        | {"prompt": "a young woman in a red blouse", "edit": None}
        for record in records
        if record["split"] == "train"
    ]
    folder.rename(root)
    (root / "ICFG-PEDES.json").unlink()
    (root / "synthetic.json").write_text(json.dumps(kept), "utf-8")
    return root
