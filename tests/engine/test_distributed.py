"""One process works without a group, and with the threads of those that wait for it."""

from __future__ import annotations

import pytest
import torch

from engine import distributed
from engine.distributed import Interrupted
from retrieval.division import ALONE


def test_one_process_shares_with_nobody_and_stops_by_itself():
    assert distributed.processes() is ALONE
    assert (ALONE.rank, ALONE.size, ALONE.gather("value")) == (0, 1, ["value"])
    distributed.stop_all_if(False)
    with pytest.raises(Interrupted):
        distributed.stop_all_if(True)


@pytest.mark.parametrize("count", [None, 1, 3])
def test_the_threads_of_all_are_used_while_one_computes(monkeypatch, count):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if count:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(count))
    own = torch.get_num_threads()
    with distributed.all_threads():
        assert torch.get_num_threads() == (count or 1) * own
    assert torch.get_num_threads() == own
