"""What a training on a CPU holds in memory, step by step, by how many kernels are kept.

OMP_NUM_THREADS=1 python -m benchmarks.training_memory --kernels 64
OMP_NUM_THREADS=1 python -m benchmarks.training_memory --kernels 16 --trim 10
"""

from __future__ import annotations

import argparse
import ctypes
import os
import time
from pathlib import Path

import torch

from benchmarks.measure import captions_of
from benchmarks.training_step import BATCHES, garments, make_model
from engine.machine import KEPT
from models import Batch, TrainingCaption

SHOWN = (2, 10, 20)  # steps, besides the last


def resident(name: str) -> int:
    """MiB of this process: "VmRSS" now, "VmHWM" at most so far (Linux)."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(name))


def main() -> None:
    """Trains for some steps with other captions in each and prints what is resident."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--kernels", type=int, default=1024, help="that oneDNN and torch keep (their own choice: 1024)"
    )
    parser.add_argument("--trim", type=int, default=0, metavar="N", help="give the heap back every N steps")
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args()
    for name in KEPT:  # read at the first product
        os.environ[name] = str(options.kernels)
    size, model = BATCHES["tiny"], make_model("tiny", 0.1)
    optimizer = torch.optim.AdamW(model.parameter_groups(1e-4, 0.05), lr=1e-4, fused=True)
    texts = captions_of(size * options.steps)
    print(f"before the first step: {resident('VmRSS')} MiB")
    start = time.process_time()
    for step in range(1, options.steps + 1):
        captions = [TrainingCaption(text, *garments(text)) for text in texts[(step - 1) * size : step * size]]
        labels = torch.randint(0, 3 * size, (size,))
        batch = Batch(torch.randn(size, 3, *model.image_size), model.prepare(captions).trim(), labels)
        optimizer.zero_grad()
        sum(model.losses(batch).values()).backward()
        optimizer.step()
        if options.trim and step % options.trim == 0:
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        if step in (*SHOWN, options.steps):
            print(f"step {step}: {resident('VmRSS')} MiB, at most {resident('VmHWM')} MiB")
    print(f"{time.process_time() - start:.1f} s of CPU time")


if __name__ == "__main__":
    main()
