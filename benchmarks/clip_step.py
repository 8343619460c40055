"""A training step of IRRA, ours (the loop's own) against one written from open_clip's modules, the same weights and batch.

Theirs, eager and in fp32: open_clip's two towers and its transformer blocks, torch's attention and linear layers, texts padded
to 77 tokens as open_clip's tokenizer does, AdamW with torch's defaults. It is given the hidden words, which ours draws. A second
version of it reads texts cut to the longest of the batch, as ours does: what is left is how the same operations are computed.
Before they are timed both compute a step: losses and gradients must agree.

    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive python benchmarks/clip_step.py
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from open_clip import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.transformer import QuickGELU, Transformer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, normalize, pad

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import captions_of, in_turns, machine_of, parser_of, profile_of, rows_of, write_csv
from benchmarks.training_step import CPU, make_trainer
from engine.stages.search_training import RetrievalTask
from losses.token_masking import mask_tokens
from models import Batch, TrainingCaption, build_model
from models.backbones.clip.sizes import POSITIONS
from models.backbones.clip.tokenizer import RELEASED_FILE, ClipTokenizer
from models.methods.irra import IRRA

IDENTITIES = 11003  # of CUHK-PEDES' training set
IMAGE_SIZES = {"base": (384, 128), "tiny": (96, 48)}
# Of which CLIP's vocabulary has each as one token, as it has most of what people say about clothes.
TEXT = (
    "a the man woman person is wearing with and has in on her his red blue black white grey green long short hair shirt "
    "jeans jacket dress shoes bag pants coat skirt hat walking carrying dark light over"
)
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-3


def make_model(size: str) -> IRRA:
    """IRRA with random weights, always the same ones, CLIP's vocabulary and a classifier of CUHK-PEDES' size."""
    torch.manual_seed(0)
    tokenizer = ClipTokenizer.load(RELEASED_FILE)
    model = build_model("irra", size=size, image_size=IMAGE_SIZES[size], tokenizer=tokenizer)
    model.set_identities(IDENTITIES)
    return model.train()


def make_batch(model: IRRA, size: int) -> Batch:
    """As the loop gets it: random pixels, captions of CUHK-PEDES' length, some images of one person."""
    generator = torch.Generator().manual_seed(1)
    captions = [TrainingCaption(text) for text in captions_of(size, words=TEXT.split())]
    labels = torch.randint(0, 3 * size, (size,), generator=generator)
    images = torch.randn(size, 3, *model.image_size, generator=generator)
    return Batch(images, model.prepare(captions).trim(), labels, seeds=torch.arange(size))


