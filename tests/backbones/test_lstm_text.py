"""The LSTM against torch's packed one, maxima and word attention against loops, and captions that have no word."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from models.backbones.resnet_lstm.sizes import SIZES
from models.backbones.resnet_lstm.text import BiLstm, TextEncoder

SIZE = replace(SIZES["tiny"], width=2, word_width=6)  # states of 16
LENGTHS = torch.tensor([5, 1, 7, 3])
MASK = torch.arange(7) < LENGTHS[:, None]
IDS = torch.randint(1, 20, MASK.shape, generator=torch.Generator().manual_seed(2)) * MASK


def packed(ours: BiLstm, inputs: int, outputs: int) -> nn.LSTM:
    """torch's bidirectional LSTM with our weights."""
    theirs = nn.LSTM(inputs, outputs, bias=False, batch_first=True, bidirectional=True).double()
    for name, ending in (("forwards", ""), ("backwards", "_reverse")):
        for kind in ("weight_ih_l0", "weight_hh_l0"):
            source = getattr(getattr(ours, name), kind).detach().clone()
            setattr(theirs, kind + ending, nn.Parameter(source))
    return theirs


def test_states_and_gradients_equal_a_packed_lstm():
    torch.manual_seed(0)
    ours = BiLstm(6, 16).double()
    theirs = packed(ours, 6, 16)
    words = torch.randn(4, 7, 6, dtype=torch.float64)
    sequence = pack_padded_sequence(words, LENGTHS, batch_first=True, enforce_sorted=False)
    expected = pad_packed_sequence(theirs(sequence)[0], batch_first=True)[0].unflatten(2, (2, 16)).mean(2)
    found = ours(words, MASK)
    assert torch.allclose(found[MASK], expected[MASK], atol=1e-13)
    direction = torch.randn(found.shape, dtype=torch.float64)
    for states in (found, expected):
        (states * direction)[MASK].sum().backward()
    for name, ending in (("forwards", ""), ("backwards", "_reverse")):
        for kind in ("weight_ih_l0", "weight_hh_l0"):
            gradient = getattr(getattr(ours, name), kind).grad
            assert torch.allclose(gradient, getattr(theirs, kind + ending).grad, atol=1e-12)


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder(SIZE, 20, dropout=0.3).double().eval()


def test_maxima_and_word_attention_equal_loops(encoder):
    whole, parts = encoder(IDS, MASK)
    assert whole.shape == (4, 16)
    assert parts.shape == (4, 6, 16)
    lstm, attention = packed(encoder.lstm, 6, 16), encoder.word_attention.weight
    for row, length in enumerate(LENGTHS):
        ids = IDS[row, :length]
        expected, local = (
            lstm(table(ids)[None])[0][0].unflatten(1, (2, 16)).mean(1)
            for table in (encoder.global_words, encoder.local_words)
        )
        for d in range(16):
            assert whole[row, d].item() == pytest.approx(max(expected[:, d].tolist()), abs=1e-12)
            for k in range(6):
                weighed = [(torch.sigmoid(attention[k] @ state) * state[d]).item() for state in local]
                assert parts[row, k, d].item() == pytest.approx(max(weighed), abs=1e-12)


def test_padding_and_batch_mates_change_nothing(encoder):
    with torch.no_grad():
        whole, parts = encoder(IDS, MASK)
        pad = torch.nn.functional.pad
        wide = encoder(pad(IDS, (0, 5), value=3), pad(MASK, (0, 5)))
        assert torch.allclose(wide[0], whole, atol=1e-14)
        assert torch.allclose(wide[1], parts, atol=1e-14)
        for row, length in enumerate(LENGTHS):
            alone = encoder(IDS[row : row + 1, :length], MASK[row : row + 1, :length])
            assert torch.allclose(alone[0][0], whole[row], atol=1e-14)
            assert torch.allclose(alone[1][0], parts[row], atol=1e-14)


@pytest.mark.parametrize("columns", [0, 1, 4])
def test_captions_without_words_are_zero(encoder, columns):
    ids = torch.zeros(2, columns, dtype=torch.int64)
    whole, parts = encoder(ids, ids > 0)
    assert whole.equal(torch.zeros(2, 16, dtype=torch.float64))
    assert parts.equal(torch.zeros(2, 6, 16, dtype=torch.float64))


def test_a_caption_without_words_leaves_its_mates_alone(encoder):
    with torch.no_grad():
        mask = MASK.clone()
        mask[1] = False
        mixed, plain = encoder(IDS * mask, mask), encoder(IDS, MASK)
    rows = [0, 2, 3]
    assert torch.allclose(mixed[0][rows], plain[0][rows], atol=1e-14)
    assert torch.allclose(mixed[1][rows], plain[1][rows], atol=1e-14)
    assert mixed[1][1].eq(0).all()


def test_dropout_of_the_embeddings_in_training_only():
    torch.manual_seed(0)
    encoder = TextEncoder(SIZE, 20, dropout=0.3).train()
    ids, mask = IDS[2:3].repeat(2000, 1), MASK[2:3].repeat(2000, 1)
    seen = []
    hook = encoder.lstm.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    encoder(ids, mask)
    hook.remove()
    plain = torch.cat([encoder.global_words(ids), encoder.local_words(ids)])
    dropped = seen[0] == 0
    assert abs(dropped.float().mean().item() - 0.3) < 5e-3
    assert torch.allclose(seen[0][~dropped], plain[~dropped] / 0.7, rtol=1e-4)
    tables = dropped.chunk(2)
    agreement = (tables[0] == tables[1]).float().mean().item()
    assert abs(agreement - (0.3**2 + 0.7**2)) < 5e-3  # each table has draws of its own
    encoder.eval()
    assert encoder(IDS, MASK)[0].equal(encoder(IDS, MASK)[0])


def test_padding_is_never_learnt():
    encoder = TextEncoder(SIZE, 20, dropout=0.3).train()
    sum(part.square().sum() for part in encoder(IDS, MASK)).backward()
    for table in (encoder.global_words, encoder.local_words):
        assert table.weight[0].eq(0).all()
        assert table.weight.grad[0].eq(0).all()
        assert table.weight.grad.abs().sum() > 0
