"""The retrieval model: its encoders, its training in rounds of clustering, its evaluation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from engine.config.dataset import SourceConfig
from engine.config.section import Count, Decay, Fraction, Positive, Rate, Section


class ModelConfig(Section):
    """The encoders. ``options`` go to the method's constructor, which refuses names it does not know."""

    method: str = "pspd"
    size: str = "base"  # one that the method's backbone comes in
    image_size: tuple[Positive, Positive] = (224, 224)  # height, width in pixels
    pretrained: str = "checkpoint/model_base.pth"  # empty: train from scratch after a warm-up
    # empty: a vocabulary trained on the captions; a checkpoint of this project: the one in it
    tokenizer: str = "checkpoint/bert-base-uncased"
    vocabulary_size: Annotated[int, Field(ge=100)] = 1500  # of the trained vocabulary, in word pieces
    # Not every backbone has these; none is the backbone's own default. More of a backbone's own are set in options.
    vit_grad_ckpt: bool | None = None
    vit_ckpt_layer: Count | None = None
    dropout: Fraction | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("image_size", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        """A single number means a square, as in the original configuration files."""
        return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


class WarmUpConfig(Section):
    """Training on generated pairs, every image its own class, where there are no pre-trained weights."""

    max_epoch: Count = 0
    matching_epochs: Count = 0  # after those, with matching
    init_lr: Rate = 1e-4
    lr_warmup_steps: Count = 0


class SyntheticTrainingConfig(Section):
    """What differs in the training on the synthetic set; none: the run's own."""

    max_epoch: Positive | None = None
    init_lr: Rate | None = None


class TrainConfig(Section):
    """Rounds of clustering and training, or one training where labels are there or none are made (``docs/training.md``)."""

    # zero-shot: nothing is trained; pseudo: generated captions and clusters; pairs: the data set's own captions without its
    # identities; labels: with them (upper bound)
    supervision: Literal["method", "zero-shot", "pseudo", "pairs", "labels"] = "method"
    captions: list[Literal["base", "styled", "fixed"]] | None = None  # none: the kinds the method asks for
    # real: the data set's images; synthetic: those of gen_images alone, with the captions and identities that these have;
    # synthetic_then_real: the own training starts from the weights of one on those; mixed: one training on both
    data: Literal["real", "synthetic", "synthetic_then_real", "mixed"] = "real"
    synthetic: SyntheticTrainingConfig = Field(default_factory=SyntheticTrainingConfig)
    rounds: Count = 5
    max_epoch: Positive = 30
    batch_size: Positive = 36  # GLOBAL, divided over the processes
    images_per_identity: Positive = 4  # pairs in a batch, where the sampler chooses identities
    sampler: Literal["random", "identity"] = "random"  # identity: P x K batches (engine/identity_batches.py)
    init_lr: Rate = 5e-6
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    lr_steps: list[Positive] = Field(default_factory=list)  # epochs; empty: a cosine from init_lr to min_lr
    lr_step_factor: Annotated[float, Field(gt=0, le=1)] = 0.1  # what each of them multiplies the rate by
    lr_warmup_steps: Count = 0
    lr_warmup_epochs: Annotated[float, Field(ge=0)] = 0.0  # the cosine begins after them
    lr_warmup_start: Fraction = 0.0  # the share of init_lr that a warm-up over epochs starts from
    schedule: Literal["epoch", "step"] = "epoch"  # whether the rate changes with every epoch or every step
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    # biases and normalisation as well, as BLIP's methods' released code; no warm-up does
    decay_vectors: bool = False
    betas: tuple[Decay, Decay] = (0.9, 0.999)  # AdamW's, as eps
    eps: Rate = 1e-8
    # of the weights over the steps, evaluated, kept and labelled with instead of the last; 0: none
    average: Decay = 0.0
    # Encoders that stay as they start, with their projections (docs/training.md); no warm-up or synthetic training heeds it
    frozen: list[Literal["image", "text"]] = Field(default_factory=list)
    warm_up: WarmUpConfig = Field(default_factory=WarmUpConfig)
    k_test: Positive = 16
    evaluate_every: Positive = 1  # epochs between evaluations on val
    val_identities: Count = 0  # of train, held out as val where a data set has none and labels are read
    # default: flip, crop and erase, with the two numbers below; pool: two mild operations instead (docs/training.md)
    augmentation: Literal["default", "pool"] = "default"
    random_erasing: Fraction = 0.5
    crop_padding: Count = 10  # pixels
    word_dropout: Fraction = 0.0  # of a caption's words, for features; matching reads all
    # What a pair counts whose caption may be wrong, told by its losses before each epoch (docs/training.md)
    pair_weights: Literal["none", "mixture", "consensus"] = "none"
    # Who says so: the method's losses, and how a caption agrees with the others of its label
    pair_opinions: Annotated[list[Literal["losses", "captions"]], Field(min_length=1)] = Field(
        default_factory=lambda: ["losses"]
    )
    log_every: Positive = 10  # steps
    save_minutes: Annotated[float, Field(gt=0)] = 10.0

    @field_validator("sampler")
    @classmethod
    def _fills_the_batch(cls, value: str, info: ValidationInfo) -> str:
        size, each = info.data.get("batch_size"), info.data.get("images_per_identity")
        if value == "identity" and size and each and size % each:
            raise ValueError(
                f"It takes train.images_per_identity = {each} pairs of each identity, which a train.batch_size of {size} "
                "is no multiple of; change one of the two"
            )
        return value

    @field_validator("lr_steps")
    @classmethod
    def _steps_or_a_cosine(cls, value: list[int], info: ValidationInfo) -> list[int]:
        if value and info.data.get("min_lr"):
            raise ValueError(
                "It takes the place of the cosine, which train.min_lr is the end of; set one of the two"
            )
        return value


class ClusterConfig(Section):
    """DBSCAN on re-ranked distances (``docs/clustering.md``)."""

    enabled: bool = True  # false: every image its own class, one training instead of rounds
    metric: Literal["profile", "jaccard"] = "profile"
    eps: Literal["auto"] | float = "auto"
    ratio: Fraction = 0.051
    lam: Fraction = 0.1
    min_samples: Positive = 4
    k1: Positive = 20
    k2: Positive = 6
    # A data set, or a .npy file of features (M, F) that stay as they are, F as wide as the method's; empty: no source term
    source: SourceConfig | str = ""


class CorrectionConfig(Section):
    """Cross-modal label correction."""

    enabled: bool = True
    k_tests: Positive = 26
    k: Positive = 20
    # the share of matched samples that a vote takes (docs/clustering.md); 0: the paper's rule
    agreement: Fraction = 0.0
    # which generated captions; none: those that are clustered
    captions: Literal["base", "styled", "fixed"] | None = None
    first_token: Literal["enc", "cls"] = "enc"  # of texts that are matched with images for it


class TestConfig(Section):
    """Evaluation."""

    split: Literal["val", "test"] = "test"
    k_test: Positive = 32
    batch_size: Positive = 64
    rank_lists: Count = 8  # queries in the picture
    # Record what the run would have reported with its epoch chosen on test, beside its result (docs/training.md)
    also_select_on_test: bool = False
    msm_weight: Fraction = 0.1  # of the texts in TSN's second protocol; 0: the plain one alone
