"""One process that has imported everything serves all tests of a session that start stages."""

from __future__ import annotations

import pytest

from tests.trust.tiny_runs import Server


@pytest.fixture(scope="session")
def server():
    running = Server()
    yield running
    running.close()
