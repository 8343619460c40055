"""Models: backbones, and one file per method that binds a backbone to its losses."""

from models.batch import Batch, TrainingCaption
from models.registry import METHODS, build_model, load_weights
from models.world import DistributedWorld, World

__all__ = ["METHODS", "Batch", "DistributedWorld", "TrainingCaption", "World", "build_model", "load_weights"]
