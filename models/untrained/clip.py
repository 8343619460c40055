"""CLIP as it was released: both towers and their projections."""

from __future__ import annotations

from models.backbones.clip.retrieval import ClipRetrieval
from models.backbones.clip.tokenizer import RELEASED_FILE
from models.untrained.base import Untrained


class UntrainedClip(Untrained, ClipRetrieval):
    """See the module."""

    name = "clip"
    vocabulary = RELEASED_FILE
