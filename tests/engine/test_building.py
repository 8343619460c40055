"""From the configuration to a model: what is refused before anything long starts, and what a model is given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from data.errors import UserError
from engine.building import (
    BACKBONE_SETTINGS,
    backbone_options,
    captioner_method,
    check_model,
    method_class,
    new_captioner,
    new_model,
    reads_captions,
    supervision,
)
from engine.config import load_config
from engine.material import caption_kinds
from models import METHODS, Captioner

REPOSITORY = Path(__file__).resolve().parents[2]


def test_a_size_that_the_backbone_does_not_come_in_is_refused(config):
    config.model.size = "huge"
    with pytest.raises(UserError, match="comes in tiny, base, large, not in 'huge'"):
        check_model(config)


def test_an_option_that_nobody_has_is_refused(config):
    config.model.options = {"local_wieght": 0}
    with pytest.raises(UserError, match="no option local_wieght"):
        check_model(config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"arch": "ViT-L14"},
            r"knows no architecture 'ViT-L14': the nearest .*ViT-L-14,.* \(model and model",
        ),
        ({"arch": "vit-b-16"}, r"knows no architecture 'vit-b-16': .* are ViT-B-16,"),
        ({"arch": "RN50"}, r"'RN50' is no CLIP of two transformers .*the nearest"),
        ({"text_length": 32}, r"text_length is 32: CLIP has 77 positions"),
        ({"text_length": "long"}, r"text_length is 'long': .* whole number of 77 or more"),
        ({"selected_share": 30}, r"selected_share is 30: .* 0 < share <= 1 \(model and model\.options\)"),
    ],
    ids=str,
)
def test_a_value_that_can_not_be_is_refused_early(options, message, config):
    config.model.method, config.model.options = "rde", options
    with pytest.raises(UserError, match=message):
        check_model(config)


def test_values_that_can_be_are_taken(config):
    config.model.method = "rde"
    config.model.options = {"arch": "ViT-L-14-quickgelu", "text_length": 248, "selected_share": 0.5}
    check_model(config)


@pytest.mark.integration
def test_a_check_without_an_architecture_does_not_import_open_clip():
    code = (
        "import sys; from engine.building import check_model; from engine.config import load_config; "
        "check_model(load_config(['configs/methods/irra.yaml'], ['model.options={text_length: 100}'])); "
        "assert 'open_clip' not in sys.modules"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_weights_of_pairs_are_refused_for_a_method_that_has_no_use_for_them(config, monkeypatch):
    config.train.pair_weights = "mixture"
    check_model(config)
    monkeypatch.setattr(method_class(config.model.method), "weighs_pairs", False)
    with pytest.raises(UserError, match=r"do not weigh pairs: set train\.pair_weights to none"):
        check_model(config)


def test_settings_that_are_not_set_are_not_handed_over(config):
    assert backbone_options(config) == {}
    config.model.vit_grad_ckpt, config.model.dropout = False, 0.0
    assert backbone_options(config) == {"vit_grad_ckpt": False, "dropout": 0.0}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_its_own_configuration_or_says_what_does_not_fit(method, config):
    check_model(load_config([f"configs/methods/{method}.yaml"]))
    kind = method_class(method)
    for name in BACKBONE_SETTINGS:
        setattr(config.model, name, 0)
    config.model.method = method
    if kind.backbone == Captioner.backbone:
        check_model(config)
    else:
        with pytest.raises(UserError, match="vit_grad_ckpt"):
            check_model(config)


@pytest.mark.parametrize("method", METHODS)
def test_supervision_is_the_methods_own_unless_it_is_set(method, config):
    config.model.method = method
    own = method_class(method).supervision
    assert reads_captions(config) == (own == "labels")
    config.train.supervision = "pseudo"
    assert not reads_captions(config)
    assert caption_kinds(config)
    for rung in ("pairs", "labels"):
        config.train.supervision = rung
        assert reads_captions(config)
        assert supervision(config) == rung


@pytest.mark.parametrize("method", METHODS)
def test_the_captioner_starts_from_a_warm_up_on_its_own_backbone(method, config):
    config.model.method = method
    start = captioner_method(config)
    assert METHODS[start].backbone == Captioner.backbone
    assert start == method or method_class(method).backbone != Captioner.backbone


def test_another_methods_model_gets_none_of_the_options(config, machine, tokenizer):
    config.model.options = {"local_weight": 0.0}
    assert new_model(config, machine, tokenizer).options == {"local_weight": 0.0}
    assert new_model(config, machine, tokenizer, "tsn").options == {}


def test_the_captioners_dropout_is_its_own(config, tokenizer):
    def varies() -> bool:
        captioner = new_captioner(config, tokenizer).train()
        tokens, ids = torch.randn(2, 5, 128), torch.ones(2, 6, dtype=torch.int64)
        return not torch.equal(captioner.logits(tokens, ids), captioner.logits(tokens, ids))

    config.model.dropout, config.pre_train.dropout = 0.3, 0.0
    assert not varies()
    config.pre_train.dropout = None
    assert varies()


def test_nothing_random_is_frozen():
    weightless = ["model.pretrained=''", "train.frozen=[text]"]
    config = load_config(["configs/methods/pspd.yaml", "configs/cuhk.yaml"], weightless)
    with pytest.raises(
        UserError, match=r"train\.frozen would keep random weights: name weights in model\.pretrained"
    ):
        check_model(config)
    check_model(load_config(["configs/methods/pspd.yaml", "configs/demo.yaml"], ["train.frozen=[text]"]))
    check_model(load_config(["configs/methods/pspd.yaml", "configs/cuhk.yaml"], ["train.frozen=[image]"]))
