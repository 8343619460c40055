"""What is told without delay: help, typing mistakes and finished runs load no package that takes seconds to load."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.config import GenImagesConfig, load_config
from engine.marks import IMAGE_STAGE, STAGES, Mark
from engine.outstanding import outstanding
from engine.results import are_up_to_date, results_path

REPOSITORY = Path(__file__).resolve().parents[1]
HEAVY = {
    "torch",
    "torchvision",
    "timm",
    "open_clip",
    "transformers",
    "tokenizers",
    "safetensors",
    "scipy",
    "numba",
    "sklearn",
    "faiss",
    "matplotlib",
    "PIL",
    "numpy",
    "httpx",
    "gradio",
    "cv2",
}
DEMO = ["--config", "configs/methods/pspd.yaml", "configs/demo.yaml"]
WANTED = [stage for stage in STAGES if stage != IMAGE_STAGE]  # by a configuration without synthetic images
MODULES = ("engine.outstanding", "engine.results", "engine.several_seeds")


def started(*arguments: str) -> tuple[subprocess.CompletedProcess, set[str]]:
    """A Python command in a process of its own, and the heavy packages that it imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], cwd=REPOSITORY, capture_output=True, text=True
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert len(lines) > 50  # or Python says it in other words, and nothing is looked at
    imported = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in lines}
    return done, imported & HEAVY


@pytest.mark.parametrize(
    "command",
    [
        *([f"{stage}.py", "--help"] for stage in STAGES),
        ["search.py", "--help"],
        ["search.py", "query", "--help"],
        ["search.py", "crop", "--help"],
        *(["-m", module, "--help"] for module in MODULES),
    ],
    ids=" ".join,
)
def test_help_loads_nothing_heavy(command: list[str]) -> None:
    done, heavy = started(*command)
    assert (done.returncode, heavy) == (0, set())
    assert done.stdout.startswith("usage: ")


@pytest.mark.parametrize(
    "command",
    [
        *([f"{stage}.py"] for stage in STAGES),
        *(["-m", module] for module in MODULES[:2]),
        ["-m", MODULES[2], "plan", "--seeds", "0"],
    ],
    ids=" ".join,
)
def test_a_mistyped_key_is_told_before_anything_heavy(command: list[str]) -> None:
    done, heavy = started(*command, *DEMO, "--set", "train.max_epch=3")
    assert (done.returncode, heavy) == (1, set())
    assert done.stderr.rstrip().endswith("did you mean 'train.max_epoch'?")


def test_the_measurement_finds_what_is_heavy() -> None:
    assert started("-c", "import numpy, retrieval.division")[1] == {"numpy"}


def bash(*arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "NPROC": "1", "OMP_NUM_THREADS": "1", "PSPD_CONSTRAINTS": "none"}
    command = ["bash", str(REPOSITORY / "train.bash"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["demo", "--set", "train.max_epch=3"], 1, "did you mean 'train.max_epoch'"),
        (["demo", "--set", "nothing"], 1, "--set needs KEY=VALUE"),
        (["demo", "--form", "train"], 2, "Unknown argument '--form'"),
        (["demo", "--from", "tran"], 2, "--from needs one of"),
        (["nodata"], 2, "There is no configuration"),
        (["demo", "pdsp"], 2, "There is no method 'pdsp'"),
    ],
)
def test_after_a_mistake_in_the_command_nothing_is_said_about_stages(arguments, code, told) -> None:
    done = bash(*arguments)
    assert done.returncode == code
    (sentence,) = done.stderr.splitlines()
    assert told in sentence
    assert not done.stdout


RECORD = """{"protocol": "plain", "queries": 8, "gallery": 4, "itm": null,
"itc": {"r1": 12.5, "r5": 50.0, "r10": 75.0, "mAP": 20.0, "mINP": 10.0}}"""


@pytest.fixture
def config(tmp_path):
    settings = [f"output={tmp_path}/output", f"pre_gen_data={tmp_path}/captions"]
    return load_config(DEMO[1:], settings)


