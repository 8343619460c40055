"""Models: backbones, and one file per method that binds a backbone to its losses.

`Captioner` is what captions the training images, whatever the method that then learns from them.
"""

from models.backbones.blip.captioner import BlipCaptioner as Captioner
from models.batch import Batch, TrainingCaption
from models.registry import KINDS, METHODS, build_model, check_options, load_weights
from models.released import load_untrained, recognise
from models.world import DistributedWorld, World

__all__ = [
    "KINDS",
    "METHODS",
    "Batch",
    "Captioner",
    "DistributedWorld",
    "TrainingCaption",
    "World",
    "build_model",
    "check_options",
    "load_untrained",
    "load_weights",
    "recognise",
]
