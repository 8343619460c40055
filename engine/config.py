"""The typed configuration: YAML files merged left to right, then ``--set a.b=c``, then validated.

Defaults live here and nowhere else. A key that no field has is refused with the nearest known key and the
file it stands in, because a typo that is silently ignored costs a training run.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean

from data import DATASETS
from data.errors import UserError

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0)]


# ruamel reports most mistakes as YAMLError, and lets what its constructors raise on odd scalars through.
NOT_YAML = (
    YAMLError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    AssertionError,
    NotImplementedError,
    RecursionError,
)


class ConfigError(UserError):
    """A configuration that can't be used; the message names the file, the key and the remedy."""


class Section(BaseModel):
    """A group of settings; unknown keys are refused and values are checked on every assignment."""

    model_config = ConfigDict(
        extra="forbid", validate_assignment=True, protected_namespaces=(), allow_inf_nan=False
    )


class SynthesisConfig(Section):
    """Demo pedestrians, drawn when the data set's folder is not there yet (``synthesis.demo``)."""

    train: Positive = 400
    val: Count = 50
    test: Positive = 100
    images: Positive = 4
    seed: Count = 0
    world: Literal["street", "source", "target"] = "street"  # synthesis/drawn/worlds.py


class DatasetConfig(Section):
    """Which images; see ``docs/datasets.md`` for the layout on disk."""

    name: str = "cuhk_pedes"  # a class in data/
    tag: str = ""  # short name in output paths; empty: the data set's name
    root: str = "datasets"
    synthesis: SynthesisConfig | None = None
    image_cache: bool = True  # decode and resize once, train from a memory map
    skip_unreadable: bool = False

    @field_validator("name")
    @classmethod
    def _is_there(cls, value: str) -> str:
        """Refused here, because the first stage that opens the data set may come hours later."""
        if value not in DATASETS:
            raise ValueError(f"There is no such data set; choose one of {', '.join(DATASETS)}")
        return value

    @property
    def label(self) -> str:
        """The name used in paths and results."""
        return self.tag or self.name


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
    decay_vectors: bool = (
        False  # biases and normalisation as well, as BLIP's methods' released code; no warm-up does
    )
    betas: tuple[Decay, Decay] = (0.9, 0.999)  # AdamW's, as eps
    eps: Rate = 1e-8
    average: Decay = (
        0.0  # of the weights over the steps, evaluated, kept and labelled with instead of the last; 0: none
    )
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


class SourceConfig(DatasetConfig):
    """Another data set, whose training images and captions every round's model encodes for the clustering's source term."""

    captions: Literal["own", "generated"] = "own"
    pre_gen_data: str = ""  # folder of the generated ones; empty: pre_gen_data/<its tag or name>


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
    agreement: Fraction = (
        0.0  # the share of matched samples that a vote takes (docs/clustering.md); 0: the paper's rule
    )
    captions: Literal["base", "styled", "fixed"] | None = (
        None  # which generated captions; none: those that are clustered
    )
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


class PartConfig(Section):
    """A part of `gen_images` by its backend; keys that are not named here are that backend's own options (docs/synthesis.md)."""

    model_config = ConfigDict(extra="allow")

    @property
    def options(self) -> dict[str, Any]:
        """Of the backend's constructor."""
        return dict(self.__pydantic_extra__ or {})


class GeneratorConfig(PartConfig):
    """What makes images from prompts."""

    backend: Literal["drawn", "diffusers"] = "drawn"


class FilterConfig(PartConfig):
    """What finds people in generated images, of which one whole one is kept; none: every image is kept as it is."""

    backend: Literal["none", "torchvision", "ultralytics"] = "none"
    confidence: Fraction = 0.5  # above which a key point is seen


class EditorConfig(PartConfig):
    """What edits images."""

    backend: Literal["drawn", "instruct_pix2pix"] = "drawn"


class EditsConfig(Section):
    """How many edits of each kind an image gets."""

    background: Annotated[int, Field(ge=0, le=6)] = 0
    weather: Annotated[int, Field(ge=0, le=3)] = 0
    style: Annotated[int, Field(ge=0, le=5)] = 0
    posture: Annotated[int, Field(ge=0, le=5)] = 0


class ImageCaptionsConfig(BackendConfig):
    """The captions of generated images: one shape for all, or a template of 150 drawn for each."""

    kind: Literal["constant", "variable"] = "variable"


