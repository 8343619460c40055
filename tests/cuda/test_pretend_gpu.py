"""The pretended GPU notices what it is there for: seeded mismatches, reads and half-precision scores fail, sound code does not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.machine import Machine
from models import Batch
from models.heads import Head
from models.methods.pspd import PSPD
from models.world import World
from retrieval.evaluate import evaluate
from tests.cuda.backward import backward
from tests.cuda.pretend_gpu import CUDA, GpuTensor, put
from tests.methods import method_examples as example

LABELS = [0, 0, 1, 2, 1, 3]
NARROW = {"device_type": "cuda", "dtype": torch.bfloat16}


def test_tensors_of_the_device_say_so_and_compute(gpu):
    values = torch.arange(6.0).view(2, 3)
    there = values.to("cuda")
    assert there.is_cuda
    assert there.device == CUDA
    assert type(values + 1) is Tensor
    made = torch.ones(3, device="cuda") + there * 2
    assert isinstance(made, GpuTensor)
    there[:, 0] = 7.0  # changes the tensor that it is a view of
    assert there.cpu().tolist() == [[7.0, 1.0, 2.0], [7.0, 4.0, 5.0]]
    assert made.cpu().equal(values * 2 + 1)


@pytest.mark.parametrize(
    "mix",
    [
        lambda there, here: there + here,
        lambda there, here: torch.cat([there, here]),
        lambda there, here: there @ here.T,
        lambda there, here: torch.where(here > 0, there, there),
        lambda there, here: there.gather(1, here.long()),
        lambda there, here: there.add_(here),
        lambda there, here: F.embedding(here.long(), there),
        lambda there, here: nn.Linear(3, 2)(there),
        lambda there, here: F.layer_norm(there, (3,), nn.Parameter(here[0])),
    ],
)
def test_two_devices_in_one_operation_are_refused(mix, gpu):
    here = torch.zeros(3, 3)
    there = here.to("cuda")
    with pytest.raises(AssertionError, match="of the GPU and one of the host"):
        mix(there, here)


def test_what_a_gpu_allows_is_allowed(gpu):
    there = torch.arange(9.0, device="cuda").view(3, 3)
    assert (there * torch.tensor(2.0))[torch.tensor([2, 0])].cpu().tolist() == [[12, 14, 16], [0, 2, 4]]
    there.copy_(torch.ones(3, 3))
    with gpu.no_reads():
        there[there > 0] = 5.0
        there.masked_fill(there > 1, 0.0)
    assert there.sum().item() == 45


@pytest.mark.parametrize(
    "read",
    [
        lambda there: there.sum().item(),
        lambda there: float(there[0, 0]),
        lambda there: bool(there.any()),
        lambda there: there.tolist(),
        lambda there: there.cpu(),
        lambda there: torch.zeros(3, 3).copy_(there),
        lambda there: there.to("cpu", non_blocking=True),
        lambda there: there.nonzero(),
        lambda there: there[there > 0],
        lambda there: there.masked_select(there > 0),
        lambda there: there.index_put_((there > 0,), torch.ones(9, device="cuda")),
        lambda there: there.unique(),
        lambda there: there.equal(there),
    ],
)
def test_a_read_is_noted_and_fails_where_none_is_allowed(read, gpu):
    there = torch.ones(3, 3, device="cuda")
    read(there)
    assert gpu.reads
    with pytest.raises(AssertionError, match="waits for the device"), gpu.no_reads():
        read(there)


def layer(kind: type[nn.Linear], gpu) -> nn.Linear:
    return put(kind(4, 2), lambda model: model.to("cuda"))


@pytest.mark.parametrize(
    "use",
    [
        lambda scores: scores.float().log_softmax(1),
        lambda scores: scores.float().mul(50).add(1).cpu(),
        lambda scores: scores.float()[:, 1].topk(1),
        lambda scores: F.normalize(scores.float(), dim=1).argmax(1),
        lambda scores: F.cross_entropy(scores.float(), torch.zeros(3, dtype=torch.int64, device="cuda")),
        lambda scores: torch.cat([scores.float(), scores.float()]).sort(),
        lambda scores: (scores.float() @ scores.float().T).log_softmax(1),
    ],
)
def test_a_score_of_a_half_precision_product_fails_also_when_it_is_cast(use, gpu):
    """The last one: in full precision, a similarity of two features that were rounded before."""
    values = torch.randn(3, 4).to("cuda")
    plain, head = layer(nn.Linear, gpu), layer(Head, gpu)
    with torch.autocast(**NARROW):
        rough, exact = plain(values), head(plain.weight.new_ones(3, 4).bfloat16())
    assert rough.dtype == torch.bfloat16
    assert exact.dtype == torch.float32
    use(exact)
    with pytest.raises(AssertionError, match="half precision"):
        use(rough)


def test_a_body_may_be_of_half_precision(gpu):
    """A normalised sum of half-precision products before a head, tokens that are kept in float16, a word head."""
    values = torch.randn(3, 4).to("cuda")
    body, norm, head = layer(nn.Linear, gpu), nn.LayerNorm(2), Head(2, 2)
    norm, head = (put(part, lambda model: model.to("cuda")) for part in (norm, head))
    words = nn.ModuleDict({"embedding": nn.Embedding(5, 4), "head": nn.Linear(4, 5)})
    words["head"].weight = words["embedding"].weight
    words = put(words, lambda model: model.to("cuda"))
    assert words["head"].weight is words["embedding"].weight
    with torch.autocast(**NARROW):
        hidden = body(values)
        head(hidden).log_softmax(1)
        norm(hidden).argmax(1)
        spoken = words["head"](values)
    assert spoken.dtype == torch.bfloat16
    spoken.float().log_softmax(1)
    hidden.to(torch.float16).cpu()
    with pytest.raises(AssertionError, match="half precision"):
        hidden.cpu()


class Sound(PSPD):
    """PSPD, from which the wrong ones differ in one place."""

    name = "sound"


class Mismatched(Sound):
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        losses = super().losses(batch)
        rows = torch.arange(len(batch))  # without the device
        return losses | {"rows": (batch.labels == rows).float().mean() * losses["ndf"]}


class Reading(Sound):
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        losses = super().losses(batch)
        return {name: loss for name, loss in losses.items() if loss.item() > 0}


class Choosing(Sound):
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        features = self.encode_images(batch.images)[1]
        return super().losses(batch) | {"some": features[batch.labels > 0].mean()}


class RoughMatching(Sound):
    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.itm_head = nn.Linear(self.itm_head.in_features, 2)


class RoughFeatures(Sound):
    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.vision_proj = nn.Linear(self.vision_proj.in_features, self.vision_proj.out_features)


def built(kind: type[PSPD], words, precision: torch.dtype) -> PSPD:
    torch.manual_seed(0)
    tokenizer = words[kind.tokenizer_class]
    model = kind(size="tiny", image_size=(32, 16), tokenizer=tokenizer, dropout=0.0)
    return put(model, Machine(CUDA, World(), precision).place)


WRONG_STEPS = [
    (Mismatched, torch.float32, "one of the host"),
    (Reading, torch.float32, "waits for the device"),
    (Choosing, torch.float32, "waits for the device"),
    (RoughMatching, torch.bfloat16, "_log_softmax gets scores of half precision"),
    (RoughFeatures, torch.bfloat16, "half precision"),
]


@pytest.mark.parametrize(("kind", "precision", "complaint"), WRONG_STEPS)
def test_a_wrong_training_step_fails(kind, precision, complaint, words, gpu):
    machine = Machine(CUDA, World(), precision)

    def step(kind: type[PSPD]) -> None:
        model = built(kind, words, precision)
        batch = example.batch(model, LABELS).to(CUDA)
        with gpu.no_reads():
            with machine.autocast():
                losses = model.losses(batch)
            sum(losses.values()).backward()

    step(Sound)
    with pytest.raises(AssertionError, match=complaint):
        step(kind)


@pytest.mark.parametrize("kind", [RoughMatching, RoughFeatures])
def test_a_wrong_evaluation_fails(kind, words, feed, captions, identities, gpu):
    def run(kind: type[PSPD]) -> None:
        model = built(kind, words, torch.bfloat16)
        evaluate(model, feed((32, 16)).batches(12, CUDA), captions, identities, identities, k_test=3)

    run(Sound)
    with pytest.raises(AssertionError, match="half precision"):
        run(kind)


@pytest.mark.parametrize("method", example.all_methods())
def test_the_backward_pass_is_autograds(method, words):
    """On the CPU, with recomputed blocks and linear layers of a function of our own."""
    found = []
    for run in (Tensor.backward, backward):
        model = example.model(method, words)
        run(sum(model.losses(example.batch(model, LABELS)).values()))
        found.append([parameter.grad for parameter in model.parameters()])
    for expected, gradient in zip(*found, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)
