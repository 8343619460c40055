"""The measurements of `benchmarks/gpu.py`, each a function from a setting to the rows of its table.

They run on a CPU, too, at a size that suits it: that is how they are tested. Rates are of all the work of a part, transfers
to and from the host included; a share of the card's bf16 peak counts the operations of `benchmarks/flops.py`.
"""

from __future__ import annotations

import gc
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import caption_generation, itm_reranking, training_step
from benchmarks.flops import image_flops, peak_of, training_step_flops
from benchmarks.measure import seconds_of, tokenizer_of
from benchmarks.pseudo_labels import features_like_identities
from clustering.pseudo_labels import cluster
from data.transforms import normalise
from engine import checkpoints
from engine.building import pixels_of
from engine.config import Config, RuntimeConfig, load_config
from engine.evaluation import evaluate_split, open_split
from engine.machine import Machine, make_machine
from engine.run import StopSignal
from engine.sources import open_dataset
from engine.stage import Context
from engine.stages.image_captions import two_pass_captions
from engine.stages.search_training import train_search
from models.backbones.blip.retrieval import BlipRetrieval
from retrieval.encode import encode_gallery
from retrieval.itm import cosine, rerank, top

ROOT = Path(__file__).resolve().parents[1]
Row = dict[str, object]
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class Setting:
    """How much of everything is measured; by default what says something about a GPU and BLIP base.

    Attributes:
        entries: of the vocabulary, BLIP's.
        batches: of the training step, until one does not fit. compiled_batches: the same for the compiled step, each of which
            is compiled anew.
        match_batches: pairs per call; None is the search's own choice.
        samples: to be clustered.
        demo: settings of the short training on the demo, whose model is evaluated in both precisions.
        output: where that training writes.
    """

    device: str = "cuda"
    precision: str = "auto"
    size: str = "base"
    repetitions: int = 3
    entries: int = 30524
    batches: tuple[int, ...] = (36, 64, 128, 256, 512)
    compiled_batches: tuple[int, ...] = (36, 128)
    steps: int = 5
    queries: int = 512
    gallery: int = 512
    candidates: int = 32
    match_batches: tuple[int | None, ...] = (None, 1024, 4096)
    images: int = 2048
    image_batches: tuple[int, ...] = (64, 256)
    captioned: tuple[int, ...] = (32, 128)
    caption_length: int = 77
    samples: tuple[int, ...] = (34054,)
    many_samples: tuple[int, ...] = (200000,)
    demo: tuple[str, ...] = (
        "train.warm_up.max_epoch=6",
        "train.warm_up.matching_epochs=3",
        "train.max_epoch=2",
    )
    output: Path = ROOT / "output" / "benchmarks"

    def machine(self, compile: bool = False) -> Machine:
        """What it runs on."""
        return make_machine(RuntimeConfig(device=self.device, precision=self.precision, compile=compile))


def training(setting: Setting) -> list[Row]:
    """PSPD's step, the loop's own."""
    return list(_until_memory_ends(setting, setting.batches, setting.machine()))


def training_compiled(setting: Setting) -> list[Row]:
    """The same by torch.compile."""
    return list(_until_memory_ends(setting, setting.compiled_batches, setting.machine(compile=True)))


def _until_memory_ends(setting: Setting, batches: tuple[int, ...], machine: Machine) -> Iterator[Row]:
    for batch_size in batches:
        try:
            yield _training_row(setting, batch_size, machine)
        except torch.OutOfMemoryError:
            yield _described(setting, machine) | {"batch": batch_size, "fits": "no"}
            return


def _training_row(setting: Setting, batch_size: int, machine: Machine) -> Row:
    _forget(setting)
    with tempfile.TemporaryDirectory() as directory:
        model = machine.place(training_step.make_model(setting.size, 0.1, setting.entries))
        batch = training_step.make_batch(model, batch_size, machine)
        step = training_step.stepper(
            training_step.trainer_of(model, Path(directory), machine), batch, machine
        )
        first = seconds_of(step, setting.device)[0].wall
        seconds = _median_seconds(setting, lambda: [step() for _ in range(setting.steps)])
    rate = setting.steps * batch_size / seconds
    flops = training_step_flops(model, batch_size, batch.texts.mask.sum().item() / batch_size) / batch_size
    row = _described(setting, machine) | {"batch": batch_size, "fits": "yes", "compiled": machine.compile}
    row |= {"first_step_seconds": f"{first:.3g}", "images_per_second": f"{rate:.4g}"}
    return row | _against_peak(setting, flops * rate)


@torch.no_grad()
def matching(setting: Setting) -> list[Row]:
    """ITM pairs of a re-ranking."""
    machine = setting.machine()
    _forget(setting)
    model, captions, gallery, features = itm_reranking.make_problem(
        machine, setting.size, setting.queries, setting.gallery
    )
    similarity, k = cosine(features, gallery.features), setting.candidates
    order = top(similarity, len(captions), len(gallery), k)[0]
    flops = itm_reranking.pair_flops(model, captions, order)
    rows = []
    for batch in setting.match_batches:
        seconds = _median_seconds(
            setting, lambda batch=batch: rerank(model, captions, gallery, similarity, k, batch_size=batch)
        )
        rate = k * len(captions) / seconds
        row = _described(setting, machine) | {
            "batch": batch or "own choice",
            "pairs_per_second": f"{rate:.4g}",
        }
        rows.append(row | _against_peak(setting, flops * rate))
    return rows


