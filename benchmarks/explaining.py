"""What an explanation costs: an image with a sentence of 12 words, explained, against encoding (and matching) the two.

Each method at base size with random weights, an image of CUHK-PEDES' size, as `serving.explaining` and `retrieval` ask their models.

    OMP_NUM_THREADS=1 python benchmarks/explaining.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import captions_of, in_turns, machine_of, parser_of, profile_of, rows_of, write_csv
from benchmarks.model_profile import config_of, vocabulary_of
from models import METHODS, build_model
from models.methods.base import Method
from retrieval.verbs import inference

WORDS = 12


def make_model(method: str, size: str) -> Method:
    """With the method's own configuration and vocabulary, always the same random weights."""
    config = config_of(method, size)
    words = vocabulary_of(METHODS[method], config, size == "tiny")
    torch.manual_seed(0)
    options = {**config.model.options, "image_size": config.model.image_size}
    return build_model(method, size=size, tokenizer=words, **options).eval()


def sentence() -> str:
    """Twelve words of the invented captions."""
    return " ".join(" ".join(captions_of(5)).split()[:WORDS])


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--methods", nargs="*", default=["pspd", "irra", "ssan"], help="one of each backbone")
    arguments = parser.parse_args()
    rows = []
    for method in arguments.methods:
        model = machine_of(arguments.device, "fp32").place(make_model(method, arguments.size))
        images = torch.randn(1, 3, *model.image_size).to(arguments.device)
        texts = model.tokenizer([sentence()]).to(arguments.device)

        def answer(model=model, images=images, texts=texts) -> None:
            with inference(model):
                tokens, _ = model.encode_images(images)
                model.encode_texts(texts)
                if model.has_matching:
                    model.match(texts, tokens)

        def explanation(model=model, images=images) -> None:
            with inference(model):
                model.word_maps(images, [sentence()])

        if arguments.profile:
            print(profile_of(explanation))
            continue
        times = in_turns({"answer": answer, "ours": explanation}, arguments.repetitions, arguments.device)
        height, width = model.image_size
        common = {"method": method, "size": arguments.size, "image": f"{height}x{width}", "words": WORDS}
        rows += rows_of(times, 1, "images", common)
    if rows:
        write_csv("explaining", arguments.device, rows, arguments.results)


if __name__ == "__main__":
    main()
