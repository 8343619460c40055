"""Checkpoints appear whole or not at all, and never run what they hold."""

from __future__ import annotations

import os
import pickle

import pytest
import torch

from data.errors import UserError
from engine import checkpoints
from engine.checkpoints import CheckpointError
from models import build_model
from models.backbones.blip.captioner import BlipCaptioner

SIZE = {"size": "tiny", "image_size": (32, 16)}


@pytest.fixture
def retrieval(tokenizer):
    torch.manual_seed(0)
    return build_model("pspd", tokenizer=tokenizer, **SIZE)


def test_a_retrieval_model_comes_back_the_same(tmp_path, retrieval, tokenizer):
    path = tmp_path / "deep" / "best.pth"
    checkpoints.save(path, checkpoints.describe(retrieval, "pspd", "tiny", score=1.5))
    model, content = checkpoints.load_retrieval_model(path)
    assert (content["method"], content["meta"]) == ("pspd", {"score": 1.5})
    assert not model.training
    assert list(model.tokenizer.vocabulary) == list(tokenizer.vocabulary)
    for name, tensor in retrieval.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert os.listdir(path.parent) == ["best.pth"]


def test_a_captioner_comes_back_the_same_and_is_not_taken_for_a_retrieval_model(
    tmp_path, retrieval, tokenizer
):
    captioner, found = tmp_path / "captioner.pth", tmp_path / "best.pth"
    model = BlipCaptioner("tiny", (32, 16), tokenizer)
    checkpoints.save(captioner, checkpoints.describe(model, "captioner", "tiny"))
    checkpoints.save(found, checkpoints.describe(retrieval, "pspd", "tiny"))
    again, _ = checkpoints.load_captioner(captioner)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
    with pytest.raises(CheckpointError, match="holds a captioner"):
        checkpoints.load_retrieval_model(captioner)
    with pytest.raises(CheckpointError, match="not a captioner"):
        checkpoints.load_captioner(found)


def test_the_state_of_an_unfinished_run_is_no_model(tmp_path):
    checkpoints.save(tmp_path / "last.pth", {"phase": "round-0", "epoch": 1})
    with pytest.raises(CheckpointError, match="unfinished run"):
        checkpoints.load_retrieval_model(tmp_path / "last.pth")


def test_weights_of_another_model_are_named(tmp_path, retrieval, tokenizer):
    content = checkpoints.describe(retrieval, "pspd", "tiny")
    del content["model"]["vision_proj.weight"]
    checkpoints.save(tmp_path / "best.pth", content)
    with pytest.raises(CheckpointError, match=r"vision_proj\.weight"):
        checkpoints.load_retrieval_model(tmp_path / "best.pth")


class Payload:
    """Pickled, this makes a folder when it is read by a reader that trusts it."""

    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("plain_pickle", [True, False])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, plain_pickle):
    path, trace = tmp_path / "best.pth", tmp_path / "trace"
    content = {"format": checkpoints.FORMAT, "model": Payload(trace)}
    if plain_pickle:
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match="never run"):
        checkpoints.load(path)
    assert not trace.exists()


def test_truncated_and_foreign_files_are_one_sentence(tmp_path):
    path = tmp_path / "best.pth"
    checkpoints.save(path, {"model": {"weight": torch.randn(400)}})
    whole = path.read_bytes()
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match="damaged") as caught:
            checkpoints.load(path)
        assert "\n" not in str(caught.value)
    for foreign in ({"model": {}}, [1, 2], torch.zeros(3)):
        torch.save(foreign, path)
        with pytest.raises(CheckpointError, match="not a checkpoint of this project"):
            checkpoints.load(path)
    with pytest.raises(CheckpointError, match="train first"):
        checkpoints.load(tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match="train first"):
        checkpoints.load(tmp_path)


@pytest.mark.parametrize("failure", ["write", "fsync", "replace"])
def test_a_save_that_fails_leaves_the_file_before_it_and_nothing_else(tmp_path, monkeypatch, failure):
    path = tmp_path / "last.pth"
    checkpoints.save(path, {"epoch": 1})

    def fail(*args, **kwargs):
        if failure == "write":
            args[1].write(b"half of a checkpoint")
        raise OSError(28, "No space left on device")

    target = {"write": (torch, "save"), "fsync": (os, "fsync"), "replace": (type(path), "replace")}[failure]
    with monkeypatch.context() as patch:
        patch.setattr(*target, fail)
        with pytest.raises(CheckpointError, match="No space left on device") as caught:
            checkpoints.save(path, {"epoch": 2})
    assert isinstance(caught.value, UserError)
    assert checkpoints.load(path)["epoch"] == 1
    assert os.listdir(tmp_path) == ["last.pth"]
