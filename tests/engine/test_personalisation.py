"""Personalisation as a run: what it may see, stopped and resumed, done twice, and what its folder says."""

from __future__ import annotations

import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from data.errors import UserError
from engine import personalisation
from engine.config import load_config
from engine.distributed import Interrupted
from engine.personalisation import Batches, directory_of, examples_of, personalise
from engine.run import StopSignal
from engine.sources import open_dataset
from engine.stage import Context
from models.world import World

pytest.importorskip("diffusers", reason="personalisation needs pip install -r requirements-synthesis.txt")
pytest.importorskip("peft", reason="personalisation needs pip install -r requirements-synthesis.txt")

from safetensors.torch import load_file

from synthesis.generation.lora import ADAPTERS, WORDS
from synthesis.generation.personal import read_record
from tests.tiny_diffusion import save_pipeline

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_pipeline(tmp_path_factory.mktemp("tiny") / "sd")


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return tmp_path_factory.mktemp("people")


@pytest.fixture
def make_config(model, people, tmp_path):
    def make(scenario: str, *more: str, output: str = "output"):
        return load_config(
            "configs/demo.yaml",
            [
                f"output={tmp_path}/{output}",
                f"dataset.root={people}",
                "dataset.synthesis={train: 4, val: 0, test: 1, images: 2}",
                "runtime.device=cpu",
                f"personalise.model={model}",
                f"personalise.scenario={scenario}",
                "personalise.steps=4",
                "personalise.batch_size=2",
                "personalise.size=16",
                "personalise.rank=2",
                "personalise.identities=2",
                "personalise.prior_images=3",
                "personalise.prior_steps=2",
                "personalise.log_every=1",
                *more,
            ],
        )

    return make


def context(config, machine) -> Context:
    return Context(config, machine, StopSignal())


def weights(config) -> dict[str, torch.Tensor]:
    folder = directory_of(config) / "weights"
    if config.personalise.scenario == "few":
        return load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    return load_file(folder / ADAPTERS) | load_file(folder / WORDS)


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("scenario", ["few", "all"])
def test_stopped_at_any_step_it_ends_as_undisturbed_and_a_second_run_skips(
    make_config, machine, monkeypatch, messages, scenario
):
    straight = make_config(scenario, output="straight")
    personalise(context(straight, machine))
    record = read_record(directory_of(straight) / "weights")
    assert record.reads_real_captions is (scenario == "all")
    assert (record.scenario, record.base, record.images, record.steps) == (
        *(scenario, "sd"),
        *((4, 4) if scenario == "few" else (8, 4)),
    )
    assert len(record.identities) == (2 if scenario == "few" else 4)

    config = make_config(scenario)
    plain = Batches.epoch

    def stopped(self, epoch, start=0):
        for step, batch in enumerate(plain(self, epoch, start), start):
            asked.stop.received = signal.SIGTERM if step == 1 else None
            yield batch

    asked = context(config, machine)
    monkeypatch.setattr(Batches, "epoch", stopped)
    with pytest.raises(Interrupted):
        personalise(asked)
    assert (directory_of(config) / "state.pth").is_file()
    assert not (directory_of(config) / "weights").exists()
    monkeypatch.setattr(Batches, "epoch", plain)
    prior = {path: path.stat().st_mtime_ns for path in directory_of(config).glob("prior/*")}
    assert len(prior) == (3 if scenario == "few" else 0)
    personalise(context(config, machine))
    assert {path: path.stat().st_mtime_ns for path in directory_of(config).glob("prior/*")} == prior
    assert same(weights(config), weights(straight))
    assert not (directory_of(config) / "state.pth").exists()

    monkeypatch.setattr(
        personalisation, "open_dataset", lambda _: pytest.fail("a finished run looks at nothing")
    )
    personalise(context(config, machine))
    assert any("already finished" in message for message in messages)


def test_few_looks_at_the_images_of_its_identities_and_at_no_caption(make_config):
    config = make_config("few")
    dataset = open_dataset(config)
    examples = examples_of(config, dataset)
    silent = replace(dataset, train=[record._replace(captions=()) for record in dataset.train])
    assert examples_of(config, silent) == examples
    chosen = {record.image for record in dataset.train if record.identity in examples.identities}
    assert {str(path.relative_to(dataset.image_root)) for path in examples.images} == chosen
    assert set(examples.texts) == {"a photo of sks person"}
    other = examples_of(make_config("few", "seed=1"), dataset)
    assert len(other.identities) == 2
    named = examples_of(make_config("few", f"personalise.identities=[{dataset.train[0].identity}]"), dataset)
    assert named.identities == (dataset.train[0].identity,)


def test_all_reads_the_first_caption_of_every_image(make_config):
    config = make_config("all")
    dataset = open_dataset(config)
    examples = examples_of(config, dataset)
    expected = {dataset.path(record): record.captions[0] for record in reversed(dataset.train)}
    assert dict(zip(examples.images, examples.texts, strict=True)) == {
        path: f"in the style of <s0><s1>, {caption}" for path, caption in expected.items()
    }


@pytest.mark.parametrize(
    ("scenario", "more", "words"),
    [
        ("none", [], "'none' is the plain model"),
        ("few", ["personalise.identities=[77777]"], "no such identities \\(77777\\)"),
        ("few", ["personalise.identities=99"], "asks for 99 identities"),
        ("few", ["personalise.size=20"], "no multiple of 8"),
        ("all", ["personalise.model=nowhere"], "is no folder of a diffusion pipeline"),
    ],
)
def test_what_can_not_be_done_is_told(make_config, machine, messages, scenario, more, words):
    with pytest.raises(UserError, match=words):
        personalise(context(make_config(scenario, *more), machine))


def test_captions_that_are_not_there_and_a_batch_that_can_not_be_shared(make_config, machine):
    config = make_config("all")
    dataset = open_dataset(config)
    silent = replace(dataset, train=[record._replace(captions=()) for record in dataset.train])
    with pytest.raises(UserError, match="training images have none"):
        examples_of(config, silent)
    with pytest.raises(UserError, match="can't be shared by 3 processes"):
        personalise(context(config, replace(machine, world=SimpleNamespace(rank=0, size=3))))


def test_two_processes_share_what_one_learns_from(make_config, model):
    """Every image with its draws, whoever has it; the mean over equal shares is the mean of all."""
    from synthesis.generation import pipelines
    from synthesis.generation.denoising import Frozen, joined

    config = make_config("all")
    examples = examples_of(config, open_dataset(config))
    cpu = torch.device("cpu")
    frozen = Frozen(pipelines.load("AutoPipelineForText2Image", model, cpu, half=False, safety_checker=True))

    def steps(world) -> list:
        return [own for own, _ in Batches(config, frozen, examples, (), world, cpu).epoch(0)]

    alone = steps(World())
    shares = [steps(SimpleNamespace(rank=rank, size=2)) for rank in range(2)]
    assert len(alone) == 4
    for whole, *parts in zip(alone, *shares, strict=True):
        together = joined(parts)
        assert all(torch.equal(getattr(whole, name), value) for name, value in vars(together).items())
    seen = torch.cat([batch.pixels for batch in alone])
    assert len({image.numpy().tobytes() for image in seen}) == 8, "all images once before any comes again"
    resumed = list(Batches(config, frozen, examples, (), World(), cpu).epoch(0, 3))
    assert torch.equal(resumed[0][0].noise, alone[3].noise)
