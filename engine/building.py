"""From the configuration to a model: its method, its options, and whether they belong together."""

from __future__ import annotations

from typing import Any, Literal

import torch

from data.errors import UserError
from data.images import Pixels
from engine.config import Config
from engine.machine import Machine
from models import METHODS, Captioner, build_model, check_options
from models.methods.base import Method
from models.texts import TextTokenizer

# Settings of `model` that not every backbone has: handed over where they are set, refused by a backbone without them.
BACKBONE_SETTINGS = ("vit_grad_ckpt", "vit_ckpt_layer", "dropout")


def method_class(name: str) -> type[Method]:
    """The class behind ``model.method``.

    Raises:
        UserError: no such method.
    """
    if name not in METHODS:
        raise UserError(f"There is no method '{name}': set model.method to one of {', '.join(METHODS)}.")
    return METHODS[name]


def supervision(config: Config) -> Literal["zero-shot", "pseudo", "pairs", "labels"]:
    """What training learns from: what the configuration says, else what the method asks for.

    Raises:
        UserError: no such method.
    """
    asked = config.train.supervision
    return method_class(config.model.method).supervision if asked == "method" else asked


def reads_captions(config: Config) -> bool:
    """Whether training uses captions that come with its images, the data set's or a synthetic set's, and none that stages
    make of the data set's images.

    Raises:
        UserError: no such method.
    """
    return supervision(config) in ("pairs", "labels") or config.train.data == "synthetic"


def pixels_of(model: Method | Captioner | type[Method]) -> Pixels:
    """How a model's backbone wants its images."""
    return Pixels(model.pixel_mean, model.pixel_std, model.interpolation)


def backbone_options(config: Config) -> dict[str, Any]:
    """The settings of `model` that are one backbone's own, as far as they are set."""
    chosen = {name: getattr(config.model, name) for name in BACKBONE_SETTINGS}
    return {name: value for name, value in chosen.items() if value is not None}


def check_model(config: Config) -> None:
    """Refuse a model that can't be built, before a stage spends hours on what comes before it.

    Raises:
        UserError: no such method or size, or a setting or option that neither the method nor its backbone has or a value of
            it that they know to be wrong, or weights of pairs for a method that does not weigh them, or data that do not go
            with the supervision, or a first token of matched texts for a method that matches none, or encoders frozen at
            random weights.
    """
    settings, kind = config.model, method_class(config.model.method)
    if settings.size not in kind.sizes:
        raise UserError(
            f"The method '{settings.method}' comes in {', '.join(kind.sizes)}, not in '{settings.size}': set model.size."
        )
    if supervision(config) == "zero-shot" and not (settings.pretrained and settings.tokenizer):
        raise UserError(
            "Without training a model is what its pre-trained weights and their vocabulary make of it: name both, in "
            "model.pretrained and model.tokenizer, or choose another train.supervision."
        )
    _check_data(config)
    if config.train.val_identities and supervision(config) != "labels":
        raise UserError(
            "train.val_identities holds out identities, which only train.supervision=labels may read: set it to 0."
        )
    if config.train.pair_weights != "none" and not kind.weighs_pairs:
        raise UserError(
            f"The losses of the method '{settings.method}' do not weigh pairs: set train.pair_weights to none."
        )
    if settings.pretrained == "" and config.train.frozen and not config.train.warm_up.max_epoch:
        raise UserError(
            "train.frozen would keep random weights: name weights in model.pretrained, or let a train.warm_up come first."
        )
    if config.correction.first_token != "enc" and not kind.has_matching:
        raise UserError(
            f"The method '{settings.method}' matches no texts with images: set correction.first_token to enc."
        )
    try:
        check_options(settings.method, {**backbone_options(config), **settings.options})
    except ValueError as error:
        raise UserError(f"{error} (model and model.options)") from None


def _check_data(config: Config) -> None:
    """Refuse a choice of `train.data` that can't be, or would not be what it says."""
    settings, data = config.train, config.train.data
    if data == "real":
        return
    if config.gen_images is None:
        raise UserError(
            f"train.data={data} learns from a synthetic data set, and none is named: set gen_images.root to its folder."
        )
    if supervision(config) == "zero-shot":
        raise UserError(
            f"Nothing is trained with train.supervision=zero-shot, so train.data={data} means nothing: set it to real."
        )
    if data == "synthetic" and config.gen_images.scenario == "all":
        raise UserError(
            "gen_images.scenario=all has read real captions, so it is no train.data=synthetic: use mixed or synthetic_then_real."
        )
    if data == "synthetic" and settings.val_identities:
        raise UserError(
            "train.val_identities holds out images of the real train split, of which train.data=synthetic opens none: set it "
            "to 0."
        )
    if data != "synthetic" and supervision(config) != "labels" and settings.rounds == 0:
        raise UserError(
            f"Without rounds nothing is learnt from the data set's images, so train.data={data} is not what would happen: set "
            "train.rounds, or train.data=synthetic."
        )


def captioner_method(config: Config) -> str:
    """A method on the captioner's backbone, whose warm-up the captioner can start from: the configured one, if it is."""
    if method_class(config.model.method).backbone == Captioner.backbone:
        return config.model.method
    return next(name for name, kind in METHODS.items() if kind.backbone == Captioner.backbone)


def new_model(config: Config, machine: Machine, tokenizer: TextTokenizer, method: str = "") -> Method:
    """A method's model with random weights, on the device.

    Args:
        method: another than the configured one, which then has the size and image size and none of the options.
    """
    settings, own = config.model, method in ("", config.model.method)
    torch.manual_seed(config.seed)
    model = build_model(
        method or settings.method,
        size=settings.size,
        image_size=settings.image_size,
        tokenizer=tokenizer,
        **(backbone_options(config) | settings.options if own else {}),
    )
    model.options = dict(settings.options) if own else {}
    return machine.place(model)


def new_captioner(config: Config, tokenizer: TextTokenizer) -> Captioner:
    """The captioner with random weights, on the CPU."""
    shared = method_class(config.model.method).backbone == Captioner.backbone
    options = backbone_options(config) if shared else {}
    if config.pre_train.dropout is not None:
        options["dropout"] = config.pre_train.dropout
    torch.manual_seed(config.seed)
    image_size = config.pre_train.image_size or config.model.image_size
    return Captioner(config.model.size, image_size, tokenizer, **options)
