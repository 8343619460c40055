"""Two captions per image (stage C): ours against encoding twice and generating without a cache, in one run.

Ours encodes a batch once for both passes and keeps keys and values. The plain version, written from the definition,
encodes the images for each pass and runs the decoder over the whole text for every word; its batches are the same.
Both draw alike, so they must write the same texts.

    OMP_NUM_THREADS=2 python benchmarks/caption_generation.py
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import in_turns, parser_of, profile_of, rows_of, tokenizer_of, write_csv
from captioning.gender import gender_of
from captioning.prompts import CAPTIONER_QUESTION, opening
from engine.config import Config, GenTextConfig, RuntimeConfig
from engine.machine import Machine, make_machine
from engine.seeds import seed_of
from engine.stages.image_captions import two_pass_captions
from models.backbones.blip.captioner import BlipCaptioner, sample_nucleus

Captions = list[tuple[str, str, str]]


def plain_text(
    model: BlipCaptioner, pixels: Tensor, prompts: list[str], seeds: list[int], settings: GenTextConfig
) -> list[str]:
    """One pass: encodes the images, then reads the whole text again for every word that is added."""
    words, device = model.tokenizer, pixels.device
    image_tokens = model.encode_images(pixels)
    texts = [words.prompt_ids(prompt) for prompt in prompts]
    starts = [len(text) for text in texts]
    draws = [
        torch.rand(settings.max_length, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        for seed in seeds
    ]
    never = sorted(words.special_ids - {words.sep_id})
    finished = [False] * len(texts)
    for step in range(settings.max_length):
        width = max(map(len, texts))
        ids = torch.tensor([text + [words.pad_id] * (width - len(text)) for text in texts], device=device)
        ends = torch.tensor([len(text) - 1 for text in texts], device=device)
        hidden = model.text_decoder.bert(ids, None, image_tokens, causal=True)
        logits = model.text_decoder.word_logits(hidden[torch.arange(len(texts), device=device), ends]).float()
        for row, text in enumerate(texts):
            seen = torch.tensor(sorted({*text, words.pad_id}), device=device)
            known = logits[row, seen]
            penalty = settings.repetition_penalty
            logits[row, seen] = torch.where(known < 0, known * penalty, known / penalty)
            logits[row, never] = float("-inf")
            if len(text) < settings.min_length:
                logits[row, words.sep_id] = float("-inf")
        drawn = torch.stack([draw[step] for draw in draws]).to(device)
        chosen = sample_nucleus(logits.softmax(-1), drawn, settings.top_p).tolist()
        for row, token in enumerate(chosen):
            if not finished[row]:
                texts[row] = [*texts[row], token]
                finished[row] = token == words.sep_id or len(texts[row]) >= settings.max_length
        if all(finished):
            break
    endings = [
        words.decode([t for t in text[start:] if t != words.sep_id])
        for text, start in zip(texts, starts, strict=True)
    ]
    return [f"{prompt} {ending}" for prompt, ending in zip(prompts, endings, strict=True)]


def plain_two_passes(
    model: BlipCaptioner, pixels: Tensor, names: list[str], positions: np.ndarray, config: Config
) -> Captions:
    """The same captions as ``two_pass_captions``, with nothing kept from one word or pass to the next."""
    settings = config.gen_text
    seeds = [seed_of(config.seed, "base", name) for name in names]
    answers = plain_text(model, pixels, [CAPTIONER_QUESTION] * len(names), seeds, settings)
    bases = [answer[len(CAPTIONER_QUESTION) :].strip() for answer in answers]
    openings = [opening(gender_of(base), int(i), "C") for base, i in zip(bases, positions, strict=True)]
    seeds = [seed_of(config.seed, "styled", name) for name in names]
    return list(zip(bases, plain_text(model, pixels, openings, seeds, settings), openings, strict=True))


def make_problem(
    machine: Machine, size: str, images: int, length: int, entries: int = 2002
) -> tuple[BlipCaptioner, Tensor, list[str], np.ndarray, Config]:
    """A captioner with random weights and as many words, and images: what ``two_pass_captions`` asks for.

    All texts run to the end, so that every version writes the same number of words whatever the random weights say.
    """
    torch.manual_seed(0)
    model = machine.place(BlipCaptioner(size, tokenizer=tokenizer_of(entries)).eval())
    config = Config(gen_text=GenTextConfig(min_length=length, max_length=length))
    pixels = torch.randn(images, 3, *model.image_size, device=machine.device)
    return model, pixels, [f"{i}.jpg" for i in range(images)], np.arange(images), config


@torch.inference_mode()
def run(options: argparse.Namespace) -> list[dict[str, object]]:
    """Both versions in turns, after their captions were compared."""
    length = options.max_length
    machine = make_machine(RuntimeConfig(device=options.device, precision="fp32"))
    given = make_problem(machine, options.size, options.images, length)
    actions = {"plain": lambda: plain_two_passes(*given), "ours": lambda: two_pass_captions(*given)}
    if options.profile:
        for name, action in actions.items():
            print(f"\n{name}\n\n{profile_of(action)}")
        return []
    plain, ours = (action() for action in actions.values())
    same = sum(found == wanted for found, wanted in zip(ours, plain, strict=True))
    if options.device == "cpu" and same < options.images:
        raise SystemExit(f"Only {same} of {options.images} images have the same captions in both versions.")
    times = in_turns(actions, options.repetitions, options.device, warm=True)
    common = {"size": options.size, "images": options.images, "tokens": length, "same_captions": same}
    return rows_of(times, 2 * options.images, "captions", common)


def main() -> None:
    """Runs the comparison and writes the CSV."""
    parser = parser_of(__doc__)
    parser.add_argument("--images", type=int, default=2, help="the batch")
    parser.add_argument("--max-length", type=int, default=40, help="tokens of a text, prompt included")
    options = parser.parse_args()
    rows = run(options)
    if rows:
        write_csv("caption_generation", options.device, rows, options.results)


if __name__ == "__main__":
    main()
