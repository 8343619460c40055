"""What the methods cost: operations are those of the definition, none goes uncounted, and rows are complete."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from benchmarks import flops, model_profile, model_zoo
from benchmarks.flops import operations_of
from models import METHODS, build_model
from models.backbones.blip.tokenizer import BlipTokenizer
from models.backbones.linear import Linear


def test_products_that_torch_does_not_count_are_counted_by_their_definition() -> None:
    values = torch.randn(2, 60, 256)
    layer = Linear(256, 512)  # large enough for oneDNN
    assert operations_of(lambda: layer(values)) == 2 * 2 * 60 * 256 * 512
    query, key = torch.randn(2, 4, 10, 16), torch.randn(2, 4, 7, 16)
    expected = 2 * (2 * 4) * 10 * 7 * 16 * 2
    assert operations_of(lambda: scaled_dot_product_attention(query, key, key)) == expected
    lstm = torch.nn.LSTM(20, 24, bidirectional=True, batch_first=True)
    words = torch.randn(3, 5, 20)
    assert operations_of(lambda: lstm(words)) == 2 * 2 * 3 * 5 * 4 * 24 * (20 + 24)
    layer = torch.nn.MultiheadAttention(32, 4, batch_first=True).eval()
    tokens = torch.randn(2, 9, 32)
    expected = 2 * 2 * 9 * 32 * 4 * 32 + 2 * 2 * 2 * 9 * 9 * 32
    assert operations_of(lambda: layer(tokens, tokens, tokens, need_weights=False)) == expected


def test_a_product_that_nobody_counts_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"Nobody counts aten\.addmv"):
        operations_of(lambda: torch.addmv(torch.zeros(3), torch.ones(3, 4), torch.ones(4)))


def test_a_whole_encoder_is_counted_as_by_its_formula(tmp_path) -> None:
    """Against the formulas that the benchmarks of training and matching go by, written from the sizes."""
    words = BlipTokenizer.train(["red coat blue hat"] * 4, tmp_path, vocab_size=60)
    model = build_model("pspd", size="tiny", tokenizer=words).eval()
    images = torch.randn(2, 3, *model.image_size)
    counted = operations_of(lambda: model.visual_encoder(images))
    assert counted == pytest.approx(2 * flops.image_flops(model), rel=1e-6)
    texts = words(["red coat blue hat"] * 2)
    counted = operations_of(lambda: model.text_encoder(texts.ids))
    assert counted == pytest.approx(2 * flops.text_flops(model, texts.ids.shape[1], False), rel=1e-6)


@pytest.mark.integration
@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_its_row(method) -> None:
    row = model_profile.profile(method, "tiny", 2, "cpu")
    assert {*model_zoo.COSTS} - {"processor"} <= set(row)
    assert row["parameters"] > 1e6
    for name in ("image", "text", *(["pair"] if METHODS[method].has_matching else [])):
        assert float(row[f"gflops_per_{name}"]) > 0
        assert float(row[f"{name}s_per_second"]) > 0
    assert METHODS[method].has_matching or row["gflops_per_pair"] == row["pairs_per_second"] == ""
    assert row["peak_mib"] > 100


def test_the_table_has_every_method_in_every_size() -> None:
    row = {name: "1" for name in model_zoo.COSTS} | {
        "method": "pspd",
        "size": "base",
        "parameters": "1500000",
    }
    lines = model_zoo.cost_table([row]).splitlines()
    assert len(lines) == 2 + sum(len(kind.sizes) for kind in METHODS.values())
    assert len({line.count("|") for line in lines}) == 1
    (measured,) = (line for line in lines[2:] if "to be measured" not in line)
    assert measured.startswith("| PSPD | base | 1 | 1.5 |")
