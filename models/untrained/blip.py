"""BLIP as it was released: both encoders, their projections and the matching head."""

from __future__ import annotations

from models.backbones.blip.retrieval import BlipRetrieval
from models.untrained.base import Untrained


class UntrainedBlip(Untrained, BlipRetrieval):
    """See the module."""

    name = "blip"
    has_matching = True
    vocabulary = "checkpoint/bert-base-uncased"
