"""Stages A to C: captions of a sample, the captioner that learns from them, captions of all images."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from engine.config.section import Count, Fraction, Positive, Rate, Section


class BackendConfig(Section):
    """One captioning backend; ``options`` are that backend's own (``docs/captioning.md``)."""

    backend: Literal["palette", "openai", "transformers"] = "palette"
    options: dict[str, Any] = Field(default_factory=dict)


class PreTextConfig(BackendConfig):
    """Stage A: a multimodal model captions a sample of the training images."""

    samples: Positive = 5000
    text: BackendConfig | None = None  # the text model that simplifies captions; none: rules
    retry_refused: bool = False


class PreTrainConfig(Section):
    """Stage B: the captioner learns from stage A's captions."""

    pretrained: str = "checkpoint/model_base_caption_capfilt_large.pth"
    tokenizer: str | None = None  # none: model.tokenizer
    image_size: tuple[Positive, Positive] | None = None  # none: model.image_size
    init_lr: Rate = 1e-5
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    lr_warmup_steps: Count = 0
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    max_epoch: Positive = 10
    batch_size: Positive = 32
    label_smoothing: Fraction = 0.1
    dropout: Fraction | None = None  # of the captioner's text stack; none: model.dropout
    freeze_image_encoder: bool = False  # it stays as it starts, which saves its backward pass


class GenTextConfig(Section):
    """Stage C: the captioner captions every training image twice."""

    # pre_captions: use stage A's texts as they are; both: those, and the captioner's for the images that have none
    source: Literal["captioner", "pre_captions", "both"] = "captioner"
    batch_size: Positive = 32
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    top_k: Count = 0  # before the nucleus, as transformers' generate did with 50; 0: off
    repetition_penalty: Annotated[float, Field(ge=1)] = 1.1
    min_length: Count = 40
    max_length: Positive = 77
    attributes: BackendConfig | None = None  # the text model that groups attributes; none: rules