class CrossModal(nn.Module):
    """IRRA's cross-modal encoder from torch's attention and open_clip's blocks."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.text_norm, self.image_norm, self.norm = (nn.LayerNorm(width) for _ in range(3))
        self.heads = width // 64
        self.attention = nn.MultiheadAttention(width, self.heads, batch_first=True)
        self.transformer = Transformer(width, layers, self.heads, act_layer=QuickGELU)

    def forward(self, texts: Tensor, padding: Tensor, images: Tensor) -> Tensor:
        images = self.image_norm(images)
        states = self.attention(self.text_norm(texts), images, images, need_weights=False)[0]
        length = texts.shape[1]
        hidden = torch.zeros(padding.shape).masked_fill(padding, -torch.inf)
        hidden = hidden[:, None].expand(-1, length, -1).repeat_interleave(self.heads, 0)
        return self.norm(self.transformer(states, attn_mask=hidden))


class OpenClipIrra(nn.Module):
    """IRRA from open_clip's modules, with a model's weights."""

    def __init__(self, model: IRRA) -> None:
        super().__init__()
        size, width, vocabulary = model.size, model.size.embed_dim, model.tokenizer.vocab_size
        vision = CLIPVisionCfg(
            layers=size.vision_layers,
            width=size.vision_width,
            head_width=size.vision_width // size.vision_heads,
            patch_size=size.patch,
            image_size=model.image_size,
        )
        text = CLIPTextCfg(
            POSITIONS, vocabulary, width=size.text_width, heads=size.text_heads, layers=size.text_layers
        )
        self.clip = CLIP(width, vision, text, quick_gelu=size.quick_gelu)
        self.clip.logit_scale.requires_grad_(False)
        self.clip.visual.pool_type = "none"  # every token
        self.cross_modal = CrossModal(width, len(model.cross_modal.transformer.resblocks))
        self.language_head = nn.Sequential(
            nn.Linear(width, width), QuickGELU(), nn.LayerNorm(width), nn.Linear(width, vocabulary)
        )
        self.classifier = nn.Linear(width, IDENTITIES)
        own = {theirs_of(name): value for name, value in model.state_dict().items()}
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(own[name].T if name in TRANSPOSED else own[name])

    def read(self, ids: Tensor) -> Tensor:
        """Every token of the texts, projected."""
        clip, length = self.clip, ids.shape[1]
        states = clip.token_embedding(ids) + clip.positional_embedding[:length]
        states = clip.transformer(states, attn_mask=clip.attn_mask[:length, :length])
        return clip.ln_final(states) @ clip.text_projection


class OpenClipStep:
    """A training step of it on a batch whose texts have a given number of tokens."""

    def __init__(
        self, irra: OpenClipIrra, optimizer: torch.optim.Optimizer, model: IRRA, batch: Batch, length: int
    ) -> None:
        self.irra, self.optimizer = irra, optimizer
        self.images, self.labels = batch.images, batch.labels
        room = (0, length - batch.texts.ids.shape[1])
        self.ids, self.mask = pad(batch.texts.ids, room), pad(batch.texts.mask, room)
        last = self.mask.sum(1) - 1
        self.ends = torch.arange(len(last)), last
        inside = (torch.arange(length) > 0) & (torch.arange(length) < last[:, None])
        words = model.tokenizer
        self.hidden, self.chosen = mask_tokens(self.ids, inside, batch.seeds, words.mask_id, words.start_id)

    def losses(self) -> dict[str, Tensor]:
        """SDM, MLM and ID, from docs/methods/irra.md."""
        irra = self.irra
        tokens = irra.clip.visual(self.images)
        images, texts = tokens[:, 0], irra.read(self.ids)[self.ends]
        states = irra.cross_modal(irra.read(self.hidden), ~self.mask, tokens)
        logits = irra.language_head(states)
        guessed = cross_entropy(logits[self.chosen], self.ids[self.chosen])
        named = [cross_entropy(irra.classifier(one), self.labels) for one in (images, texts)]
        return {"sdm": plain_sdm(images, texts, self.labels), "mlm": guessed, "identity": sum(named) / 2}

    def __call__(self) -> None:
        losses = self.losses()
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        self.optimizer.step()


TRANSPOSED = ("clip.visual.proj", "clip.text_projection")


def theirs_of(name: str) -> str:
    """The name there of one of our weights."""
    for ours, theirs in (
        ("image_projection.weight", "clip.visual.proj"),
        ("text_projection.weight", "clip.text_projection"),
        ("visual.", "clip.visual."),
        ("text.", "clip."),
    ):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def plain_sdm(images: Tensor, texts: Tensor, labels: Tensor) -> Tensor:
    """SDM of docs/methods/irra.md, both directions."""
    similarity = 50 * normalize(images, dim=1) @ normalize(texts, dim=1).T
    same = (labels[:, None] == labels[None, :]).float()
    wanted = (same / same.sum(1, keepdim=True) + 1e-8).log()
    both = [
        (one.softmax(1) * (log_softmax(one, 1) - wanted)).sum(1).mean() for one in (similarity, similarity.T)
    ]
    return both[0] + both[1]


def stepper(model: IRRA, batch: Batch, directory: Path) -> Callable[[], None]:
    """One step of the loop on this batch."""
    trainer = make_trainer(RetrievalTask(model), model.parameter_groups(1e-5, 4e-5), directory, CPU)
    trainer.task.train()
    return lambda: trainer._step(batch, 0, 0)


def check_equality(model: IRRA, batch: Batch, theirs: OpenClipStep) -> dict[str, str]:
    """Losses and gradients of one step; SystemExit where they differ. Returns the differences."""
    expected, found = theirs.losses(), model.losses(batch)
    sum(expected.values()).backward()
    sum(found.values()).backward()
    loss = max(abs((found[name] / expected[name]).item() - 1) for name in expected)
    gradients = {name: one.grad for name, one in theirs.irra.named_parameters()}
    gradient = 0.0  # relative to the gradient's own size
    for name, one in model.named_parameters():
        there = gradients[theirs_of(name)]
        there = there.T if theirs_of(name) in TRANSPOSED else there
        gradient = max(gradient, ((one.grad - there).norm() / there.norm().clamp(min=1e-6)).item())
    if set(found) != set(expected) or loss > LOSS_TOLERANCE or gradient > GRADIENT_TOLERANCE:
        raise SystemExit(f"Losses differ by {loss:.1e}, gradients by {gradient:.1e} of their size.")
    for part in (model, theirs.irra):
        part.zero_grad(set_to_none=True)
    return {"loss_difference": f"{loss:.1e}", "gradient_difference": f"{gradient:.1e}"}


def compare(options: argparse.Namespace) -> list[dict[str, object]]:
    """The versions on the CPU, timed in turns."""
    batch_size = options.batch or {"tiny": 48, "base": 8}[options.size]
    model = make_model(options.size)
    batch = make_batch(model, batch_size)
    length = batch.texts.ids.shape[1]
    irra = OpenClipIrra(model)
    optimizer = torch.optim.AdamW(irra.parameters(), lr=1e-5, weight_decay=4e-5)
    theirs, cut = (OpenClipStep(irra, optimizer, model, batch, width) for width in (POSITIONS, length))
    check_equality(model, batch, cut)
    differences = check_equality(model, batch, theirs)
    with tempfile.TemporaryDirectory() as directory:
        actions = {
            "open_clip, texts of 77": theirs,
            f"open_clip, texts of {length}": cut,
            "ours": stepper(model, batch, Path(directory)),
        }
        if options.profile:
            for name, action in actions.items():
                action()
                print(f"\n{options.size}, batch {batch_size}, {name}\n\n{profile_of(action)}")
            return []
        times = in_turns(actions, options.repetitions)
    height, width = model.image_size
    common = {"size": options.size, "batch": batch_size, "pixels": f"{height}x{width}"}
    return rows_of(times, batch_size, "images", common | differences)


def main() -> None:
    """Compares on a CPU and writes the CSV."""
    parser = parser_of(__doc__, repetitions=5)
    parser.add_argument("--batch", type=int, help="by default 48 at tiny and 8 at base size")
    options = parser.parse_args()
    if options.device != "cpu" or options.size not in IMAGE_SIZES:
        parser.error("this compares on a CPU, at tiny or base size")
    machine_of("cpu", "fp32")  # chooses the library
    rows = compare(options)
    if not options.profile:
        write_csv("clip_step", options.device, rows, options.results)


if __name__ == "__main__":
    main()
