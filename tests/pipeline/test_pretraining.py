"""Pre-training in miniature: stopped and resumed it ends in the same bits, and its one file is a start for both models."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import torch

from data import load_dataset
from data.errors import UserError
from engine import checkpoints
from engine.building import new_captioner
from engine.config import Config, load_config
from engine.distributed import Interrupted
from engine.log import start_logging
from engine.machine import make_machine
from engine.pretraining import RESULT, pretrain
from engine.sources import open_tokenizer
from engine.stage import Context
from models import Captioner, build_model
from models.backbones.blip.tokenizer import BlipTokenizer
from models.texts import clean_caption

pytestmark = pytest.mark.integration
SETTINGS = (
    "dataset.synthesis.train=8",
    "dataset.synthesis.val=2",
    "dataset.synthesis.test=2",
    "dataset.synthesis.images=2",
    "model.image_size=[48,24]",
    "pre_train.max_epoch=1",
    "pre_train.batch_size=8",
    "train.batch_size=8",
    "train.max_epoch=1",
    "train.warm_up.max_epoch=1",
    "runtime.device=cpu",
    "runtime.workers=1",
)


@dataclass
class StopAfter:
    """A wish to stop that comes with the nth question for it, as a signal would."""

    questions: int
    received: int = 15

    def __bool__(self) -> bool:
        self.questions -= 1
        return self.questions < 0


def _config(root, datasets, *more: str) -> Config:
    places = [f"output={root}/output", f"pre_gen_data={root}/captions", f"dataset.root={datasets}"]
    return load_config("configs/pretraining.yaml", [*places, *SETTINGS, *more])


def _context(config: Config, stop=False) -> Context:
    start_logging()
    return Context(config, make_machine(config.runtime), stop)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    return tmp_path_factory.mktemp("source")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, datasets, messages_of_module) -> Config:
    config = _config(tmp_path_factory.mktemp("undisturbed"), datasets)
    pretrain(_context(config))
    return config


def _result(config: Config) -> dict:
    return checkpoints.load(config.run_directory / RESULT)


def test_stopped_again_and_again_it_ends_in_the_same_bits(finished, datasets, tmp_path, messages):
    config, stops = _config(tmp_path, datasets), 0
    while True:
        try:
            pretrain(_context(config, StopAfter(2 + stops)))
            break
        except Interrupted:
            stops += 1
            assert stops < 40
    assert stops >= 4  # in both parts of the warm-up, with the method's losses, and with the captioner's
    one, other = _result(finished), _result(config)
    assert list(one["model"]) == list(other["model"])
    for name, weight in one["model"].items():
        assert torch.equal(weight, other["model"][name]), name
    assert one["vocabulary"] == other["vocabulary"]


def test_a_second_run_does_nothing(finished, messages):
    path = finished.run_directory / RESULT
    before = path.stat().st_mtime_ns
    pretrain(_context(finished))
    assert path.stat().st_mtime_ns == before
    assert any("pretraining: already finished" in message for message in messages)


def test_the_file_is_in_half_precision_and_holds_no_weight_twice(finished):
    weights = _result(finished)["model"]
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
    places = [weight.data_ptr() for weight in weights.values()]
    assert len(set(places)) == len(places)
    assert (finished.run_directory / RESULT).stat().st_size < 2.1 * sum(
        w.numel() for w in weights.values()
    ) + 1e5


def test_both_models_start_from_it_with_all_of_their_weights(finished, tmp_path):
    path = finished.run_directory / RESULT
    tokenizer = open_tokenizer(BlipTokenizer, str(path), [], tmp_path, 100)
    model = build_model("pspd", size="tiny", image_size=(48, 24), tokenizer=tokenizer)
    report = model.load_pretrained(path)
    assert not report.missing
    assert not report.unexpected
    trained = checkpoints.load(finished.run_directory / "best.pth")["model"]
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, trained[name].half().float()), name

    captioner = Captioner("tiny", (48, 24), tokenizer)
    report = captioner.load_pretrained(path)
    assert not report.missing
    # A head of the method that pre-trained; the captioner has no use for it, and says so.
    assert all(name.startswith("itm_local_head.") for name in report.unexpected)
    trained = checkpoints.load(finished.captioner_directory / "captioner.pth")["model"]
    for name, weight in captioner.state_dict().items():
        assert torch.equal(weight, trained[name].half().float()), name


def test_another_method_starts_from_it_and_reports_what_it_lacks(finished, tmp_path):
    path = finished.run_directory / RESULT
    tokenizer = open_tokenizer(BlipTokenizer, str(path), [], tmp_path, 100)
    report = build_model("tsn", size="tiny", image_size=(48, 24), tokenizer=tokenizer).load_pretrained(path)
    assert any("itm_local_head" in name for name in report.unexpected)
    assert all(not name.startswith(("visual_encoder.", "text_encoder.")) for name in report.missing)


def test_another_image_size_takes_the_positions_by_the_grid_that_the_file_states(finished, tmp_path):
    path = finished.run_directory / RESULT
    tokenizer = open_tokenizer(BlipTokenizer, str(path), [], tmp_path, 100)
    model = build_model("pspd", size="tiny", image_size=(96, 32), tokenizer=tokenizer)
    assert model.load_pretrained(path).interpolated == ("visual_encoder.pos_embed",)
    before, after = _result(finished)["model"]["visual_encoder.pos_embed"], model.visual_encoder.pos_embed
    assert torch.equal(before[:, :1].float(), after[:, :1])
    wanted = torch.nn.functional.interpolate(
        before[:, 1:].float().reshape(1, 6, 3, -1).permute(0, 3, 1, 2), (12, 4), mode="bicubic"
    )
    torch.testing.assert_close(after[0, 1:], wanted[0].flatten(1).T, atol=1e-3, rtol=1e-2)


def test_the_image_encoder_is_one(finished):
    """The captioner learnt on the retrieval model's, which stayed as it was: so that one file can hold both."""
    trained = checkpoints.load(finished.captioner_directory / "captioner.pth")["model"]
    shared = checkpoints.load(finished.run_directory / "best.pth")["model"]
    names = [name for name in trained if name.startswith("visual_encoder.")]
    assert names
    assert all(torch.equal(trained[name], shared[name]) for name in names)


