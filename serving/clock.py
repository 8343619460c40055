"""Seconds from the beginning of a source, as people write them: 75.5, 1:15.5 or 00:01:15.5."""

from __future__ import annotations

import re

_FORM = re.compile(r"(?:(?:(\d{1,5}):)?([0-5]?\d):)?(\d{1,9}(?:\.\d{1,6})?)", re.ASCII)


def seconds_of(text: str) -> float:
    """Seconds, MM:SS or HH:MM:SS as seconds; ValueError for anything else."""
    found = _FORM.fullmatch(text.strip())
    if found is None or (found[2] and float(found[3]) >= 60):
        raise ValueError(f"{text!r} is no time: write seconds or HH:MM:SS.")
    return 3600 * int(found[1] or 0) + 60 * int(found[2] or 0) + float(found[3])


def clock(seconds: float) -> str:
    """HH:MM:SS.s, to the tenth below."""
    tenths = int(seconds * 10 + 1e-6)
    return f"{tenths // 36000:02d}:{tenths // 600 % 60:02d}:{tenths // 10 % 60:02d}.{tenths % 10}"
