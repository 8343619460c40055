"""What every comparison does: both versions in turns, wall and CPU time, medians of ratios, one CSV, and profiles.

On a machine that is shared, seconds say little. So versions take turns, a ratio is taken within each turn, and beside the
clock stands the time that the CPUs spent on this process, which other processes disturb less.
"""

from __future__ import annotations

import argparse
import csv
import gc
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from engine import processor
from engine.config import RuntimeConfig
from engine.machine import Machine, make_machine
from models.backbones import linear
from models.backbones.blip.tokenizer import DECODE, ENCODE, BlipTokenizer
from retrieval.results import write_atomically

RESULTS = Path(__file__).parent / "results"
WORDS = [f"{a}{b}{c}" for a in "bdfglmnprst" for b in "aeiou" for c in "kmnrst"]
MEAN_WORDS, WORDS_SPREAD = 23.5, 7.0  # of CUHK-PEDES' captions


class Seconds(NamedTuple):
    """What an action took: on the clock, and on all CPUs together."""

    wall: float
    cpu: float


def seconds_of(action: Callable[[], Any], device: str = "cpu") -> tuple[Seconds, Any]:
    """Time of an action, the GPU's work included, and what it returned."""
    gc.collect()
    wait_for(device)
    wall, cpu = time.perf_counter(), time.process_time()
    result = action()
    wait_for(device)
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu), result


def wait_for(device: str) -> None:
    """Until the GPU has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def peak_gb() -> float:
    """The largest resident set of this program so far (ru_maxrss would count the one that started it, too)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    return int(line.split()[1]) * 1024 / 1e9


def in_turns(
    actions: Mapping[str, Callable[[], Any]], repetitions: int, device: str = "cpu", warm: bool = False
) -> dict[str, list[Seconds]]:
    """Every repetition's time by version; the order alternates. Each runs once before, unless all is `warm` already."""
    for action in () if warm else actions.values():
        action()
    times: dict[str, list[Seconds]] = {name: [] for name in actions}
    for repetition in range(repetitions):
        for name in list(actions) if repetition % 2 else list(actions)[::-1]:
            times[name].append(seconds_of(actions[name], device)[0])
    return times


def rows_of(
    times: Mapping[str, Sequence[Seconds]], work: float, unit: str, common: Mapping[str, object]
) -> list[dict[str, object]]:
    """One row per version with medians over repetitions; ratios are against the first version, turn by turn.

    `work` is how many `unit` a repetition does.
    """
    base = next(iter(times.values()))
    rows = []
    for name, spent in times.items():
        wall = [before.wall / after.wall for before, after in zip(base, spent, strict=True)]
        cpu = [before.cpu / after.cpu for before, after in zip(base, spent, strict=True)]
        seconds = statistics.median(one.wall for one in spent)
        rows.append(
            {
                "version": name,
                **common,
                "threads": torch.get_num_threads(),
                "repetitions": len(spent),
                "seconds": f"{seconds:.4g}",
                "cpu_seconds": f"{statistics.median(one.cpu for one in spent):.4g}",
                f"{unit}_per_second": f"{work / seconds:.4g}",
                "ratio": f"{statistics.median(wall):.2f}",
                "ratio_from": f"{min(wall):.2f}",
                "ratio_to": f"{max(wall):.2f}",
                "cpu_ratio": f"{statistics.median(cpu):.2f}",
            }
        )
    return rows


def csv_path(part: str, device: str, results: Path = RESULTS, version: str = torch.__version__) -> Path:
    """Where a part's table lies: `<part>-<processor or card>-<version, torch's>.csv`."""
    where = processor.short_name() if device == "cpu" else device
    return results / f"{part}-{where}-{version.split('+')[0]}.csv"


def here() -> dict[str, object]:
    """What every row names: the processor, what it can multiply with, and by which library it multiplied."""
    return {
        "processor": processor.name(),
        "processor_features": " ".join(processor.features()),
        "linear": linear.library(),
    }


def write_csv(
    part: str,
    device: str,
    rows: Sequence[Mapping[str, object]],
    results: Path = RESULTS,
    version: str = torch.__version__,
) -> Path:
    """Writes a part's table at once and prints it; columns are those of all rows, empty where one lacks it, and of `here`."""
    results.mkdir(parents=True, exist_ok=True)
    path = csv_path(part, device, results, version)
    rows = [{**row, **here()} for row in rows]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    table = io.StringIO()
    writer = csv.DictWriter(table, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, table.getvalue())  # whoever goes on takes a table for a finished part
    print(table.getvalue())
    return path


def profile_of(action: Callable[[], Any], rows: int = 10) -> str:
    """A Markdown table of the operations that took most of an action's time by themselves."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        action()
    on_device = torch.cuda.is_available()

    def own(event: Any) -> float:
        return event.self_device_time_total if on_device else event.self_cpu_time_total

    events = sorted(profiler.key_averages(), key=own, reverse=True)
    total = sum(own(event) for event in events)
    lines = ["| operation | share | ms | calls |", "|---|---|---|---|"]
    lines += [
        f"| `{event.key[:60]}` | {own(event) / total:.1%} | {own(event) / 1000:.0f} | {event.count} |"
        for event in events[:rows]
    ]
    return "\n".join(lines)


def precisions_of(device: str) -> list[str]:
    """What ours is measured in: on a CPU in fp32 and, where it multiplies bf16, in that; on a GPU as a run is."""
    if device != "cpu":
        return ["auto"]
    return ["fp32", "bf16"] if processor.multiplies_bf16() else ["fp32"]


def machine_of(device: str, precision: str) -> Machine:
    """A run's machine: on a CPU it multiplies by the library that was found to be faster."""
    return make_machine(RuntimeConfig(device=device, precision=precision))


def label_of(precision: str) -> str:
    """A version's name in the tables."""
    return "ours, bf16" if precision == "bf16" else "ours"


def tokenizer_of(entries: int = 2002) -> BlipTokenizer:
    """A vocabulary for `captions_of`, filled up to that many entries with pieces that no caption has (BLIP has 30,524)."""
    with tempfile.TemporaryDirectory() as directory:
        learnt = BlipTokenizer.train(WORDS * 10, directory, vocab_size=2000)
    pieces = [piece for piece in learnt.vocabulary if piece not in (DECODE, ENCODE)]
    return BlipTokenizer(pieces + [f"[unused{number}]" for number in range(entries - 2 - len(pieces))])


def captions_of(count: int, seed: int = 0, words: Sequence[str] = WORDS) -> list[str]:
    """Captions of these words, by default invented ones, in any order, as long as CUHK-PEDES' are."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.normal(MEAN_WORDS, WORDS_SPREAD, count).round().astype(int), 8, 60)
    return [" ".join(rng.choice(words, length)) for length in lengths]


def parser_of(description: str, repetitions: int = 3) -> argparse.ArgumentParser:
    """The options that all comparisons share."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--size", default="base", help="tiny, base or large")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--repetitions", type=int, default=repetitions)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the CSV goes")
    parser.add_argument("--profile", action="store_true", help="print what dominates both versions; no CSV")
    return parser
