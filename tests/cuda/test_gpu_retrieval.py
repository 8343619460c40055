"""Evaluation in both protocols, the labels of a round, and search, on the pretended GPU: to their end, with the CPU's results.

Whatever is read from the device on the way was computed in float32, image tokens apart, which are kept in half precision.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from engine.config import Config
from engine.labels import PseudoLabels, pseudo_labels
from engine.machine import Machine
from models import METHODS
from models.methods.base import Method
from retrieval.evaluate import Evaluation, StyleTexts, evaluate
from serving.index import SearchIndex
from serving.indexing import IndexWriter
from serving.opening import decoder
from serving.searcher import Hit, Searcher
from tests.cuda.pretend_gpu import put
from tests.methods import method_examples as example

CLOSE = {torch.float32: 1e-4, torch.bfloat16: 0.1}


@pytest.fixture
def model(words) -> Callable[[str, Machine], Method]:
    """model(method, machine): the same weights every time, on the machine."""
    return lambda method, machine: put(example.model(method, words), machine.place)


@pytest.mark.parametrize("style", [None, "msm"])
@pytest.mark.parametrize("method", example.all_methods())
def test_an_evaluation(method, style, model, feed, captions, identities, on_both, gpu, machine):
    texts = StyleTexts(captions, ["", *captions[1:]], weight=0.3) if style else None

    def run(machine: Machine) -> Evaluation:
        tested = model(method, machine)
        batches = feed(tested.image_size).batches(10, machine.device)
        return evaluate(tested, batches, captions, identities, identities, k_test=5, style=texts)

    theirs, ours = on_both(run)
    assert gpu.count > 500
    assert gpu.reads
    assert (ours.reranked is not None) == METHODS[method].has_matching
    np.testing.assert_allclose(ours.cosine.scores, theirs.cosine.scores, atol=CLOSE[machine.precision])
    if machine.precision == torch.float32:  # in bf16 other images may come among the five
        for found, expected in ((ours.cosine, theirs.cosine), (ours.best, theirs.best)):
            np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
            np.testing.assert_array_equal(found.indices, expected.indices)
            assert found.metrics == pytest.approx(expected.metrics)


@pytest.mark.parametrize("method", example.all_methods())
def test_the_labels_of_a_round(method, model, feed, captions, on_both, gpu, machine, tmp_path):
    config = Config(output=str(tmp_path), cluster={"k1": 6, "k2": 3, "ratio": 0.1, "min_samples": 2})
    config.correction.k_tests, config.correction.k = 6, 4

    def run(machine: Machine) -> PseudoLabels:
        labelling = model(method, machine)
        return pseudo_labels(labelling, feed(labelling.image_size), captions, config, machine, None)

    theirs, ours = on_both(run)
    assert gpu.count > 500
    assert (ours.after >= 0).any()
    if machine.precision == torch.float32:
        np.testing.assert_array_equal(ours.before, theirs.before)
        np.testing.assert_array_equal(ours.after, theirs.after)


def test_a_search(model, crops, captions, on_both, gpu, machine, tmp_path):
    def run(machine: Machine) -> tuple[list[Hit], list[Hit]]:
        searching = model("pspd", machine)
        searching.eval()
        folder = tmp_path / machine.device.type
        with IndexWriter(folder) as writer:
            writer.claim(searching, searching.image_size, "digest", crops[0].parent)
            plan = writer.plan([path.name for path in crops])
            writer.encode(plan, searching, decoder(searching.image_size), batch_size=10)
            writer.publish(plan)
        searcher = Searcher(SearchIndex(folder), searching)
        found = searcher.by_sentence(captions[4], top=8, rerank_best=4)
        return found, searcher.like(found[0], top=3)

    theirs, ours = on_both(run)
    assert gpu.count > 300
    for found, expected in zip(ours, theirs, strict=True):
        assert len(found) == len(expected)
        scores = [[hit.score for hit in hits] for hits in (found, expected)]
        np.testing.assert_allclose(*scores, atol=CLOSE[machine.precision])
        if machine.precision == torch.float32:
            assert [hit.image for hit in found] == [hit.image for hit in expected]
