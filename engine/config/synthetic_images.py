"""A synthetic training set, and the text-to-image model that learns the look of real people for it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from engine.config.captions import BackendConfig
from engine.config.section import Count, Fraction, Positive, Rate, Section, Share


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