@torch.no_grad()
def encoding(setting: Setting) -> list[Row]:
    """Images from 8-bit pixels on the host to features, with and without their tokens, on the host."""
    machine = setting.machine()
    _forget(setting)
    torch.manual_seed(0)
    model = machine.place(BlipRetrieval(setting.size, tokenizer=tokenizer_of()).eval())
    pixels = torch.randint(0, 256, (setting.images, *model.image_size, 3), dtype=torch.uint8)
    rows = []
    for batch in setting.image_batches:
        for kept in (torch.float16, None):
            seconds = _median_seconds(setting, lambda: _encoded(model, pixels, batch, kept, machine))  # noqa: B023
            rate = setting.images / seconds
            row = _described(setting, machine) | {"batch": batch, "tokens": "kept" if kept else "dropped"}
            row |= {"images_per_second": f"{rate:.4g}"}
            rows.append(row | _against_peak(setting, image_flops(model) * rate))
    return rows


def _encoded(
    model: BlipRetrieval, pixels: Tensor, batch: int, kept: torch.dtype | None, machine: Machine
) -> None:
    batches = (normalise(part.to(machine.device, non_blocking=True)) for part in pixels.split(batch))
    encode_gallery(model, batches, len(pixels), token_dtype=kept).close()


@torch.inference_mode()
def captions(setting: Setting) -> list[Row]:
    """Both captions of images, written to their full length."""
    machine, rows = setting.machine(), []
    for count in setting.captioned:
        _forget(setting)
        given = caption_generation.make_problem(
            machine, setting.size, count, setting.caption_length, setting.entries
        )
        with machine.autocast():
            seconds = _median_seconds(setting, lambda given=given: two_pass_captions(*given))
        row = _described(setting, machine) | {"batch": count, "tokens_each": setting.caption_length}
        rows.append(row | {"captions_per_second": f"{2 * count / seconds:.4g}"} | _memory(setting))
    return rows


def clustering(setting: Setting) -> list[Row]:
    """Pseudo labels of random features of overlapping clusters."""
    return [_clustering_row(setting, count) for count in setting.samples]


def clustering_large(setting: Setting) -> list[Row]:
    """The same of many more."""
    return [_clustering_row(setting, count) for count in setting.many_samples]


def _clustering_row(setting: Setting, count: int) -> Row:
    _forget(setting)
    features = features_like_identities(count, "overlapping")
    machine = setting.machine()
    seconds, found = seconds_of(lambda: cluster(features, device=machine.device), setting.device)
    row: Row = {"N": count, "threads": torch.get_num_threads(), "seconds": f"{seconds.wall:.4g}"}
    row |= {"cpu_seconds": f"{seconds.cpu:.4g}", "clusters": found.n_clusters, "noise": found.n_noise}
    return row | _memory(setting)


def precision(setting: Setting) -> list[Row]:
    """The demo's metrics in percent, of models trained and evaluated in either precision; captions and identities are its own."""
    rows = []
    for trained in PRECISIONS:
        config = _demo_config(setting, trained)
        train_search(Context(config, make_machine(config.runtime), StopSignal()))
        for evaluated in PRECISIONS:
            machine = make_machine(_runtime(setting, evaluated))
            rows.append({"trained": trained, "evaluated": evaluated} | _metrics(config, machine))
    return rows


def _demo_config(setting: Setting, trained: str) -> Config:
    places = [
        f"output={setting.output}",
        f"pre_gen_data={setting.output / 'captions'}",
        f"dataset.root={setting.output / 'demo'}",
        f"run=precision-{trained}",
        "train.supervision=labels",
        *setting.demo,
    ]
    config = load_config([ROOT / "configs/demo.yaml", ROOT / "configs/methods/pspd.yaml"], places)
    config.runtime = _runtime(setting, trained)
    return config


def _runtime(setting: Setting, name: str) -> RuntimeConfig:
    return RuntimeConfig(device=setting.device, precision=name, workers=os.cpu_count() or 2)


def _metrics(config: Config, machine: Machine) -> Row:
    model, content = checkpoints.load_retrieval_model(config.run_directory / "best.pth")
    model = machine.place(model)
    split = open_split(open_dataset(config), "test", config, tuple(content["image_size"]), pixels_of(model))
    found = evaluate_split(model, split, config, machine, config.test.k_test)
    parts = {"": found.itc, "reranked ": found.itm or {}}
    return {f"{part}{name}": f"{value:.2f}" for part, named in parts.items() for name, value in named.items()}


def _median_seconds(setting: Setting, action: Callable[[], Any]) -> float:
    """Seconds of an action on the clock, after one that does not count."""
    action()
    return statistics.median(seconds_of(action, setting.device)[0].wall for _ in range(setting.repetitions))


def _described(setting: Setting, machine: Machine) -> Row:
    name = "bf16" if machine.precision is torch.bfloat16 else "fp32"
    return {"size": setting.size, "precision": name, "repetitions": setting.repetitions}


def _forget(setting: Setting) -> None:
    """The memory of the measurement before, so that the peak is the next one's own."""
    gc.collect()
    if setting.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _memory(setting: Setting) -> Row:
    return {"gpu_gib": f"{torch.cuda.max_memory_allocated() / 2**30:.2f}"} if setting.device == "cuda" else {}


def _against_peak(setting: Setting, achieved: float) -> Row:
    """TFLOP/s, their share of the card's bf16 peak where that is known, and the memory that it took."""
    peak = peak_of(setting.device)
    share = {"share_of_peak": f"{achieved / peak:.1%}"} if peak else {}
    return {"tflops": f"{achieved / 1e12:.3g}"} | share | _memory(setting)
