"""What memory does not hold at once is gone through in portions: the same results, and one sentence about it."""

from __future__ import annotations

import logging
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from retrieval.encode import encode_gallery, encode_queries
from retrieval.evaluate import evaluate
from retrieval.itm import candidates, score_pairs
from retrieval.memory import in_portions

GALLERY_IDS = np.repeat(np.arange(8), 3)
QUERY_IDS = np.arange(40) % 8
ERRORS = {
    "GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "CPU": RuntimeError(
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
    ),
    "numpy": MemoryError("Unable to allocate 9 bytes"),
}


@pytest.fixture
def warnings():
    """What is logged as the project's warnings."""
    kept: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: kept.append(record.getMessage())
    logger = logging.getLogger("pspd")
    logger.addHandler(handler)
    yield kept
    logger.removeHandler(handler)


def limited(model: nn.Module, error: Exception, **most: int) -> nn.Module:
    """The model, whose verbs raise the error for more rows than they are given here."""

    def verb(name, plain, index):
        def call(*arguments):
            if len(arguments[index]) > most[name]:
                raise error
            return plain(*arguments)

        return call

    for name in most:
        setattr(model, name, verb(name, getattr(model, name), 0))
    return model


@pytest.mark.parametrize("error", ERRORS)
def test_an_evaluation_in_portions_gives_what_one_call_gives(
    tiny_model, tiny_images, captions, warnings, error
):
    def run():
        return evaluate(tiny_model, tiny_images.split(12), captions, QUERY_IDS, GALLERY_IDS, k_test=6)

    expected = run()
    assert not warnings
    limited(tiny_model, ERRORS[error], encode_images=4, encode_texts=7, match=30)
    for _ in range(2):
        found = run()
        assert found.itc == expected.itc
        assert found.itm == expected.itm
        np.testing.assert_array_equal(found.best.indices, expected.best.indices)
        np.testing.assert_allclose(found.best.scores, expected.best.scores, atol=1e-6)
    assert warnings == [
        "Memory does not hold 12 images at once: going on with 3 at a time.",
        "Memory does not hold 40 texts at once: going on with 5 at a time.",
        "Memory does not hold 60 pairs at once: going on with 30 at a time.",
    ]


def test_candidates_and_progress_in_portions(tiny_model, tiny_images, captions):
    gallery = encode_gallery(tiny_model, [tiny_images], 24)
    features = encode_queries(tiny_model, captions)
    expected = candidates(tiny_model, captions, gallery, features, 10, 5)
    limited(tiny_model, ERRORS["GPU"], match=9)
    seen = []
    found = candidates(
        tiny_model, captions, gallery, features, 10, 5, progress=lambda *step: seen.append(step)
    )
    for array, plain in zip(found, expected, strict=True):
        np.testing.assert_array_equal(array, plain)
    assert seen[-1][0] == seen[-1][1]


def test_a_single_row_that_does_not_fit_and_other_errors_are_raised(tiny_model, tiny_images, captions):
    gallery = encode_gallery(tiny_model, [tiny_images], 24)
    limited(tiny_model, ERRORS["GPU"], match=0)
    with pytest.raises(torch.OutOfMemoryError):
        score_pairs(tiny_model, captions, gallery, np.array([[0, 0], [1, 1]]))
    limited(tiny_model, RuntimeError("shapes cannot be multiplied"), encode_texts=0)
    with pytest.raises(RuntimeError, match="multiplied"):
        encode_queries(tiny_model, captions)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 64])
@pytest.mark.parametrize("most", [1, 3, 64])
def test_every_row_is_done_once_and_in_order(count, most):
    model, tried = nn.Linear(1, 1), []

    def work(part: slice) -> list[int]:
        tried.append(part.stop - part.start)
        if tried[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return list(range(count))[part]

    for refused in (6, 0):  # 64, 32, 16, 8, 4, 2; the size that fits is known then
        tried.clear()
        done = list(in_portions(model, "numbers", count, work))
        assert [row for part in done for row in part] == list(range(count))
        assert sum(size > most for size in tried) <= refused


def test_a_failed_attempt_holds_nothing_while_the_next_one_runs():
    """Else the halves would find memory as full as the whole did."""
    before: list[weakref.ref] = []

    def work(part: slice) -> int:
        assert all(tensor() is None for tensor in before)
        large = torch.zeros(4)
        before.append(weakref.ref(large))
        if part.stop - part.start > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return len(large)

    assert list(in_portions(nn.Linear(1, 1), "numbers", 4, work)) == [4] * 4
    assert len(before) == 6


LIMITED = """
import resource, sys, torch
from torch import nn
from retrieval.memory import in_portions
torch.set_num_threads(1)
torch.zeros(8) @ torch.zeros(8)
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (300 << 20), -1))
sizes = list(in_portions(nn.Linear(1, 1), "rows", 8, lambda part: len(torch.zeros(part.stop - part.start, 100 << 18))))
print(sizes)
"""


@pytest.mark.integration
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited in Linux' way")
def test_memory_that_really_ends():
    """Rows of 100 MiB in a process that may have 300 MiB more."""
    root = Path(__file__).resolve().parents[2]
    found = subprocess.run(
        [sys.executable, "-c", LIMITED], cwd=root, capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "[2, 2, 2, 2]"
    assert "8 rows at once: going on with 2" in found.stderr
