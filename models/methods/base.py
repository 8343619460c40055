"""What every method is: a model with three verbs, and the hooks the training loop and the rounds call.

The loop knows nothing else of a method; a method knows nothing of the loop.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from losses.itc import pair_divergences
from models.batch import Batch, TrainingCaption
from models.texts import TextBatch, TextTokenizer
from models.world import World

View = Literal["same", "strong"]
Encoder = Literal["image", "text"]


class Method(nn.Module, ABC):
    """Base of all methods; combined with a backbone (`models.backbones`), which brings the verbs.

    Class attributes:
        name: key in `models.METHODS`.
        supervision: "pseudo" (labels come from clustering generated captions and images) or "labels" (real ones), unless
            a configuration says otherwise.
        has_matching: whether there is a third verb, `match(texts, image_tokens, image_index) -> logits`, which reads a
            text and an image together: re-ranking, and the candidates of the label correction. With it comes
            `matching_from(first_token)`, a context in which texts begin otherwise than they were trained to.
        caption_kinds: which generated captions each training image is used with, once per kind.
        round_keys: prefixes of weights that mean something within one round of training only.
        wants_companions: whether its losses compare with a caption of another image of the same label.
        weighs_pairs: whether its losses count each pair as much as `Batch.weights` says.
        wants_views: the further views of each image that its losses look at, each augmented by itself: "same", as the image
            is, or "strong". A model may want others than its class.

    Class attributes that the backbone brings:
        backbone: its name; methods on one backbone share what a warm-up has learnt.
        sizes: the sizes it comes in, by name.
        tokenizer_class: makes its texts.
        pixel_mean, pixel_std: per colour, of pixels in 0..1; `interpolation`: how images are resized for it.
        encoders: patterns of the names that each encoder's weights begin with, its projection's included. What reads both
            sides, such as BLIP's cross-attention, belongs to neither.
        load_pretrained: a method, path -> report, that fills the model with released weights.
        word_maps: a method, (images, captions) -> `models.word_maps.WordMaps` of each pair.
    """

    name: ClassVar[str]
    supervision: ClassVar[Literal["pseudo", "labels"]]
    has_matching: ClassVar[bool] = False
    caption_kinds: ClassVar[tuple[str, ...]] = ("base", "styled")
    round_keys: ClassVar[tuple[str, ...]] = ()
    wants_companions: ClassVar[bool] = False
    wants_views: tuple[View, ...] = ()
    weighs_pairs: ClassVar[bool] = False

    backbone: ClassVar[str]
    sizes: ClassVar[Mapping[str, Any]]
    tokenizer_class: ClassVar[type[TextTokenizer]]
    pixel_mean: ClassVar[tuple[float, float, float]]
    pixel_std: ClassVar[tuple[float, float, float]]
    interpolation: ClassVar[Literal["bilinear", "bicubic"]]
    encoders: ClassVar[Mapping[Encoder, str]]

    precision: torch.dtype = torch.float32  # of the body; who puts the model on a device says it
    _world: World = World()

    @property
    def world(self) -> World:
        """The processes that share a batch; setting it reaches every layer that computes over the whole batch."""
        return self._world

    @world.setter
    def world(self, world: World) -> None:
        self._world = world
        for layer in self.modules():
            if layer is not self and hasattr(layer, "world"):
                layer.world = world

    @abstractmethod
    def prepare(self, captions: Sequence[TrainingCaption]) -> TextBatch:
        """Tokens of training captions, with whatever masks the method's losses need as extras."""

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Named, weighted scalars; the loop sums them. Their mean over processes is the global batch's loss.

        Where it weighs pairs and the batch has weights, what is learnt from a pair counts as much as its weight says.
        """

    def pair_losses(self, batch: Batch) -> Tensor:
        """How badly each pair of a batch fits, by which `train.pair_weights` tells wrong pairs from right ones.

        The batch is whole, in this process, and the model in evaluation mode; nothing is gathered.

        Returns:
            (B,), or (k, B) by k opinions that err differently. Here: by the features, at NDF's temperature.
        """
        _, image_features = self.encode_images(batch.images)
        _, text_features = self.encode_texts(batch.texts)
        return pair_divergences(image_features, text_features, batch.labels, scale=50.0)

    def warm_up_losses(self, batch: Batch, matching: bool) -> dict[str, Tensor]:
        """The losses of a warm-up, where every image is its own class; all of them unless a method says otherwise.

        Args:
            matching: whether this part of the warm-up teaches matching, too.
        """
        return self.losses(batch)

    def start_matching(self) -> None:
        """Called where there is matching, when a warm-up, having trained the encoders, goes on to it."""

    def set_identities(self, count: int) -> None:
        """Called before training starts on labels 0 .. count - 1; for methods that classify them."""

    def cluster_features(
        self,
        image_tokens: Tensor,
        image_features: Tensor,
        text_tokens: Tensor,
        text_features: Tensor,
        text_mask: Tensor,
    ) -> Tensor:
        """What the pseudo labels of B images are made from: [norm(v); norm(t)] unless a method says otherwise.

        Args:
            image_tokens, image_features: (B, N, D) and (B, F) of `encode_images`.
            text_tokens, text_features: (B, L, D) and (B, F) of `encode_texts` on each image's own caption.
            text_mask: (B, L) bool, False at padding.

        Returns:
            (B, K).
        """
        return torch.cat([normalize(image_features, dim=1), normalize(text_features, dim=1)], dim=1)

    def learning_rate_factor(self, parameter_name: str) -> float:
        """By how much a parameter's learning rate differs from the run's."""
        return 1.0

    def freeze(self, encoders: Iterable[Encoder]) -> None:
        """Keep the weights of these encoders as they are: training goes on with the others."""
        patterns = [self.encoders[encoder] for encoder in encoders]
        for name, parameter in self.named_parameters():
            if any(re.match(pattern, name) for pattern in patterns):
                parameter.requires_grad_(False)

    def parameter_groups(
        self, lr: float, weight_decay: float, decay_vectors: bool = False
    ) -> list[dict[str, Any]]:
        """Parameter groups for an optimizer: one per learning rate, each with and without weight decay.

        Vectors and scalars (biases, normalisation) are not decayed unless `decay_vectors` says so. The released code of
        BLIP's methods decays everything; at its learning rates (5e-6, 1e-5) a run shrinks a weight by under one percent
        either way, but a model trained from scratch at a hundred times that rate would have its normalisation pulled to zero.
        """
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                key = (self.learning_rate_factor(name), parameter.ndim > 1 or decay_vectors)
                groups.setdefault(key, []).append(parameter)
        return [
            {"params": parameters, "lr": lr * factor, "weight_decay": weight_decay if decays else 0.0}
            for (factor, decays), parameters in groups.items()
        ]
