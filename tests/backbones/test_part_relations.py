"""Linear maps per part and the relation network, against loops over single parts with torch's own layers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cosine_similarity

from models.backbones.resnet_lstm.parts import PartLinear, Parts
from models.backbones.resnet_lstm.relation import RelationNetwork
from models.backbones.resnet_lstm.sizes import SIZES

SIZE = replace(SIZES["tiny"], features=10, relation_width=7)


def random_parts(number=8, seed=0) -> torch.Tensor:
    return torch.randn(number, 6, 10, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("bias", [True, False])
def test_every_part_has_its_own_map(bias):
    torch.manual_seed(0)
    linear = PartLinear(6, 10, 7, bias).double()
    values = random_parts()
    result = linear(values)
    assert result.shape == (8, 6, 7)
    for k in range(6):
        expected = nn.functional.linear(values[:, k], linear.weight[k], linear.bias[k] if bias else None)
        assert torch.allclose(result[:, k], expected, atol=1e-14)
    reference = nn.Linear(10, 7)
    assert linear.weight.abs().max() <= 10**-0.5
    assert linear.weight.std().item() == pytest.approx((1 / 30) ** 0.5, rel=0.1)  # as nn.Linear: uniform
    assert reference.weight.abs().max() <= 10**-0.5
    assert set(linear.state_dict()) == ({"weight", "bias"} if bias else {"weight"})


def network() -> RelationNetwork:
    torch.manual_seed(0)
    network = RelationNetwork(SIZE).double()
    generator = torch.Generator().manual_seed(1)
    for tensor in (network.norm.weight, network.norm.bias, network.norm.running_var):
        nn.init.uniform_(tensor, 0.5, 1.5, generator)
    nn.init.uniform_(network.norm.running_mean, -0.5, 0.5, generator)
    return network


def leaky(value: float) -> float:
    return value if value > 0 else 0.25 * value


def by_loops(net: RelationNetwork, parts: torch.Tensor, training: bool):
    """Relations, attention and running statistics, one vector at a time; each part with a BatchNorm of torch's."""

    def unit(vector):
        bent = [leaky(value) for value in vector.tolist()]
        length = sum(value * value for value in bent) ** 0.5 + 1e-8
        return [value / length for value in bent]

    number, views, _ = parts.shape
    heard = torch.zeros(number, views, 10, dtype=torch.float64)
    attention = torch.zeros(number, views, views, dtype=torch.float64)
    for b in range(number):
        p = [unit(net.phi.weight[k] @ parts[b, k]) for k in range(views)]
        q = [unit(net.theta.weight[k] @ parts[b, k]) for k in range(views)]
        for k in range(views):
            others = [i for i in range(views) if i != k]
            scores = [sum(x * y for x, y in zip(p[i], q[k], strict=True)) for i in others]
            exponentials = torch.tensor(scores, dtype=torch.float64).exp()
            attention[b, k, others] = exponentials / exponentials.sum()
            u = sum(attention[b, k, i] * torch.tensor(p[i], dtype=torch.float64) for i in others)
            heard[b, k] = net.gamma.weight[k] @ u
    relations, norms = [], []
    for k in range(views):
        norm, own = nn.BatchNorm1d(10).double().train(training), slice(10 * k, 10 * (k + 1))
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(norm, name).data.copy_(getattr(net.norm, name)[own])
        told = norm(heard[:, k])
        told = torch.where(told > 0, told, 0.25 * told)
        relations.append((parts[:, k] + told) @ net.omega.weight[k].T)
        norms.append(norm)
    return torch.stack(relations, 1), attention, norms


@pytest.mark.parametrize("training", [True, False])
@torch.no_grad()
def test_relations_equal_loops(training):
    net, parts = network().train(training), random_parts()
    expected, attention, norms = by_loops(net, parts, training)
    before = net.norm.running_mean.clone()
    found = net(parts)
    assert found.shape == (8, 6, 7)
    assert torch.allclose(found, expected, atol=1e-12)
    assert net.norm.running_mean.equal(before) != training
    for name in ("running_mean", "running_var"):
        assert torch.allclose(
            getattr(net.norm, name), torch.cat([getattr(one, name) for one in norms]), atol=1e-14
        )
    described = nn.functional.leaky_relu(net.phi(parts), 0.25)
    described = described / described.norm(dim=-1, keepdim=True)
    assert torch.allclose(net.attention(parts, described), attention, atol=1e-8)


@torch.no_grad()
def test_a_part_hears_of_all_others_and_not_of_itself():
    net = network()
    for scale in (1e-6, 1.0, 1e6):
        parts = scale * random_parts()
        weights = net.attention(parts, nn.functional.normalize(net.phi(parts), dim=-1))
        assert weights.shape == (8, 6, 6)
        assert weights.diagonal(dim1=1, dim2=2).eq(0).all()
        assert torch.allclose(weights.sum(2), torch.ones(8, 6, dtype=torch.float64), atol=1e-14)
        assert (weights + torch.eye(6) > 0).all()


def test_gradients_are_those_of_the_values():
    net = network().train()
    assert torch.autograd.gradcheck(lambda parts: net(parts), random_parts(3).requires_grad_())


def test_parts_of_zeros_give_numbers():
    """A caption without words has them."""
    net, parts = network().train(), random_parts()
    parts[2] = 0
    parts.requires_grad_()
    net(parts).square().sum().backward()
    assert net(parts).isfinite().all()
    assert parts.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


def test_first_weights_are_kaimings_by_fan_out():
    torch.manual_seed(0)
    net = RelationNetwork(replace(SIZE, features=100, relation_width=50))
    for linear, outputs in ((net.phi, 50), (net.theta, 50), (net.gamma, 100), (net.omega, 50)):
        assert linear.weight.std().item() == pytest.approx((2 / outputs) ** 0.5, rel=0.03)


def levels(seed: int, number: int) -> Parts:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((number, 10), (number, 6, 10), (number, 6, 7))
    return Parts(*(torch.randn(shape, generator=generator) for shape in shapes))


def test_a_cosine_of_features_is_the_mean_of_three_and_ranks_alike():
    queries, gallery = levels(0, 5), levels(1, 40)
    summed = torch.zeros(5, 40)
    for row in range(5):
        for column in range(40):
            for name in ("global_", "local", "relation"):
                query, image = getattr(queries, name)[row].flatten(), getattr(gallery, name)[column].flatten()
                summed[row, column] += cosine_similarity(query, image, dim=0)
    cosines = cosine_similarity(queries.features[:, None], gallery.features[None], dim=2)
    assert queries.features.shape == (5, 10 + 60 + 42)
    assert torch.allclose(3 * cosines, summed, atol=1e-5)
    assert cosines.topk(10).indices.equal(summed.topk(10).indices)
    for ours, theirs in zip(queries.levels, gallery.levels, strict=True):
        assert torch.allclose(ours.norm(dim=1), torch.ones(5))
        assert (ours @ theirs.T).abs().max() <= 1
