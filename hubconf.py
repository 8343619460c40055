"""Person search in three lines from any program, which keeps its own `data` and `models`:

import torch
search = torch.hub.load("OWNER/NAME", "person_search", checkpoint="hf:OWNER/MODEL")   # or a clone: source="local"
search.search("a woman in a red coat", index="my-index")

OWNER/NAME is this repository on GitHub, or the path of a clone; docs/sharing.md has more.
"""

from __future__ import annotations

from typing import Any

# What has to be importable; versions stand in requirements.txt.
dependencies = ["torch", "torchvision", "timm", "open_clip", "tokenizers", "safetensors", "numpy", "faiss", "pydantic", "ruamel.yaml", "PIL", "tqdm"]  # fmt: skip


def person_search(checkpoint: Any, *, device: str = "auto", precision: str = "auto") -> Any:
    """A `serving.person_search.PersonSearch`: `encode_images(paths or PIL)`, `encode_texts(list)`, `search(sentence, index)`.

    Args:
        checkpoint: a path (a training's best.pth, a published folder, weights of BLIP or CLIP) or `hf:OWNER/NAME`.
        device: "auto", "cpu", "cuda" or "cuda:1"; precision: of the network's body, "auto", "fp32" or "bf16".
    """
    import importlib.util
    from pathlib import Path

    root = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(
        "person_search_isolation", root / "serving" / "isolation.py"
    )
    isolation = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(isolation)
    rooms = isolation.room_module(root, "serving.person_search")
    return rooms.PersonSearch(checkpoint, device=device, precision=precision)
