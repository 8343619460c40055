"""The GPU's benchmark, all parts at tiny size on the CPU: what stands in its tables, and how it goes on where it was stopped."""

from __future__ import annotations

import csv
from functools import partial

import pytest
import torch

from benchmarks import gpu, gpu_parts
from benchmarks.flops import image_flops
from benchmarks.gpu_parts import Setting
from benchmarks.measure import captions_of, here, tokenizer_of

DEMO = (
    "dataset.synthesis.train=8",
    "dataset.synthesis.val=2",
    "dataset.synthesis.test=4",
    "dataset.synthesis.images=2",
    "train.warm_up.max_epoch=1",
    "train.warm_up.matching_epochs=1",
    "train.max_epoch=1",
    "train.batch_size=8",
)


@pytest.fixture
def tiny(tmp_path) -> Setting:
    return Setting(
        device="cpu",
        precision="bf16",
        size="tiny",
        repetitions=1,
        batches=(4, 6),
        compiled_batches=(4,),
        steps=1,
        queries=5,
        gallery=6,
        candidates=3,
        match_batches=(None, 8),
        images=7,
        image_batches=(4,),
        captioned=(2,),
        caption_length=16,
        samples=(300,),
        many_samples=(400,),
        demo=DEMO,
        output=tmp_path / "output",
    )


def numbers(rows: list[gpu_parts.Row], name: str) -> list[float]:
    return [float(str(row[name])) for row in rows]


@pytest.mark.integration
def test_the_training_step_is_rated(tiny):
    rows = gpu_parts.training(tiny)
    assert [(row["batch"], row["fits"], row["compiled"]) for row in rows] == [
        (4, "yes", False),
        (6, "yes", False),
    ]
    assert {row["precision"] for row in rows} == {"bf16"}
    assert min(numbers(rows, "images_per_second") + numbers(rows, "tflops")) > 0


@pytest.mark.integration
def test_the_compiled_step_is_rated_the_same_way(tiny, monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    (row,) = gpu_parts.training_compiled(tiny)
    assert row["compiled"] is True
    assert float(row["first_step_seconds"]) > 1 / float(row["images_per_second"])


@pytest.mark.integration
def test_batches_grow_until_memory_ends(tiny, monkeypatch):
    row = gpu_parts._training_row

    def full(setting: Setting, batch_size: int, machine: object) -> gpu_parts.Row:
        if batch_size > 4:
            raise torch.OutOfMemoryError
        return row(setting, batch_size, machine)

    monkeypatch.setattr(gpu_parts, "_training_row", full)
    setting = Setting(**{**vars(tiny), "batches": (4, 8, 16)})
    assert [(row["batch"], row["fits"]) for row in gpu_parts.training(setting)] == [(4, "yes"), (8, "no")]


@pytest.mark.integration
def test_pairs_images_and_captions_are_rated(tiny):
    matching, encoding, captions = (
        part(tiny) for part in (gpu_parts.matching, gpu_parts.encoding, gpu_parts.captions)
    )
    assert [row["batch"] for row in matching] == ["own choice", 8]
    assert [row["tokens"] for row in encoding] == ["kept", "dropped"]
    assert min(numbers(matching, "pairs_per_second")) > 0
    for row, rate in zip(encoding, numbers(encoding, "images_per_second"), strict=True):
        model = gpu_parts.BlipRetrieval("tiny", tokenizer=tokenizer_of())
        assert float(row["tflops"]) == pytest.approx(image_flops(model) * rate / 1e12, rel=0.01)
    assert [row["tokens_each"] for row in captions] == [16]
    assert min(numbers(captions, "captions_per_second")) > 0


def test_a_share_of_the_peak_stands_where_the_card_is_known(tiny, monkeypatch):
    assert "share_of_peak" not in gpu_parts._against_peak(tiny, 1e12)
    monkeypatch.setattr(gpu_parts, "peak_of", lambda device: 4e12)
    assert gpu_parts._against_peak(tiny, 1e12)["share_of_peak"] == "25.0%"


def test_samples_are_clustered(tiny):
    (row,), (larger,) = gpu_parts.clustering(tiny), gpu_parts.clustering_large(tiny)
    assert (row["N"], larger["N"]) == (300, 400)
    assert row["clusters"] > 1


@pytest.mark.integration
def test_the_demo_is_measured_in_both_precisions(tiny):
    rows = gpu_parts.precision(tiny)
    both = [(a, b) for a in ("fp32", "bf16") for b in ("fp32", "bf16")]
    assert [(row["trained"], row["evaluated"]) for row in rows] == both
    assert all(0 <= float(row["reranked mAP"]) <= 100 for row in rows)
    assert set(rows[0]) >= {"r1", "mINP", "reranked r1"}
    best = tiny.output / "precision-fp32" / "best.pth"
    changed = best.stat().st_mtime_ns
    assert gpu_parts.precision(tiny) == rows
    assert best.stat().st_mtime_ns == changed  # trained once


def test_a_vocabulary_may_be_as_large_as_blips():
    large, small = tokenizer_of(30524), tokenizer_of()
    assert large.vocab_size == 30524
    texts = captions_of(5)
    assert large(texts).ids[:, 1:-1].equal(small(texts).ids[:, 1:-1])


def test_finished_parts_are_skipped_failed_ones_are_told_and_late_ones_left(tiny, tmp_path, capsys):
    done: list[str] = []

    def part(name: str, fails: bool = False) -> gpu.Part:
        def run(setting: Setting) -> list[gpu.Row]:
            """Counts."""
            done.append(name)
            if fails:
                raise RuntimeError("the card is on fire")
            return [{"of": name, "size": setting.size}]

        return run

    parts = {"one": part("one"), "bad": part("bad", fails=True), "two": part("two")}
    assert gpu.measure(parts, tiny, "some-card", tmp_path, minutes=10) == ["bad"]
    assert "the card is on fire" in capsys.readouterr().err
    assert gpu.measure(parts, tiny, "some-card", tmp_path, minutes=10) == ["bad"]
    assert done == ["one", "bad", "two", "bad"]
    version = torch.__version__.split("+")[0]
    names = {f"gpu_{name}-some-card-{version}.csv" for name in ("one", "two")}
    assert {path.name for path in tmp_path.glob("*.csv")} == names
    with (tmp_path / f"gpu_two-some-card-{version}.csv").open() as file:
        assert list(csv.DictReader(file)) == [{"of": "two", "size": "tiny", **here()}]
    assert gpu.measure(parts, tiny, "some-card", tmp_path, minutes=-1, force=True) == list(parts)
    assert "one: not begun" in capsys.readouterr().out


def test_without_a_gpu_it_says_so_and_ends_well(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--results", str(tmp_path / "results")]) == 0
    assert "There is no GPU" in capsys.readouterr().out
    assert not (tmp_path / "results").exists()
    with pytest.raises(SystemExit):
        gpu.main(["no-such-part"])


def test_with_a_gpu_its_name_is_the_files(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(gpu, "measure", lambda *given: seen.append(given) or [])
    assert gpu.main(["matching", "--results", str(tmp_path), "--minutes", "3"]) == 0
    ((parts, setting, card, results, minutes, force),) = seen
    assert list(parts) == ["matching"]
    assert (setting, card, results, minutes, force) == (
        Setting(),
        "nvidia-h100-80gb-hbm3",
        tmp_path,
        3,
        False,
    )