class GenImagesConfig(Section):
    """A synthetic training set, from prompts to captioned images (``docs/synthesis.md``)."""

    root: str = "datasets/synthetic"
    seed: Count = 0  # of prompts, images, edits and templates; runs with other seeds share the set
    generator: GeneratorConfig = Field(default_factory=GeneratorConfig)
    text: BackendConfig | None = None  # the text model that writes prompts of the families but plain
    families: dict[Literal["plain", "appearance", "profession", "location", "state"], Share] = Field(
        default_factory=lambda: {"plain": 1.0}
    )
    colours: bool = False  # plain prompts name colours
    prompts: Positive = 20000
    per_prompt: Positive = 5
    identity: Literal["image", "prompt"] = "image"
    filter: FilterConfig = Field(default_factory=FilterConfig)
    editor: EditorConfig = Field(default_factory=EditorConfig)
    edits: EditsConfig = Field(default_factory=EditsConfig)
    scenario: Literal["none", "few", "all"] = "none"  # whose look a personalised generator has learned
    captions: ImageCaptionsConfig = Field(default_factory=ImageCaptionsConfig)
    batch_size: Positive = 16  # images at a time; none depends on it

    @field_validator("families")
    @classmethod
    def _can_be_written(cls, value: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        written = [name for name, share in value.items() if share and name != "plain"]
        text = info.data.get("text")
        if written and (text is None or text.backend == "palette"):
            raise ValueError(
                f"Prompts of the families {', '.join(written)} are written by a text model: set gen_images.text to one, such as "
                "{backend: openai, options: {...}}, or keep to plain prompts"
            )
        if not any(value.values()):
            raise ValueError("One family at least needs a share above 0")
        return value

    @field_validator("edits")
    @classmethod
    def _can_be_made(cls, value: EditsConfig, info: ValidationInfo) -> EditsConfig:
        generator, editor, chosen = (info.data.get(name) for name in ("generator", "editor", "filter"))
        if None in (generator, editor, chosen) or not any(value.model_dump().values()):
            return value
        if editor.backend == "drawn" and (generator.backend != "drawn" or chosen.backend != "none"):
            raise ValueError(
                "The drawn editor draws people again from their prompts, so it edits what the drawn generator made, uncropped; set "
                "gen_images.editor to {backend: instruct_pix2pix}, or generator to {backend: drawn} and filter to {backend: none}"
            )
        return value


class RuntimeConfig(Section):
    """How to run; nothing here changes a result beyond rounding."""

    device: str = "auto"  # auto, cpu, cuda; a single process may name a card, cuda:1
    precision: Literal["auto", "fp32", "bf16"] = (
        "auto"  # of the networks' bodies; auto: bf16 on GPUs that have it, and on CPUs for captioning and search
    )
    linear: Literal["auto", "onednn", "torch"] = (
        "auto"  # who computes large products on a CPU; auto: the faster
    )
    compile: bool = False  # training steps, by torch.compile; dropout then draws otherwise
    workers: Positive = 2
    threads: Count = 0  # 0: leave torch's own choice


# Steps and rate where a configuration names none: SynTBPR's for "all", those of diffusers' guide to DreamBooth for "few".
_PERSONAL_STEPS = {"none": 0, "few": 800, "all": 4000}
_PERSONAL_RATE = {"none": 0.0, "few": 5e-6, "all": 1e-4}


class PersonaliseConfig(Section):
    """A text-to-image model that learns the look of real people (``engine/personalisation.py``)."""

    scenario: Literal["none", "few", "all"] = "none"  # few: DreamBooth; all: adapters and new words
    model: str = "checkpoint/stable-diffusion-v1-5"
    identities: Positive | list[Count] = 10  # few: which, or how many that the seed draws
    steps: Positive | None = None
    init_lr: Rate | None = None
    word_lr: Rate = 5e-4  # all: of the new words
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    batch_size: Positive = 4
    size: Positive = 512
    rank: Positive = 8  # all: of the adapters
    prior_images: Count = 200  # few: of other people, that the plain model makes first
    prior_weight: Annotated[float, Field(ge=0)] = 1.0
    prior_steps: Positive = 50
    recompute: bool = True  # activations, to save memory
    log_every: Positive = 10  # steps
    save_minutes: Annotated[float, Field(gt=0)] = 10.0

    @property
    def training(self) -> tuple[int, float]:
        """Steps and rate of the scenario."""
        return self.steps or _PERSONAL_STEPS[self.scenario], self.init_lr or _PERSONAL_RATE[self.scenario]


class Config(Section):
    """Everything a run needs. In ``run`` and ``pre_gen_data`` ``{seed}``, ``{method}`` and ``{dataset}`` stand for theirs."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    run: str = ""  # folder under output/; empty: <dataset>-<method>[-seed<N>]
    output: str = "output"
    pre_gen_data: str = ""  # folder of the generated captions; empty: pre_gen_data/<dataset>
    dataset: DatasetConfig = Field(default_factory=DatasetConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    gen_images: GenImagesConfig | None = None  # none: no synthetic images are made
    gen_pre_train_text: PreTextConfig = Field(default_factory=PreTextConfig)
    pre_train: PreTrainConfig = Field(default_factory=PreTrainConfig)
    gen_text: GenTextConfig = Field(default_factory=GenTextConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    cluster: ClusterConfig = Field(default_factory=ClusterConfig)
    correction: CorrectionConfig = Field(default_factory=CorrectionConfig)
    test: TestConfig = Field(default_factory=TestConfig)
    personalise: PersonaliseConfig = Field(default_factory=PersonaliseConfig)
    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig)

    @property
    def run_directory(self) -> Path:
        """``output/<run>``: everything a run writes, except the captions that runs share."""
        suffix = f"-seed{self.seed}" if self.seed else ""
        return Path(self.output) / self._named(
            self.run or f"{self.dataset.label}-{self.model.method}{suffix}"
        )

    @property
    def caption_directory(self) -> Path:
        """Where stages A and C keep their captions."""
        return Path(self._named(self.pre_gen_data or f"pre_gen_data/{self.dataset.label}"))

    def _named(self, template: str) -> str:
        names = {
            "{seed}": str(self.seed),
            "{method}": self.model.method,
            "{dataset}": self.dataset.label,
        }
        for name, value in names.items():
            template = template.replace(name, value)
        return template

    @property
    def captioner_directory(self) -> Path:
        """Where stage B keeps the captioner: it belongs to the captions, which several runs may share."""
        return Path(self.output) / f"captioner-{self.caption_directory.name}"

    def digest(self, *sections: str) -> str:
        """Short hash of the named sections: tells whether a finished stage was run with these settings."""
        chosen = {name: self.model_dump(mode="json")[name] for name in sections}
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:16]


def load_config(paths: str | Path | Iterable[str | Path], overrides: Sequence[str] = ()) -> Config:
    """Read and merge YAML files, apply ``key.path=value`` overrides, and validate.

    Args:
        paths: one file or several; later files win, key by key.
        overrides: strings such as ``"train.max_epoch=3"``; values are read as YAML.

    Raises:
        ConfigError: a file that is missing or not YAML, an unknown key, a value of the wrong kind.
    """
    files = [paths] if isinstance(paths, (str, Path)) else list(paths)
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for file in files:
        _merge_source(merged, _read_yaml(Path(file)), str(file), origins)
    for override in overrides:
        _merge_source(merged, _parse_override(override), f"--set {override}", origins)
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(_first_problem(error, origins)) from None


def save_config(config: Config, path: Path) -> None:
    """Write the resolved configuration as YAML, so that a result can be run again from its own folder."""
    yaml = YAML()
    yaml.default_flow_style = False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        yaml.dump(config.model_dump(mode="json"), stream)
    temporary.replace(path)


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        content = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = sorted(str(p) for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        hint = f"; there are {', '.join(known)}" if known else ""
        raise ConfigError(f"The configuration file {path} does not exist{hint}.") from None
    except OSError as error:
        raise ConfigError(f"The configuration file {path} can't be read: {error.strerror}.") from None
    except NOT_YAML as error:
        raise ConfigError(f"{path} is not readable as YAML: {_reason(error)}") from None
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path} must hold sections such as 'dataset:' and 'train:', not {content!r:.60}.")
    return content


def _reason(error: Exception) -> str:
    """A parser's complaint in one line, without the advice that it gives to programmers."""
    return " ".join(str(error).split("To suppress this check")[0].split())


def _parse_override(text: str) -> dict[str, Any]:
    key, separator, value = text.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise ConfigError(f"--set needs KEY=VALUE such as train.max_epoch=3, not {text!r}.")
    try:
        content: Any = YAML(typ="safe", pure=True).load(value)
    except NOT_YAML as error:
        raise ConfigError(
            f"The value in --set {text!r:.200} is not valid YAML: quote it ({_reason(error):.200})."
        ) from None
    for part in reversed(parts):
        content = {part: content}
    return content


def _merge_source(
    merged: dict[str, Any], source: Mapping[str, Any], origin: str, origins: dict[str, str]
) -> None:
    try:
        _merge(merged, source, Config, origin, origins)
    except RecursionError:
        raise ConfigError(
            f"{origin:.200} is nested too deeply, or an alias in it refers to itself."
        ) from None


def _merge(
    target: dict[str, Any],
    source: Mapping[str, Any],
    model: type[BaseModel] | None,
    origin: str,
    origins: dict[str, str],
    prefix: str = "",
) -> None:
    """Merge ``source`` into ``target`` in place, refusing keys that ``model`` (None: free keys) does not have."""
    for key, value in source.items():
        path = f"{prefix}{key}"
        place = _place(source, key, origin)
        if model is not None and key not in model.model_fields and not _takes_more(model):
            raise ConfigError(_unknown_key(str(key), prefix, model, place))
        section = _section_of(model, key)
        if isinstance(value, Mapping):
            slot = target.setdefault(str(key), {})
            if not isinstance(slot, dict):
                slot = target[str(key)] = {}
            _merge(slot, value, section, origin, origins, f"{path}.")
        elif value is None and _holds_keys_only(model, key):
            continue  # a section whose lines are all commented out
        elif section is not None and value is not None and not _takes_text(model, key):
            raise ConfigError(
                f"'{path}' ({place}) is a section and takes keys such as '{path}.{next(iter(section.model_fields))}', "
                f"not {value!r:.60}."
            )
        else:
            target[str(key)] = _plain(value, f"'{path}' ({place})")
        origins[path] = place


def _takes_more(model: type[BaseModel]) -> bool:
    """Whether a section takes keys that it does not name."""
    return model.model_config.get("extra") == "allow"


def _annotation_of(model: type[BaseModel] | None, key: str) -> Any:
    """What a field takes; None for free keys."""
    field = None if model is None else model.model_fields.get(key)
    return None if field is None else field.annotation


def _holds_keys_only(model: type[BaseModel] | None, key: str) -> bool:
    """True for a field that is a section or free keys and can't be None."""
    annotation = _annotation_of(model, key)
    return get_origin(annotation) is dict or (
        isinstance(annotation, type) and issubclass(annotation, BaseModel)
    )


def _takes_text(model: type[BaseModel], key: str) -> bool:
    """True for a field that may be a text in the place of a section."""
    return str in get_args(model.model_fields[key].annotation)


def _section_of(model: type[BaseModel] | None, key: str) -> type[BaseModel] | None:
    """The section class behind a field (also behind ``Section | None``), or None for plain values."""
    annotation = _annotation_of(model, key)
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _plain(value: Any, place: str) -> Any:
    """ruamel's round-trip types as plain Python; what a saved configuration could not hold is refused."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(item, place) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, place) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{place} has the value {value!r}: give a finite number.")
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, ScalarBoolean):
        return bool(value)
    raise ConfigError(
        f"{place} has a value of the kind {type(value).__name__}, which no setting takes: quote it to make it a text."
    )


def _place(source: Mapping[str, Any], key: Any, origin: str) -> str:
    position = getattr(source, "lc", None)
    try:
        return f"{origin}, line {position.key(key)[0] + 1}" if position is not None else origin
    except (KeyError, TypeError, AttributeError):
        return origin


def _known_paths(model: type[BaseModel], prefix: str = "") -> list[str]:
    paths = []
    for name in model.model_fields:
        paths.append(prefix + name)
        section = _section_of(model, name)
        if section is not None:
            paths.extend(_known_paths(section, f"{prefix}{name}."))
    return paths


def _unknown_key(key: str, prefix: str, model: type[BaseModel], place: str) -> str:
    nearest = difflib.get_close_matches(key, list(model.model_fields), n=1, cutoff=0.5)
    if nearest:
        hint = f"did you mean '{prefix}{nearest[0]}'?"
    else:
        elsewhere = [path for path in _known_paths(Config) if path.split(".")[-1] == key]
        here = ", ".join(sorted(model.model_fields))
        hint = f"did you mean '{elsewhere[0]}'?" if elsewhere else f"known here: {here}."
    return f"Unknown key '{prefix}{key}' ({place}): {hint}"


def _first_problem(error: ValidationError, origins: Mapping[str, str]) -> str:
    """The first setting that is wrong: its value, where it stands, and what it should be."""
    problems = error.errors()
    path = _written_path(problems[0], origins)
    if not path:
        return f"'{'.'.join(map(str, problems[0]['loc']))}': {problems[0]['msg']}."
    # A setting of several kinds ("auto" or a number) has one problem for each of them.
    wanted = [_message(problem) for problem in problems if _written_path(problem, origins) == path]
    message = " or ".join(dict.fromkeys(message[0].lower() + message[1:] for message in wanted))
    return f"'{path}' ({origins[path]}) has the value {problems[0]['input']!r:.80}: {message}."


def _message(problem: Mapping[str, Any]) -> str:
    """What is wrong; of a check of our own what it says, without pydantic's "Value error" before it."""
    return str(problem["ctx"]["error"]) if problem["type"] == "value_error" else problem["msg"]


def _written_path(problem: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    """The longest part of a problem's path that somebody wrote; empty where nobody did."""
    path = ""
    for part in problem["loc"]:  # which of several kinds a setting is taken for stands among the keys
        longer = f"{path}.{part}".strip(".")
        path = longer if longer in origins else path
    return path