def test_the_vocabulary_comes_along_and_knows_every_word_that_was_taught(finished, tmp_path):
    path = finished.run_directory / RESULT
    tokenizer = open_tokenizer(BlipTokenizer, str(path), ["words of other captions"], tmp_path, 100)
    assert not list(tmp_path.iterdir())  # none was trained
    assert list(tokenizer.vocabulary) == _result(finished)["vocabulary"]
    dataset = load_dataset("cuhk_pedes", finished.dataset.root)
    for record in dataset.train:
        for caption in record.captions:
            assert set(tokenizer.words(caption)) >= {
                word.strip(",") for word in clean_caption(caption).split()
            }


def test_the_file_is_a_model_that_can_be_evaluated(finished):
    model, content = checkpoints.load_retrieval_model(finished.run_directory / RESULT)
    assert content["method"] == "pspd"
    assert next(model.parameters()).dtype == torch.float32
    assert json.loads(content["meta"]["pretraining"])["seed"] == 0


def test_a_file_of_another_vocabulary_is_refused(finished):
    tokenizer = BlipTokenizer.train(["a man in red", "a man in blue"], finished.run_directory / "other")
    with pytest.raises(ValueError, match=r"has a vocabulary of \d+ words, the tokenizer \d+"):
        new_captioner(finished, tokenizer).load_pretrained(finished.run_directory / RESULT)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("train.supervision=pseudo", "learns a data set's own captions"),
        ("model.method=ssan", "'ssan' is on resnet_lstm"),
    ],
)
def test_what_cannot_be_pre_trained_is_said_before_anything_is_drawn(tmp_path, messages, setting, words):
    with pytest.raises(UserError, match=words):
        pretrain(_context(_config(tmp_path, tmp_path / "datasets", setting)))
    assert not (tmp_path / "datasets").exists()


def test_the_state_of_an_unfinished_run_is_no_vocabulary(tmp_path):
    checkpoints.save(tmp_path / "last.pth", {"model": {}})
    with pytest.raises(UserError, match="holds no vocabulary"):
        open_tokenizer(BlipTokenizer, str(tmp_path / "last.pth"), [], tmp_path, 100)
    with pytest.raises(UserError, match="There is no checkpoint"):
        open_tokenizer(BlipTokenizer, str(tmp_path / "none.pth"), [], tmp_path, 100)
