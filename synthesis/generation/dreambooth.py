"""DreamBooth: a text-to-image model learns the look of a few people under a rare word, and keeps what it knew of others.

Ruiz et al. (CVPR 2023), eq. 2: the loss on the few images, named "sks person", and with a weight the loss on images that the
model itself made of "a person" before. The denoising network learns as a whole; text encoder and autoencoder stay.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from synthesis.generation import pipelines
from synthesis.generation.denoising import Frozen, Noised, joined
from synthesis.generation.personal import IDENTIFIER

OWN_TEXT = f"a photo of {IDENTIFIER}"
PRIOR_TEXT = "a photo of a person"


class DreamBooth(nn.Module):
    """What is trained: `(own images, images of the prior or None) -> named losses`.

    Args:
        pipeline: of the plain model, in single precision, on its device.
        prior_weight: of the loss on images of the prior.
        recompute: store fewer activations and compute them again (gradient checkpointing).
    """

    def __init__(self, pipeline: Any, prior_weight: float = 1.0, recompute: bool = False) -> None:
        super().__init__()
        self.frozen, self.prior_weight = Frozen(pipeline), prior_weight
        self.network = pipeline.unet.requires_grad_(True)
        if recompute:
            self.network.enable_gradient_checkpointing()
        self._pipeline = (pipeline,)  # in a tuple: its other parts are none of this module's

    def forward(self, batch: tuple[Noised, Noised | None]) -> dict[str, Tensor]:
        """The mean loss of the few images, and that of the prior times its weight."""
        own, prior = batch
        both = own if prior is None else joined([own, prior])
        losses = self.frozen.losses(self.network, both, self.frozen.states(both.ids))
        count = len(own.ids)
        named = {"own": losses[:count].mean()}
        if prior is not None:
            named["prior"] = self.prior_weight * losses[count:].mean()
        return named

    def save(self, folder: Path) -> None:
        """The whole pipeline, as diffusers loads it anywhere."""
        with pipelines.quiet():
            self._pipeline[0].save_pretrained(folder)