def finish(config, *stages: str) -> None:
    for stage in stages:
        Mark.of(stage, config).set()
        if stage == "test":
            results_path(config).write_text(RECORD, "utf-8")


@pytest.mark.integration
def test_a_finished_run_is_told_with_its_results_by_processes_that_load_nothing_heavy(config) -> None:
    finish(config, *STAGES)
    settings = ["--set", f"output={config.output}", f"pre_gen_data={config.caption_directory}"]
    for module in MODULES[:2]:
        done, heavy = started("-m", module, *DEMO, *settings)
        assert (done.returncode, heavy) == (0, set())
    done = bash("demo", *settings)
    assert done.returncode == 0
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == list(STAGES[:-1])
    assert done.stdout.splitlines()[1].split() == [
        "features",
        "alone",
        "12.50",
        "50.00",
        "75.00",
        "20.00",
        "10.00",
    ]
    assert str(config.run_directory) in done.stdout


def test_what_is_left_follows_from_the_marks(config) -> None:
    assert outstanding(config) == [(stage, False) for stage in WANTED]
    finish(config, "pre_train", "gen_text")
    assert outstanding(config) == [(stage, False) for stage in ("gen_pre_train_text", "train", "test")]
    finish(config, "gen_pre_train_text")  # texts in one fixed style may still be missing
    assert outstanding(config)[0] == ("gen_pre_train_text", False)
    finish(config, "fixed_captions")
    assert outstanding(config) == [("train", False), ("test", False)]
    finish(config, "train")
    assert outstanding(config) == [("test", False)]
    finish(config, "test")
    assert outstanding(config) == []
    for number, start in enumerate(WANTED):
        assert outstanding(config, start) == [(stage, True) for stage in WANTED[number:]]
    assert outstanding(config, STAGES[0]) == [(stage, True) for stage in WANTED]


def test_synthetic_images_are_made_first_where_they_are_asked_for(config) -> None:
    root = Path(config.output) / "set"
    asked = config.model_copy(update={"gen_images": GenImagesConfig(root=str(root))})
    assert outstanding(asked) == [(stage, False) for stage in STAGES]
    assert outstanding(asked, STAGES[0]) == [(stage, True) for stage in STAGES]
    root.mkdir(parents=True)
    finish(asked, STAGES[0])
    assert (root / f".{STAGES[0]}.done").is_file()
    assert outstanding(asked) == [(stage, False) for stage in WANTED]
    finish(asked, "train")
    assert outstanding(asked) == [("test", False)]


def test_captions_that_no_training_waits_for_are_not_asked_for(config) -> None:
    """Training on labels, or on captions that were imported, leaves the stages before it without marks."""
    finish(config, "train", "test")
    assert outstanding(config) == []
    assert outstanding(config, "train") == [
        *((stage, False) for stage in WANTED[:3]),
        ("train", True),
        ("test", True),
    ]


def test_results_of_another_model_or_with_other_settings_are_made_again(config) -> None:
    finish(config, "test", "train")  # trained again after the evaluation
    os.utime(Mark.of("test", config).path, (0, 0))
    assert not are_up_to_date(config)
    finish(config, "test")
    assert are_up_to_date(config)
    config.test.k_test = 3
    assert outstanding(config) == [("test", False)]
    config.test.k_test = load_config(DEMO[1:]).test.k_test
    results_path(config).unlink()
    assert outstanding(config) == [("test", False)]


@pytest.mark.integration
def test_a_search_loads_the_packages_of_its_own_model_only() -> None:
    """Of a BLIP model here: neither what CLIP's towers and SSAN's are made of, nor what clusters, draws and captions."""
    done, heavy = started("-c", "from models import METHODS; METHODS['pspd']; import serving.commands")
    assert done.returncode == 0
    assert not heavy & {
        "torchvision",
        "timm",
        "open_clip",
        "transformers",
        "scipy",
        "numba",
        "sklearn",
        "matplotlib",
        "httpx",
        "gradio",
        "cv2",
    }
