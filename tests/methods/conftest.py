from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import method_examples as example


@pytest.fixture(scope="session")
def words(tmp_path_factory):
    """A tokenizer for each kind of text encoder, by its class."""
    return example.tokenizers(tmp_path_factory.mktemp("words"))
