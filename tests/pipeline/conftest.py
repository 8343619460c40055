"""Pipelines in temporary folders, and what they log."""

from __future__ import annotations

import logging
import signal

import pytest

from engine.log import LOGGER
from tests.pipeline.mini import Pipeline, make_pipeline


def _messages():
    """Everything the project logs, as text; handlers and signals are put back after."""
    kept: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: kept.append(record.getMessage())
    before, propagate = list(LOGGER.handlers), LOGGER.propagate
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    LOGGER.handlers = [handler]
    yield kept
    for other in LOGGER.handlers:
        other.close()
    LOGGER.handlers, LOGGER.propagate = before, propagate
    for number, former in signals.items():
        signal.signal(number, former)


messages = pytest.fixture(_messages)
messages_of_module = pytest.fixture(_messages, scope="module")


@pytest.fixture
def pipeline_of(tmp_path, messages):
    """pipeline_of(name=..., data=..., synthesis=...) -> a ``Pipeline`` below the test's own folder."""
    return lambda **options: make_pipeline(tmp_path, messages, **options)


@pytest.fixture
def pipeline(pipeline_of) -> Pipeline:
    return pipeline_of()
