"""What every method costs in every size: parameters, operations, images and texts per second, memory.

    OMP_NUM_THREADS=1 python -m benchmarks.model_profile                       # all of them
    OMP_NUM_THREADS=1 python -m benchmarks.model_profile --methods pspd irra --sizes base
    python -m benchmarks.model_profile --device cuda --batch 64

Each model is built with random weights, with its method's own configuration and as many words as released weights know,
in a process of its own, so that memory is that of one. Rows that are measured again replace those of before; the others
stay. `python -m benchmarks.model_zoo` shows the table.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.flops import operations_of
from benchmarks.measure import RESULTS, captions_of, csv_path, wait_for, write_csv
from engine.config import Config, load_config
from models import METHODS, build_model
from models.methods.base import Method
from models.texts import TextTokenizer

ROOT = Path(__file__).resolve().parents[1]
# Entries by backbone, BERT's with BLIP's two and CUHK-PEDES' words, and what one looks like that no text has. CLIP's come
# with open_clip.
WORDS = {"blip": (30_524, "[unused{}]"), "resnet_lstm": (5_000, "unused{}")}
REPETITIONS = 3


def config_of(method: str, size: str) -> Config:
    """The method's configuration; for the small size with the demo's, for the others with CUHK-PEDES'."""
    data = "demo" if size == "tiny" else "cuhk"
    files = [f"methods/{method}", data, *([f"{data}/{method}"] if _is_there(data, method) else [])]
    return load_config([ROOT / "configs" / f"{name}.yaml" for name in files])


def _is_there(data: str, method: str) -> bool:
    return (ROOT / "configs" / data / f"{method}.yaml").is_file()


def vocabulary_of(kind: type[Method], config: Config, small: bool) -> TextTokenizer:
    """The backbone's tokenizer: one that comes with a package where the configuration names it, else one learnt from
    invented words, filled up with entries that no text has.

    Args:
        small: what the demo's configuration has learnt, instead of as many entries as released weights have.
    """
    if not small and kind.backbone not in WORDS:
        return kind.tokenizer_class.load(config.model.tokenizer)
    count, unused = WORDS.get(kind.backbone, (0, ""))
    with tempfile.TemporaryDirectory() as directory:
        size = config.model.vocabulary_size if small else 2000
        learnt = kind.tokenizer_class.train(captions_of(500), directory, vocab_size=size)
    if small:
        return learnt
    entries = list(learnt.vocabulary)
    return kind.tokenizer_class(entries + [unused.format(number) for number in range(count - len(entries))])


def seconds_per_call(action: Callable[[], Any], device: str) -> float:
    """The least of three: seconds of CPU time, which other processes disturb little; on a GPU those on the clock.

    Counting its operations has warmed it up before.
    """
    clock = time.process_time if device == "cpu" else time.perf_counter
    times = []
    for _ in range(REPETITIONS):
        wait_for(device)
        start = clock()
        action()
        wait_for(device)
        times.append(clock() - start)
    return min(times)


def profile(method: str, size: str, batch: int, device: str) -> dict[str, object]:
    """One row of the table, measured in this process."""
    kind, config = METHODS[method], config_of(method, size)
    words = vocabulary_of(kind, config, size == "tiny")
    torch.manual_seed(0)
    options = {**config.model.options, "image_size": config.model.image_size}
    model = build_model(method, size=size, tokenizer=words, **options).eval().to(device)
    images = torch.randn(batch, 3, *model.image_size, device=device)
    texts = words(captions_of(batch)).to(device)
    row: dict[str, object] = {
        "method": method,
        "size": size,
        "backbone": kind.backbone,
        "image": "x".join(map(str, model.image_size)),
        "words": len(words.vocabulary),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    tokens: list[torch.Tensor] = []
    passes = {"image": lambda: model.encode_images(images), "text": lambda: model.encode_texts(texts)}
    if kind.has_matching:
        with torch.no_grad():
            tokens.append(model.encode_images(images)[0])
        own = torch.arange(batch, device=device)
        passes["pair"] = lambda: model.match(texts, tokens[0], own)
    for name in ("image", "text", "pair"):
        row[f"gflops_per_{name}"] = row[f"{name}s_per_second"] = ""
    for name, action in passes.items():
        row[f"gflops_per_{name}"] = f"{operations_of(action) / batch / 1e9:.4g}"
        with torch.inference_mode():
            row[f"{name}s_per_second"] = f"{batch / seconds_per_call(action, device):.4g}"
    return row | {"peak_mib": round(peak_bytes(device) / 2**20), "batch": batch}


def peak_bytes(device: str) -> int:
    """The most memory so far: of this process, or of the GPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def processor(device: str) -> str:
    """The name of what computes."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    known = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return f"{known.get('model name', platform.machine())}, family {known.get('cpu family', '?')}"


def measured(method: str, size: str, options: argparse.Namespace) -> dict[str, object]:
    """One row, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.model_profile", "--one", method, size]
    command += ["--batch", str(options.batch), "--device", options.device]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1]) | {
        "threads": torch.get_num_threads(),
        "processor": processor(options.device),
    }


def main() -> None:
    """Measures what was chosen and writes benchmarks/results/model_profile-<device>-<torch>.csv."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--sizes", nargs="+", help="of those that a method comes in; all unless given")
    parser.add_argument("--batch", type=int, default=2, help="images, texts and pairs at once")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the CSV goes")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # a process that measures
    options = parser.parse_args()
    if options.one:
        print(json.dumps(profile(*options.one, options.batch, options.device)))
        return
    path = csv_path("model_profile", options.device, options.results)
    rows: dict[tuple[str, str], dict[str, object]] = {}
    if path.is_file():
        with path.open(encoding="utf-8") as stream:
            rows = {(row["method"], row["size"]): dict(row) for row in csv.DictReader(stream)}
    for method in options.methods:
        for size in METHODS[method].sizes:
            if size in (options.sizes or [size]):
                rows[method, size] = measured(method, size, options)
                print(f"{method} {size} is measured.", file=sys.stderr)
    order = [(method, size) for method in METHODS for size in METHODS[method].sizes]
    write_csv("model_profile", options.device, [rows[key] for key in order if key in rows], options.results)


if __name__ == "__main__":
    main()
