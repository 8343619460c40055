"""TBPS-CLIP's losses pair by pair and view by view, its simplified form, and what each weight leaves out."""

from __future__ import annotations

import math

import contrast_by_loop as loop
import method_examples as example
import pytest
import torch
from torch.nn.functional import batch_norm, linear, normalize

LABELS = [0, 0, 1, 2, 1, 3]


def view_features(model, batch):
    """(B, F) of each further view, in double precision."""
    with torch.no_grad():
        return [model.encode_images(view)[1].double() for view in batch.views]


@pytest.mark.parametrize(("progress", "alpha"), [(0.0, 0.0), (0.5, 0.25), (2.0, 0.5)])
def test_contrast_of_two_views_pair_by_pair(progress, alpha, words):
    model = example.model("tbps_clip", words)
    batch = example.batch(model, LABELS)
    batch.progress = torch.tensor(progress)
    images, texts = loop.features(model, batch)
    second = normalize(view_features(model, batch)[0], dim=1)
    first, other = ((rows @ texts.T / 0.07).tolist() for rows in (images, second))
    losses = model.losses(batch)
    n_itc = (loop.n_itc(first, LABELS, alpha) + loop.n_itc(other, LABELS, alpha)) / 2
    assert losses["n_itc"].item() == pytest.approx(n_itc, rel=1e-4)
    assert losses["r_itc"].item() == pytest.approx(loop.r_itc(first, LABELS, 0.0, eps=1e-2), rel=1e-4)


def test_the_scale_does_not_change_the_geometry(words):
    """C-ITC in the authors' form: of scaled similarities, divided by the scale's square."""
    model = example.model("tbps_clip", words)
    batch = example.batch(model, LABELS)
    images, texts = loop.features(model, batch)
    scale, total = 1 / 0.07, 0.0
    for i in range(6):
        for j in range(6):
            within = scale * float(images[i] @ images[j] - texts[i] @ texts[j])
            across = scale * float(images[i] @ texts[j] - texts[i] @ images[j])
            total += (within**2 + across**2) / 4 / 36 / scale**2
    assert model.losses(batch)["c_itc"].item() == pytest.approx(0.1 * total, rel=1e-4)


def test_strong_views_recognise_each_other_view_by_view(words):
    """The layers between written out, BatchNorm over both views together; then each view among the other eleven."""
    model = example.model("tbps_clip", words)
    batch = example.batch(model, LABELS)
    _, first, second = view_features(model, batch)
    into, norm, _, out = model.view_head.double()
    hidden = linear(torch.cat([first, second]), into.weight)
    hidden = batch_norm(hidden, None, None, norm.weight, norm.bias, training=True).relu()
    projected = normalize(linear(hidden, out.weight, out.bias), dim=1).tolist()
    model.float()
    total = 0.0
    for own, row in enumerate(projected):
        cosines = {
            other: sum(a * b for a, b in zip(row, projected[other], strict=True))
            for other in range(12)
            if other != own
        }
        partner = (own + 6) % 12
        total += math.log(sum(math.exp(x / 0.1) for x in cosines.values())) - cosines[partner] / 0.1
    assert model.losses(batch)["ss_i"].item() == pytest.approx(0.4 * total / 12, rel=1e-4)


def test_the_simplified_form_is_two_losses_of_one_view(words):
    model, whole = example.model("tbps_clip", words, simplified=True), example.model("tbps_clip", words)
    assert model.wants_views == ()
    assert whole.wants_views == ("same", "strong", "strong")
    assert not any(name.startswith("view_head") for name in model.state_dict())
    batch = example.batch(model, LABELS)
    assert batch.views is None
    losses = model.losses(batch)
    assert set(losses) == {"n_itc", "r_itc"}
    images, texts = loop.features(model, batch)
    scores = (images @ texts.T / 0.07).tolist()
    assert losses["n_itc"].item() == pytest.approx(loop.n_itc(scores, LABELS, 0.5), rel=1e-4)


@pytest.mark.parametrize(
    ("option", "loss", "views"),
    [
        ("self_supervision_weight", "ss_i", ("same",)),
        ("cyclic_weight", "c_itc", ("same", "strong", "strong")),
    ],
)
def test_a_weight_scales_its_loss_or_leaves_it_out(option, loss, views, words):
    without = example.model("tbps_clip", words, **{option: 0})
    assert without.wants_views == views
    assert set(without.losses(example.batch(without, LABELS))) == {"n_itc", "r_itc", "c_itc", "ss_i"} - {loss}
    one, two = (example.model("tbps_clip", words, **{option: weight}) for weight in (0.3, 0.6))
    single, double = (model.losses(example.batch(model, LABELS)) for model in (one, two))
    assert double[loss].item() == pytest.approx(2 * single[loss].item())
    for name in single.keys() - {loss}:
        assert double[name].item() == single[name].item()


def test_views_must_be_given(words):
    model = example.model("tbps_clip", words)
    batch = example.batch(model, LABELS)
    for views in (None, batch.views[:2]):
        batch.views = views
        with pytest.raises(ValueError, match=r"same, strong, strong.*simplified"):
            model.losses(batch)


def test_the_layers_of_views_take_no_part_in_the_search(words):
    model = example.model("tbps_clip", words).eval()
    batch = example.batch(model, LABELS)
    with torch.no_grad():
        before = model.encode_images(batch.images)[1]
        for parameter in model.view_head.parameters():
            parameter.add_(1)
        assert model.encode_images(batch.images)[1].equal(before)
        assert model.pair_losses(batch).shape == (6,)
