"""Models that have learnt one thing, of which is known where in the image it lies: their maps find it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from models.backbones.blip.sizes import Size as BlipSize
from models.backbones.clip.sizes import Size as ClipSize
from models.methods.base import Method
from models.registry import build_model

pytestmark = pytest.mark.integration
COLOURS = {"red": (1.0, -1, -1), "blue": (-1.0, -1, 1), "green": (-1.0, 1, -1), "white": (1.0, 1, 1)}
NAMES = list(COLOURS)
CAPTIONS = [f"a {hat} hat and {shoes} shoes" for hat in NAMES for shoes in NAMES]


def drawn(colours: Tensor, image_size: tuple[int, int], side: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise with two squares of a model's regions, of colours (B, 2); and where they are, (B, 2) in reading order."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = image_size[0] // side, image_size[1] // side
    images = 0.3 * torch.randn(len(colours), 3, *image_size, generator=generator)
    places = torch.stack([torch.randperm(rows * columns, generator=generator)[:2] for _ in colours])
    for image, pair, at in zip(images, colours.tolist(), places.tolist(), strict=True):
        for colour, place in zip(pair, at, strict=True):
            top, left = side * (place // columns), side * (place % columns)
            shade = torch.tensor(COLOURS[NAMES[colour]])[:, None, None]
            image[:, top : top + side, left : left + side] = shade
    return images, places


def pairs_of_colours(count: int, seed: int) -> Tensor:
    """(count, 2) two different colours, in the order of `NAMES`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(4, generator=generator)[:2] for _ in range(count)]).sort(1).values


def said(colours: Tensor) -> list[str]:
    return [f"a {NAMES[hat]} hat and {NAMES[shoes]} shoes" for hat, shoes in colours.tolist()]


def optimise(model: Method, steps: int, rate: float, loss) -> None:
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=rate)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 10)
        loss(step).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def learn_to_compare(model: Method, side: int, steps: int, rate: float) -> None:
    """Contrasts images with captions that name both colours."""

    def loss(step: int) -> Tensor:
        colours = pairs_of_colours(48, step)
        images, _ = drawn(colours, model.image_size, side, step)
        seen, told = model.encode_images(images)[1], model.encode_texts(said(colours))[1]
        logits = 14 * normalize(seen, dim=1) @ normalize(told, dim=1).T
        same = (colours[:, None] == colours[None]).all(2).float()
        targets = same / same.sum(1, keepdim=True)
        return cross_entropy(logits, targets) + cross_entropy(logits.T, targets)

    optimise(model, steps, rate, loss)


def trained(kind: str, directory) -> tuple[Method, int]:
    """A model that compares, and the pixels along a side of one of its regions."""
    torch.manual_seed(0)
    if kind == "ssan":
        from models.backbones.resnet_lstm.words import Words

        words = Words.train(CAPTIONS * 2, directory, 100)
        model = build_model("ssan", size="tiny", image_size=(96, 32), tokenizer=words, dropout=0.0)
        learn_to_compare(model, 16, 40, 2e-3)
        return model, 16
    from models.backbones.clip.tokenizer import ClipTokenizer

    size = ClipSize(32, 32, 2, 2, 8, 32, 2, 2, (32, 24), rotary=kind == "eva")
    model = build_model("clip", size=size, tokenizer=ClipTokenizer.train(CAPTIONS * 2, directory, 200))
    learn_to_compare(model, 8, 60, 3e-3)
    return model, 8


def found_by(maps: Tensor, places: Tensor) -> float:
    """The share of maps (B, h, w) whose largest value is at a place (B,)."""
    return float((maps.flatten(1).argmax(1) == places).float().mean())


@pytest.mark.parametrize("kind", ["clip", "eva", "ssan"])
def test_a_colours_name_finds_the_square_of_that_colour(tmp_path, kind):
    """One of twelve regions: chance is 8 %. The plain similarity of tokens and patches stays near it."""
    model, side = trained(kind, tmp_path)
    colours = pairs_of_colours(100, 1000)
    images, places = drawn(colours, model.image_size, side, 1000)
    found = model.word_maps(images, said(colours))
    assert found[0].words[1::3] == tuple(NAMES[number] for number in colours[0])
    shares = []
    for which, number in enumerate((1, 4)):
        maps = torch.stack([one.maps[number] for one in found])
        shares.append((found_by(maps, places[:, which]), found_by(maps, places[:, 1 - which])))
        effects = torch.stack([one.effects for one in found])
        assert float(effects[:, number].mean()) > float(effects[:, [0, 2, 3, 5]].mean(0).abs().max())
    assert all(own > 0.4 and own > other for own, other in shares), shares
    if kind == "ssan":
        return
    with torch.no_grad():
        patches = normalize(model.encode_images(images)[0][:, 1:], dim=2)
        tokens = normalize(model.encode_texts(said(colours))[0], dim=2)
    similarity = tokens @ patches.transpose(1, 2)
    plain = [
        float((similarity[:, column].argmax(1) == places[:, which]).float().mean())
        for which, column in enumerate((2, 5))
    ]
    assert max(plain) < 0.25, plain


def test_the_square_that_decides_a_match_is_found(tmp_path):
    """A red square means "match" and a blue one does not, wherever it lies; a white one means nothing."""
    from models.backbones.blip.tokenizer import BlipTokenizer

    torch.manual_seed(0)
    size = BlipSize(32, 2, 2, 8, 32, 2, 2, 64, 16, (32, 24), checkpoint_blocks=0)
    words = BlipTokenizer.train(CAPTIONS * 2, tmp_path, 100)
    model = build_model("blip", size=size, tokenizer=words, dropout=0.0)

    def shown(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        is_red = torch.rand(count, generator=torch.Generator().manual_seed(seed)) < 0.5
        colours = torch.stack([(~is_red).long(), torch.full((count,), 3)], 1)
        return is_red, *drawn(colours, model.image_size, 8, seed)

    def loss(step: int) -> Tensor:
        is_red, images, _ = shown(48, step)
        return cross_entropy(model.match(["a red hat"] * 48, model.encode_images(images)[0]), is_red.long())

    optimise(model, 60, 3e-3, loss)
    is_red, images, places = shown(100, 1000)
    with torch.no_grad():
        logits = model.match(["a red hat"] * 100, model.encode_images(images)[0])
    assert float((logits.argmax(1) == is_red).float().mean()) > 0.95
    overall = torch.stack([one.overall for one in model.word_maps(images, ["a red hat"] * 100)])[is_red]
    assert found_by(overall, places[is_red, 0]) > 0.8
    assert found_by(overall, places[is_red, 1]) < 0.1
