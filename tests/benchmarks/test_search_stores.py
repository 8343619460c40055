"""The comparison of stores at a small size: both find what exact search finds, and every figure of a row is there."""

from __future__ import annotations

import pytest

pytest.importorskip("pymilvus", reason="needs pip install -r requirements-stores.txt")
pytest.importorskip("milvus_lite", reason="needs pip install -r requirements-stores.txt")

from benchmarks.search_stores import STORES, measured


@pytest.mark.integration
@pytest.mark.parametrize("store", STORES)
def test_a_store_is_measured(store):
    near, far = measured(store, count=300, queries=4)
    assert (near["queries"], far["queries"]) == ("near", "far")
    assert near["recall_at_10"] == far["recall_at_10"] == "1.0000"
    assert 0 < near["before_mib"] <= near["peak_mib"]
    assert float(near["fill_s"]) >= 0
    assert near.keys() == far.keys()
