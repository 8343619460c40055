"""Every comparison runs at tiny size, finds both versions equal and writes its table; plain parts equal the project's."""

from __future__ import annotations

import csv
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import flops
from benchmarks.measure import Seconds, profile_of, rows_of
from engine import processor
from models.backbones.blip.retrieval import BlipRetrieval
from models.backbones.blip.tokenizer import BlipTokenizer

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
TINY = "--size tiny --repetitions 1"
CALLS = {
    "training_step": "--sizes tiny --batch 6 --repetitions 1",
    "clip_step": f"{TINY} --batch 6",
    "explaining": TINY,
    "onnx_speed": f"{TINY} --methods pspd",
    "itm_reranking": f"{TINY} --queries 3 --gallery 5 --candidates 4",
    "feature_extraction": f"{TINY} --images 3 --captions 5 --batch 2",
    "caption_generation": f"{TINY} --images 1 --max-length 12",
    "image_pipeline": "--repetitions 1 --images 50 --sources 128x64",
    "evaluation_memory": "--size tiny --images 40 --k-test 4",
    "start_up": "--before . --repetitions 1 --only 'train.py --help'",
    "divided_work": "--repetitions 1 --images 70 --gallery 9 --queries 10 --k-test 4",
}
IN_BF16 = {"blip_step", "training_step", "itm_reranking", "feature_extraction"}


def run(name: str, arguments: str, monkeypatch) -> None:
    if name == "evaluation_memory":  # it measures the peak of its whole process, tests before it included
        subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *shlex.split(arguments)],
            cwd=BENCHMARKS.parent,
            check=True,
        )
        return
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *shlex.split(arguments)])
    runpy.run_path(str(BENCHMARKS / f"{name}.py"), run_name="__main__")


@pytest.mark.integration
@pytest.mark.parametrize("name", CALLS)
def test_a_comparison_writes_its_table(name, tmp_path, monkeypatch):
    run(name, f"{CALLS[name]} --results {tmp_path}", monkeypatch)
    (path,) = tmp_path.iterdir()
    assert path.name == f"{name}-{processor.short_name()}-{torch.__version__.split('+')[0]}.csv"
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert all(float(row["seconds"]) >= 0 for row in rows)
    if name != "evaluation_memory":
        assert float(rows[-1]["ratio"]) > 0
        assert {"divided" if name == "divided_work" else "ours"} <= {row["version"] for row in rows}
        in_bf16 = {row["version"] for row in rows if row["version"].endswith("bf16")}
        assert bool(in_bf16) == (name in IN_BF16 and processor.multiplies_bf16())
    assert {row["processor"] for row in rows} == {processor.name()}
    assert {row["processor_features"] for row in rows} == {" ".join(processor.features())}


@pytest.mark.integration
def test_a_profile_is_printed_instead(tmp_path, monkeypatch, capsys):
    run("itm_reranking", f"{CALLS['itm_reranking']} --profile --results {tmp_path}", monkeypatch)
    assert "| operation | share | ms | calls |" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_ratios_are_taken_turn_by_turn():
    """Against the first version; the middle one counts, so that one disturbed turn does not."""
    plain = [Seconds(4.0, 2.0), Seconds(8.0, 2.0), Seconds(100.0, 2.0)]
    ours = [Seconds(2.0, 1.0), Seconds(2.0, 0.5), Seconds(2.0, 2.0)]
    rows = rows_of({"plain": plain, "ours": ours}, 10, "images", {"size": "tiny"})
    assert [row["ratio"] for row in rows] == ["1.00", "4.00"]
    assert [rows[1][name] for name in ("ratio_from", "ratio_to", "cpu_ratio")] == ["2.00", "50.00", "2.00"]
    assert rows[1]["images_per_second"] == "5"


def test_profiles_name_what_dominates():
    square = torch.randn(600, 600)
    lines = profile_of(lambda: square @ square, rows=3).splitlines()
    assert lines[0] == "| operation | share | ms | calls |"
    assert "aten::mm" in lines[2]
    assert len(lines) == 5


def test_operations_are_those_that_torch_counts(tmp_path):
    """torch's own counter sees every product of the dense computation, and not oneDNN's: it is switched off."""
    words = BlipTokenizer.train(["red coat blue hat"] * 4, tmp_path, vocab_size=60)
    model = BlipRetrieval("tiny", tokenizer=words).eval()
    images, texts = torch.randn(2, 3, *model.image_size), words(["red coat blue hat"] * 2)
    tokens, _ = model.encode_images(images)
    length = texts.ids.shape[1]

    def counted(action) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            action()
        return counter.get_total_flops()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.backbones.linear._suits_onednn", lambda *_: False)
        patch.setattr("models.backbones.attention.F.scaled_dot_product_attention", _written_out)
        pairs = counted(lambda: model.text_encoder(texts.ids, None, tokens))
        alone = counted(lambda: model.text_encoder(texts.ids))
        pictures = counted(lambda: model.visual_encoder(images))
    grounded = flops.text_flops(model, length, True) + flops.keys_values_flops(model)
    assert pairs == pytest.approx(2 * grounded, rel=1e-6)
    assert alone == pytest.approx(2 * flops.text_flops(model, length, False), rel=1e-6)
    assert pictures == pytest.approx(2 * flops.image_flops(model), rel=1e-6)


def _written_out(query, key, value, **_):
    return (query @ key.transpose(-1, -2)).softmax(-1) @ value
