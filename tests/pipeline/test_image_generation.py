"""gen_images.py: a set in one go, skipped when it is there, set aside when it is to be another one."""

from __future__ import annotations

import json

import pytest

from captioning.store import CaptionStore
from engine.config import ConfigError, load_config
from tests.pipeline.mini import make_pipeline
from tests.pipeline.test_caption_shares import on_two_processes

pytestmark = pytest.mark.integration

SECTION = """
gen_images:
  root: {root}
  prompts: 4
  per_prompt: 2
  edits: {{style: 1, posture: 1}}
  batch_size: 3
"""


@pytest.fixture
def synthetic(tmp_path, messages):
    """A pipeline whose configuration asks for a small drawn set below `tmp_path / "set"`."""
    made = make_pipeline(tmp_path, messages)
    with made.path.open("a") as stream:
        stream.write(SECTION.format(root=tmp_path / "set"))
    return made


def outcome(folder) -> dict[str, bytes]:
    """All files but those that say when and in which order."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".jsonl", ".txt")
    }


def changed(folder) -> dict:
    """When each file but the log was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix != ".txt"}


def test_a_set_is_made_once_and_for_all_processes(synthetic, tmp_path) -> None:
    folder = tmp_path / "set"
    assert synthetic("gen_images") == 0, synthetic.messages
    records = json.loads((folder / "synthetic.json").read_text("utf-8"))
    assert len(records) == 4 * 2 * 3
    assert synthetic.said("8 images, 8 kept")
    first = outcome(folder)
    assert {"report.json", "contact_sheet.jpg", "settings.json", ".gen_images.done"} < first.keys()
    times = changed(folder)
    assert synthetic("gen_images") == 0
    assert synthetic.said("already finished")
    assert changed(folder) == times
    folder.rename(tmp_path / "of one")
    on_two_processes(synthetic, "gen_images")
    assert outcome(folder) == first
    for step, count in (("generated", 8), ("edited", 16), ("captions", 24)):
        with CaptionStore(folder / "manifests" / f"{step}.jsonl") as store:
            assert (len(store), store.duplicates, store.torn) == (count, 0, 0)


def test_force_keeps_the_old_set_and_other_settings_are_refused_until_then(synthetic, tmp_path) -> None:
    few = ("--set", "gen_images.prompts=2", "gen_images.edits={posture: 1}")
    assert synthetic("gen_images", *few) == 0
    assert synthetic("gen_images", *few, "gen_images.seed=1") == 0
    assert synthetic.said("gen_images.seed 0 -> 1")
    (tmp_path / "set" / ".gen_images.done").unlink()
    assert synthetic("gen_images", *few, "gen_images.seed=1") == 1
    assert synthetic.said("begun with other settings (seed)")
    assert synthetic("gen_images", "--force", *few, "gen_images.seed=1") == 0
    assert synthetic.said("is kept as set.old1")
    old, new = ((tmp_path / name / "synthetic.json").read_text("utf-8") for name in ("set.old1", "set"))
    assert len(json.loads(old)) == len(json.loads(new)) == 2 * 2 * 3
    assert old != new


def test_a_set_from_elsewhere_is_used_as_it_is(synthetic, tmp_path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "synthetic.json").write_text("[]", "utf-8")
    assert synthetic("gen_images") == 0
    assert synthetic.said("was made elsewhere and is used as it is")
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["synthetic.json"]


def test_a_dry_run_measures_and_leaves_nothing(synthetic, tmp_path, capsys) -> None:
    assert synthetic("gen_images", "--dry-run") == 0
    said = capsys.readouterr().out
    for words in (
        "images             8 images",
        "edits             16 images",
        "captions          24 images",
    ):
        assert words in said
    assert "hours" in said
    assert "MB" in said
    assert not (tmp_path / "set").exists()


def test_without_the_section_there_is_nothing_to_do(pipeline, tmp_path) -> None:
    assert pipeline("gen_images") == 0
    assert pipeline.said("not needed, the configuration asks for no synthetic images")
    assert not list(tmp_path.glob("set*"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            ("gen_images.families={plain: 1, state: 1}",),
            "state are written by a text model: set gen_images.text",
        ),
        (
            ("gen_images.families={profession: 1}", "gen_images.text={backend: palette}"),
            "written by a text model",
        ),
        (("gen_images.families={plain: 0}",), "needs a share above 0"),
        (("gen_images.generator={backend: drawm}",), "'drawn'"),
        (("gen_images.filter={backend: torchvision}",), "draws people again from their prompts"),
        (("gen_images.generator={backend: diffusers, model: x}",), "draws people again from their prompts"),
        (("gen_images.edits={weather: 4}",), "less than or equal to 3"),
        (("gen_images.edits={season: 1}",), "Unknown key 'gen_images.edits.season'"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_starts(synthetic, settings, words) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(synthetic.path, settings)
    assert words in str(refused.value)


def test_a_scenario_needs_a_generator_that_learns(synthetic, tmp_path) -> None:
    assert synthetic("gen_images", "--set", "gen_images.scenario=few") == 1
    assert synthetic.said("gen_images.scenario=few is a personalised diffusion model's")
    assert not (tmp_path / "set").exists()


def test_further_keys_of_a_part_are_its_options(synthetic, tmp_path) -> None:
    settings = load_config(
        synthetic.path, ["gen_images.generator.world=target", "gen_images.filter.confidence=0.7", "gen_images.filter.size=640"]
    ).gen_images  # fmt: skip
    assert settings.generator.options == {"world": "target"}
    assert (settings.filter.confidence, settings.filter.options) == (0.7, {"size": 640})
    assert load_config([], []).gen_images is None
    assert synthetic("gen_images", "--set", "gen_images.generator.wrld=target") == 1
    assert synthetic.said("no option wrld; it has world")
