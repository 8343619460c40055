"""BLIP's captioner: an image encoder and a text decoder that looks at its tokens and continues a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.attention import layout_of
from models.backbones.blip.checkpoints import load_blip
from models.backbones.blip.retrieval import BlipRetrieval, recomputed, required, text_shape
from models.backbones.blip.sizes import SIZES, Size
from models.backbones.blip.text import DecoderCache, TextDecoder
from models.backbones.blip.tokenizer import CAPTION_LENGTH, BlipTokenizer
from models.backbones.blip.vision import BlipVision
from models.backbones.sizes import size_named
from models.backbones.weights import LoadReport
from models.texts import TextBatch

IGNORED = -100


class BlipCaptioner(nn.Module):
    """Image encoder and text decoder, named as in BLIP's captioning files. Arguments as in `BlipRetrieval`."""

    backbone = BlipRetrieval.backbone
    tokenizer_class = BlipTokenizer
    pixel_mean, pixel_std = BlipRetrieval.pixel_mean, BlipRetrieval.pixel_std
    interpolation = BlipRetrieval.interpolation
    encoder_prefixes = ("visual_encoder.", "text_decoder.")

    def __init__(
        self,
        size: str | Size = "base",
        image_size: tuple[int, int] | None = None,
        tokenizer: BlipTokenizer | None = None,
        vit_grad_ckpt: bool | None = None,
        vit_ckpt_layer: int | None = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.size = size = size_named(size, SIZES)
        self.tokenizer = tokenizer = required(tokenizer)
        image_size = tuple(image_size or size.image_size)
        self.visual_encoder = BlipVision(size, image_size, recomputed(size, vit_grad_ckpt, vit_ckpt_layer))
        self.text_decoder = TextDecoder(text_shape(size, tokenizer, dropout))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.visual_encoder.cls_token.device

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) the image encoder was built for."""
        return self.visual_encoder.image_size

    def load_pretrained(self, path: str | Path) -> LoadReport:
        """Fills the model with released weights; see `load_blip`."""
        return load_blip(self, path)

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Takes a retrieval model's image encoder and, as BLIP shares them, its text layers but self-attention.

        Args:
            weights: of a `BlipRetrieval` of the same size; what has another name or shape is left alone.
        """
        own = self.state_dict()
        for name, tensor in weights.items():
            target = name.replace("text_encoder.", "text_decoder.bert.", 1)
            shared = name.startswith("visual_encoder.") or (
                name.startswith("text_encoder.") and ".attention." not in name
            )
            if shared and target in own and own[target].shape == tensor.shape:
                own[target].copy_(tensor)

    def encode_images(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to tokens (B, N, vision_width); one encoding serves every prompt."""
        return self.visual_encoder(images)

    def prompt_lengths(self, prompts: Sequence[str]) -> Tensor:
        """(B,) how many leading tokens of a text that begins with the prompt are the prompt's, [DEC] included."""
        return torch.tensor([len(self.tokenizer.prompt_ids(prompt)) for prompt in prompts], dtype=torch.int64)

    def logits(self, image_tokens: Tensor, ids: Tensor) -> Tensor:
        """Next-word logits (B, L, vocab_size) after each of ids (B, L), padded on the right, [DEC] first."""
        return self.text_decoder.word_logits(self.text_decoder.bert(ids, None, image_tokens, causal=True))

    def loss(
        self, image_tokens: Tensor, texts: TextBatch, prompt_lengths: Tensor, label_smoothing: float = 0.1
    ) -> Tensor:
        """Mean next-word cross-entropy over the words after the prompts (BLIP's LM loss), a scalar.

        Args:
            image_tokens: (B, N, vision_width).
            texts: [CLS] prompt caption [SEP], as the tokenizer gives them; [CLS] is replaced by [DEC] here.
            prompt_lengths: (B,) int64 from `prompt_lengths`: that many leading tokens are read but not predicted.
            label_smoothing: weight of the uniform distribution in the target.

        Raises ValueError where numbers of images, texts and prompts differ.
        """
        if not len(image_tokens) == len(texts) == len(prompt_lengths):
            raise ValueError(
                f"{len(image_tokens)} images, {len(texts)} texts and {len(prompt_lengths)} prompt lengths: "
                "they must be as many"
            )
        texts = texts.to(self.device, non_blocking=True)
        ids = texts.ids.clone()
        ids[:, 0] = self.tokenizer.dec_id
        hidden = self.text_decoder.bert(ids[:, :-1], texts.mask[:, :-1], image_tokens, causal=True)
        columns = torch.arange(1, ids.shape[1], device=ids.device)
        predicted = texts.mask[:, 1:] & (columns >= prompt_lengths.to(ids.device)[:, None])
        # The vocabulary's matrix is a fifth of the decoder's work: where their number is known without waiting, it is
        # spent on predicted words alone.
        layout = layout_of(predicted)
        targets = layout.pack(ids[:, 1:].masked_fill(~predicted, IGNORED)[..., None]).flatten()
        logits = self.text_decoder.word_logits(layout.pack(hidden)).flatten(0, -2)
        return F.cross_entropy(logits.float(), targets, ignore_index=IGNORED, label_smoothing=label_smoothing)

    @torch.no_grad()
    def generate(
        self,
        image_tokens: Tensor,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        top_p: float = 0.9,
        top_k: int = 0,
        repetition_penalty: float = 1.1,
        min_length: int = 40,
        max_length: int = CAPTION_LENGTH,
        greedy: bool = False,
    ) -> list[str]:
        """Captions that continue the prompts, prompts included as they were given.

        Nucleus sampling (Holtzman et al., ICLR 2020) with the repetition penalty of CTRL (Keskar et al., 2019)
        on every token of the text so far. Lengths count all tokens, the prompt's too. What is drawn for text b
        depends on seeds[b] and not on what else is in the batch.

        Args:
            image_tokens: (B, N, vision_width).
            prompts: B strings, which may differ in length and may be empty.
            seeds: B numbers; unused with `greedy`, which takes the likeliest word.
            top_k: keep the k likeliest words before the nucleus is taken of what is left (Fan et al., ACL 2018); 0: all.

        Raises ValueError where numbers differ, or a prompt leaves no room under max_length.
        """
        if not len(image_tokens) == len(prompts) == len(seeds):
            raise ValueError(
                f"{len(image_tokens)} images, {len(prompts)} prompts and {len(seeds)} seeds: they must be as many"
            )
        if not prompts:
            return []
        rules = _Rules(top_p, top_k, repetition_penalty, min_length, max_length, greedy)
        with _evaluating(self):
            rows = _Writer(self, image_tokens, prompts, seeds, rules).write()
        return [_continued(self.tokenizer, prompt, row) for prompt, row in zip(prompts, rows, strict=True)]


@dataclass(frozen=True)
class _Rules:
    top_p: float
    top_k: int
    repetition_penalty: float
    min_length: int
    max_length: int
    greedy: bool


class _Writer:
    """The texts of one batch while they are being written, one token per step."""

    def __init__(
        self,
        captioner: BlipCaptioner,
        image_tokens: Tensor,
        prompts: Sequence[str],
        seeds: Sequence[int],
        rules: _Rules,
    ) -> None:
        tokenizer, device = captioner.tokenizer, image_tokens.device
        starts = [tokenizer.prompt_ids(prompt) for prompt in prompts]
        if max(map(len, starts)) >= rules.max_length:
            raise ValueError(
                f"a prompt has {max(map(len, starts))} tokens: max_length {rules.max_length} leaves no room"
            )
        self.decoder, self.rules, self.end = captioner.text_decoder, rules, tokenizer.sep_id
        self.prompt_lengths = torch.tensor([len(start) for start in starts])
        self.lengths = self.prompt_lengths.clone()
        rows = [start + [tokenizer.pad_id] * (rules.max_length - len(start)) for start in starts]
        self.tokens = torch.tensor(rows, device=device)
        self.done = torch.zeros(len(rows), dtype=torch.bool, device=device)
        self.seen = torch.zeros(len(rows), tokenizer.vocab_size, dtype=torch.bool, device=device)
        self.seen.scatter_(1, self.tokens, True)
        self.never = torch.tensor(sorted(tokenizer.special_ids - {tokenizer.sep_id}), device=device)
        self.cache = DecoderCache(self.decoder.bert, image_tokens, rules.max_length)
        self.draws = _draws(seeds, rules.max_length).to(device)

    def write(self) -> list[list[int]]:
        """Runs to the end; the token ids after each prompt, without [SEP]."""
        width = int(self.lengths.max())
        hidden = self.decoder.bert.extend(self.tokens[:, :width], self.cache)
        rows = torch.arange(len(hidden))
        hidden = hidden[rows.to(hidden.device), (self.lengths - 1).to(hidden.device)]
        for step in range(self.rules.max_length):
            chosen = self._choose(self.decoder.word_logits(hidden).float(), self.draws[:, step])
            self._append(chosen)
            if bool(self.done.all()):
                break
            # A finished text keeps its place in the batch and rewrites its last column until all are finished.
            places = self.lengths.clamp(max=self.rules.max_length) - 1
            hidden = self.decoder.bert.extend(chosen[:, None], self.cache, places)[:, 0]
        ends = zip(self.tokens.tolist(), self.prompt_lengths.tolist(), strict=True)
        return [[token for token in row[start:] if token not in (self.end, 0)] for row, start in ends]

    def _append(self, chosen: Tensor) -> None:
        """Writes a token to every text that is not finished, and finishes those that end or are full."""
        places = self.lengths.clamp(max=self.rules.max_length - 1).to(chosen.device)[:, None]
        written = self.tokens.gather(1, places)[:, 0]
        self.tokens.scatter_(1, places, torch.where(self.done, written, chosen)[:, None])
        self.seen.scatter_(1, chosen[:, None], True)
        self.lengths = self.lengths + 1
        self.done |= (chosen == self.end) | (self.lengths >= self.rules.max_length).to(chosen.device)

    def _choose(self, logits: Tensor, draws: Tensor) -> Tensor:
        """Token ids (B,) from logits (B, vocab_size) and uniform draws (B,)."""
        penalised = torch.where(
            logits < 0, logits * self.rules.repetition_penalty, logits / self.rules.repetition_penalty
        )
        logits = torch.where(self.seen, penalised, logits)
        logits[:, self.never] = float("-inf")
        short = (self.lengths < self.rules.min_length).to(logits.device)
        logits[:, self.end] = logits[:, self.end].masked_fill(short, float("-inf"))
        if self.rules.greedy:
            return logits.argmax(-1)
        return sample_nucleus(likeliest(logits, self.rules.top_k).softmax(-1), draws, self.rules.top_p)


def likeliest(logits: Tensor, k: int) -> Tensor:
    """Logits (B, V) with all but each row's k largest at -inf; what equals the k-th stays. k = 0 or above V keeps all."""
    if not 0 < k < logits.shape[1]:
        return logits
    return logits.masked_fill(logits < logits.topk(k, dim=1).values[:, -1:], float("-inf"))


def sample_nucleus(probabilities: Tensor, draws: Tensor, top_p: float) -> Tensor:
    """Draws (B,) ids from the smallest sets of likeliest entries whose probabilities (B, V) sum to top_p or more.

    A set has one entry at least. The draw inverts the cumulative distribution in vocabulary order, not in order of probability: two near-equal
    entries that swap ranks in another batch's rounding then do not change what is drawn.
    """
    # Entries below (1 - top_p) / V sum to less than 1 - top_p, so they are outside: sorting can stop there.
    floor = (1 - top_p) / probabilities.shape[1]
    count = max(1, int((probabilities >= floor).sum(1).max()))
    likeliest = probabilities.topk(count, dim=1).values.double()
    inside = likeliest.cumsum(1) - likeliest < top_p
    inside[:, 0] = True  # whatever top_p: a draw from nothing would be no entry
    threshold = likeliest.masked_fill(~inside, float("inf")).amin(1, keepdim=True).to(probabilities.dtype)
    nucleus = torch.where(probabilities >= threshold, probabilities, 0).double().cumsum(1)
    return torch.searchsorted(nucleus, draws[:, None] * nucleus[:, -1:], right=True)[:, 0]


def _draws(seeds: Sequence[int], steps: int) -> Tensor:
    """(B, steps) uniform numbers, row b from its own generator, on the CPU so that every device draws alike."""
    rows = [
        torch.rand(steps, dtype=torch.float64, generator=torch.Generator().manual_seed(int(seed)))
        for seed in seeds
    ]
    return torch.stack(rows)


def _continued(tokenizer: BlipTokenizer, prompt: str, ids: list[int]) -> str:
    words = tokenizer.decode(ids)
    if not words or not prompt.strip():
        return words or prompt.strip()
    joint = "" if words[0] in ",?'-" else " "
    return f"{prompt.strip()}{joint}{words}"


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """No dropout inside; training goes on as it was after."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
