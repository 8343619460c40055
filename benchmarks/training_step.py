"""A training step of PSPD, ours (the loop's own) against a plain one, the same weights and batch in one run.

Plain, from the definition: fp32, texts padded to 73 tokens, attention written out, negatives mined in Python, one pass
for the positives and one for each kind of negatives with every pair's image tokens projected anew, AdamW parameter by
parameter, every loss read after the step. Before they are timed both compute a step without dropout: losses and
gradients must agree. Ours is timed in fp32 and, on a processor that multiplies it, in bf16. The timed steps have the text stack's dropout of 0.1.

    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive python benchmarks/training_step.py

On a GPU `benchmarks/gpu.py` takes the same step, against what the card could do.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, normalize, pad

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import (
    captions_of,
    in_turns,
    label_of,
    machine_of,
    parser_of,
    precisions_of,
    profile_of,
    rows_of,
    tokenizer_of,
    write_csv,
)
from benchmarks.plain_blip import TEXT_LENGTH, PlainBlip, padded
from engine.loop import Place, Schedule, Trainer
from engine.machine import Machine
from engine.run import Run
from engine.stages.search_training import RetrievalTask
from models import Batch, TrainingCaption, World, build_model
from models.methods.pspd import PSPD

LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-3
CPU = Machine(torch.device("cpu"), World(), torch.float32)
BATCHES = {"tiny": 48, "base": 8, "large": 8}  # the demo's, and the target's


def make_model(size: str, drop: float, entries: int = 2002) -> PSPD:
    """PSPD of a size with random weights, always the same ones, and a vocabulary of that many entries."""
    torch.manual_seed(0)
    words = tokenizer_of(entries)
    return build_model("pspd", size=size, tokenizer=words, dropout=drop, vit_grad_ckpt=False)


def make_batch(model: PSPD, size: int, machine: Machine) -> Batch:
    """A batch as the loop gets it: random pixels, captions of CUHK-PEDES' length, some images of one person."""
    generator = torch.Generator().manual_seed(1)
    captions = [TrainingCaption(text, *garments(text)) for text in captions_of(size)]
    labels = torch.randint(0, 3 * size, (size,), generator=generator)
    images = torch.randn(size, 3, *model.image_size, generator=generator)
    texts = model.prepare(captions).trim()
    if machine.text_multiple > 1:
        texts = texts.widened(-(-texts.ids.shape[1] // machine.text_multiple) * machine.text_multiple)
    return Batch(images, texts, labels).to(machine.device)


def garments(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    words = text.split()
    return tuple(words[2:4]), tuple(words[5:7])


class PlainStep:
    """The plain training step on a model's own parameters."""

    def __init__(self, model: PSPD, batch: Batch, drop: float) -> None:
        self.blip, self.model, self.images, self.labels = (
            PlainBlip(model, drop),
            model,
            batch.images,
            batch.labels,
        )
        self.ids, self.mask = padded(batch.texts)
        self.grounded_ids = padded(batch.texts, first=model.tokenizer.enc_id)[0]
        room = (0, TEXT_LENGTH - batch.texts.ids.shape[1])
        self.regions = [pad(batch.texts.extras[name], room) for name in ("upper", "lower")]
        self.optimizer = torch.optim.AdamW(
            model.parameter_groups(1e-5, 0.05), lr=1e-5, foreach=False, fused=False
        )
        self.read: dict[str, float] = {}

    def losses(self) -> dict[str, Tensor]:
        """NDF, ITM and the local loss, in the order in which they are defined."""
        tokens = self.blip.images(self.images)
        image = self.blip.linear("vision_proj", tokens[:, 0])
        text = self.blip.linear("text_proj", self.blip.texts(self.ids, self.mask)[:, 0])
        rows = list(range(len(self.labels)))
        of_text, of_image = self._negatives(text @ image.T), self._negatives(image @ text.T)
        # texts, images and the answer of the three passes
        passes = [(rows, rows, 1), (list(of_text), list(of_text.values()), 0)]
        passes += [(list(of_image.values()), list(of_image), 0)]
        hidden = [
            self.blip.texts(self.grounded_ids[texts], self.mask[texts], tokens[images])
            for texts, images, _ in passes
        ]
        targets = torch.cat([self.labels.new_full((len(texts),), answer) for texts, _, answer in passes])
        logits = self.blip.linear("itm_head", torch.cat(hidden)[:, 0])
        local = [
            cross_entropy(self.blip.linear("itm_local_head", self._region(passes, hidden, marks)), targets)
            for marks in self.regions
        ]
        return {
            "ndf": plain_ndf(image, text, self.labels),
            "itm": cross_entropy(logits, targets),
            "local": torch.stack(local).mean(),
        }

    def _negatives(self, similarity: Tensor) -> dict[int, int]:
        """The most similar row of another label, for every row that has one."""
        found = {}
        for row, label in enumerate(self.labels):
            others = [j for j, other in enumerate(self.labels) if other.item() != label.item()]
            if others:
                found[row] = max(others, key=lambda j: similarity[row, j].item())
        return found

    @staticmethod
    def _region(passes: list, hidden: list[Tensor], marks: Tensor) -> Tensor:
        """Means of the marked tokens of every pair; of the first token where none is marked."""
        means = []
        for (texts, _, _), states in zip(passes, hidden, strict=True):
            for text, state in zip(texts, states, strict=True):
                chosen = state[marks[text]]
                means.append(chosen.mean(0) if len(chosen) else state[0])
        return torch.stack(means)

    def __call__(self) -> None:
        losses = self.losses()
        self.read = {name: loss.item() for name, loss in losses.items()}
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        self.optimizer.step()


def plain_ndf(image: Tensor, text: Tensor, labels: Tensor) -> Tensor:
    """NDF of docs/methods/pspd.md, both directions."""
    similarity = 50 * normalize(image, dim=1) @ normalize(text, dim=1).T
    same = (labels[:, None] == labels[None, :]).float()
    both = []
    for scores in (similarity, similarity.T):
        fitted, wanted = scores.softmax(1), same / same.sum(1, keepdim=True)
        log_fitted, log_wanted = log_softmax(scores, 1), (wanted + 1e-8).log()
        forward = (fitted * (log_fitted - log_wanted)).mean()
        backward = (wanted * (log_wanted - log_fitted)).mean()
        both.append(forward + backward - (wanted * log_fitted).sum(1).mean())
    return (both[0] + both[1]) / 2


def make_trainer(task: nn.Module, groups: list[dict[str, Any]], directory: Path, machine: Machine) -> Trainer:
    """The training loop's own object, of which the benchmark takes the step."""
    return Trainer(
        task,
        groups,
        SimpleNamespace(steps=1 << 30),
        Schedule(1e-5, max_epoch=2),
        Place("benchmark"),
        Run(directory),
        machine,
        directory / "last.pth",
        seed=0,
        on_epoch=lambda *_: None,
    )


def trainer_of(model: PSPD, directory: Path, machine: Machine) -> Trainer:
    """The loop's object for PSPD."""
    return make_trainer(RetrievalTask(model), model.parameter_groups(1e-5, 0.05), directory, machine)


def stepper(trainer: Trainer, batch: Batch, machine: Machine) -> Callable[[], None]:
    """One step of the loop on this batch, on that machine."""
    trainer.task.train()

    def step() -> None:
        trainer.machine = machine
        trainer._step(batch, 0, 0)

    return step


def check_equality(size: str, batch_size: int) -> dict[str, float]:
    """Losses and gradients of one step without dropout; SystemExit where they differ. Returns the differences."""
    model = make_model(size, 0.0).train()
    batch = make_batch(model, batch_size, CPU)
    expected = PlainStep(model, batch, 0.0).losses()
    sum(expected.values()).backward()
    gradients = {name: one.grad for name, one in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    found = model.losses(batch)
    sum(found.values()).backward()
    loss = max(abs((found[name] - expected[name]).item()) for name in expected)
    # relative to the gradient's own size; a key's bias moves no softmax, so its gradient is rounding and nothing else
    gradient = max(
        (one.grad - gradients[name]).norm().item() / gradients[name].norm().clamp(min=1e-6).item()
        for name, one in model.named_parameters()
        if not name.endswith(".self.key.bias")
    )
    if loss > LOSS_TOLERANCE or gradient > GRADIENT_TOLERANCE:
        raise SystemExit(f"Losses differ by {loss:.1e}, gradients by {gradient:.1e} of their size.")
    return {"loss_difference": f"{loss:.1e}", "gradient_difference": f"{gradient:.1e}"}


def compare(options: argparse.Namespace, size: str) -> list[dict[str, object]]:
    """Both versions on the CPU, timed in turns."""
    batch_size = options.batch or BATCHES[size]
    differences = check_equality(size, batch_size)
    with tempfile.TemporaryDirectory() as directory:
        model = make_model(size, 0.1)  # one for both: two with their optimisers would not fit everywhere
        batch = make_batch(model, batch_size, CPU)
        trainer = trainer_of(model, Path(directory), CPU)
        plain = PlainStep(model, batch, 0.1)
        plain.optimizer.state = trainer.optimizer.state  # both AdamW's, and as large as two models
        actions: dict[str, Callable[[], None]] = {"plain": plain}
        for precision in precisions_of("cpu"):
            machine = machine_of("cpu", precision)
            actions[label_of(precision)] = stepper(trainer, batch, machine)
        if options.profile:
            for name, action in actions.items():
                action()
                print(f"\n{size}, batch {batch_size}, {name}\n\n{profile_of(action)}")
            return []
        times = in_turns(actions, options.repetitions)
    height, width = model.image_size
    common = {"size": size, "batch": batch_size, "pixels": f"{height}x{width}"}
    return rows_of(times, batch_size, "images", common | differences)


def main() -> None:
    """Compares on a CPU at tiny and base size, and writes the CSV."""
    parser = parser_of(__doc__)
    parser.add_argument("--batch", type=int, help="by default 48 at tiny and 8 at base size")
    parser.add_argument("--sizes", nargs="+", default=["tiny", "base"])
    options = parser.parse_args()
    if options.device != "cpu":
        parser.error("this compares on a CPU; on a GPU: bash benchmarks/run.bash gpu")
    machine_of("cpu", "fp32")  # chooses the library
    rows = [row for size in options.sizes for row in compare(options, size)]
    if not options.profile:
        write_csv("training_step", options.device, rows, options.results)


if __name__ == "__main__":
    main()
