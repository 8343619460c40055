"""The processor that computes: its name and what it can multiply with."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

CPU_INFO = Path("/proc/cpuinfo")
# Of all that a processor can do, what decides how fast it multiplies; by the names of Linux, which torch's differ from.
FEATURES = (
    "avx2",
    "avx512f",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_bf16",
    "amx_fp16",
    "sve",
    "bf16",
)
OF_BF16 = {"avx512_bf16", "amx_bf16"}  # units that multiply bfloat16


@cache
def _cpu_info() -> Mapping[str, str]:
    """What Linux says about the first core; nothing on other systems."""
    try:
        first = CPU_INFO.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def name() -> str:
    """The processor's name, with family and model where it has them: names such as "AMD EPYC" are those of several."""
    info = _cpu_info()
    title = info.get("model name") or platform.processor() or platform.machine() or "unknown"
    kind = [
        f"{word} {info[key]}" for word, key in (("family", "cpu family"), ("model", "model")) if key in info
    ]
    return ", ".join([re.sub(r"\s+", " ", title), *kind])


def features() -> tuple[str, ...]:
    """Those of `FEATURES` that it has, as the system says, else as torch does."""
    info = _cpu_info()
    known = set((info.get("flags") or info.get("Features") or "").lower().split())
    if not known:
        known = {
            one.replace("avx512_f", "avx512f") for one, there in _asked_of_torch().items() if there is True
        }
    return tuple(one for one in FEATURES if one in known)


def _asked_of_torch() -> Mapping[str, Any]:
    asked = getattr(torch.cpu, "get_capabilities", None)  # of newer versions
    return asked() if asked else {}


def multiplies_bf16() -> bool:
    """Whether it has units that multiply bfloat16; others only imitate it."""
    return bool(OF_BF16 & set(features()))


def short_name() -> str:
    """The processor in a file's name: amd-epyc-26-2."""
    info = _cpu_info()
    words = [name().split(",")[0], info.get("cpu family", ""), info.get("model", "")]
    plain = re.sub(r"\((r|tm)\)|\bcpu\b|@\s*\S+", " ", " ".join(words).lower())
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
