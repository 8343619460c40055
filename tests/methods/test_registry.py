"""Methods are found by being there, built by name, and loaded whole or not at all."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import method_examples as example
import pytest
import torch

import models.methods
from engine.config import load_config
from models import METHODS, build_model, load_weights
from models.methods.base import Method
from models.registry import Methods

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_methods_are_there():
    assert {"pspd", "tsn", "cada", "ssan"} <= set(METHODS)
    assert all(kind.name == name for name, kind in METHODS.items())


def test_one_more_file_is_one_more_method(tmp_path, monkeypatch):
    code = "from models.methods.pspd import PSPD\n\nclass Another(PSPD):\n    name = 'another'\n"
    (tmp_path / "another.py").write_text(code)
    monkeypatch.setattr(models.methods, "__path__", [*models.methods.__path__, str(tmp_path)])
    found = Methods(models.methods)
    assert set(found) == {*METHODS, "another"}
    assert "models.methods.another" not in sys.modules  # until it is asked for
    assert issubclass(found["another"], METHODS["pspd"])
    sys.modules.pop("models.methods.another")


def test_a_method_is_one_file_a_configuration_and_a_page():
    for name, kind in METHODS.items():
        assert kind.__module__ == f"models.methods.{name}"
        assert (REPOSITORY / "docs" / "methods" / f"{name}.md").is_file()
        assert load_config(REPOSITORY / "configs" / "methods" / f"{name}.yaml").model.method == name
    for folder in ("docs", "configs"):
        assert {path.stem for path in (REPOSITORY / folder / "methods").iterdir()} == set(METHODS)


def test_no_other_room_names_a_method():
    """Or a new method would need a line there, too: what others need to know of it, it says itself."""
    names = set(METHODS) - {"pspd"}  # the project's own name, of its log and its default
    for room in ("engine", "retrieval", "captioning", "clustering", "losses", "data"):
        for path in (REPOSITORY / room).rglob("*.py"):
            nodes = ast.walk(ast.parse(path.read_text("utf-8")))
            assert not names & {node.value for node in nodes if isinstance(node, ast.Constant)}, path


def test_no_such_method():
    with pytest.raises(ValueError, match=r"no method 'psdp'; choose one of .*pspd"):
        build_model("psdp")


@pytest.mark.parametrize("method", example.all_methods())
def test_no_such_option(method, words):
    with pytest.raises(ValueError, match=r"no option local_wieght; it has .*image_size"):
        example.build(method, words, local_wieght=1)


@pytest.mark.parametrize("method", example.all_methods())
def test_weights_come_back_as_they_were(method, words):
    model, other = example.model(method, words), example.model(method, words)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    load_weights(other, model.state_dict())
    for name, value in model.state_dict().items():
        assert other.state_dict()[name].equal(value), name


@pytest.mark.parametrize("method", example.all_methods())
@pytest.mark.parametrize("source", example.all_methods())
def test_weights_of_another_method_are_refused_by_name(source, method, words):
    if source == method:
        return
    model = example.model(method, words)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=rf"not one of a '{method}' model") as caught:
        load_weights(model, example.model(source, words).state_dict())
    parts = {name: lasting_parts(example.model(name, words)) for name in (method, source)}
    for lacked in parts[method] - parts[source]:
        assert lacked in str(caught.value).split("extra")[0]
    for extra in parts[source] - parts[method]:
        assert extra in str(caught.value).split("extra")[1]
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def lasting_parts(model: Method) -> set[str]:
    """The modules whose weights a checkpoint of the model must have."""
    return {name.split(".")[0] for name in model.state_dict() if not name.startswith(model.round_keys)}


def test_weights_of_another_image_size_are_refused_by_shape(words):
    larger = example.build("pspd", words, image_size=(64, 16))
    with pytest.raises(
        ValueError, match=r"visual_encoder.pos_embed is \(1, 17, 128\) instead of \(1, 9, 128\)"
    ):
        load_weights(example.model("pspd", words), larger.state_dict())


def test_a_classifier_of_another_round_does_not_matter(words):
    trained, fresh = example.model("tsn", words), example.build("tsn", words)
    trained.set_identities(17)
    load_weights(fresh, trained.state_dict())
    assert fresh.vision_proj.weight.equal(trained.vision_proj.weight)
    load_weights(example.model("tsn", words), trained.state_dict())
