"""A GPU that is not there: tensors that say "cuda", compute on the CPU, and are watched.

`PretendGpu` is entered like any mode of torch. Within, whatever is put on "cuda" becomes a `GpuTensor`: torch, autocast and
the project's code see a tensor of a GPU, and its values lie in a tensor on the CPU. So all code runs to its end and its
results can be compared with the CPU's, and three things are noticed on the way:

- an operation on tensors of both devices, which a GPU refuses;
- a read: a value, or a shape that depends on values, that the host waits for. Reads are counted; within `no_reads` one fails;
- a score in half precision. What a softmax of a loss, a ranking or a read gets must come out of a float32 product; a bfloat16
  product that was cast to float32 afterwards is found, too (`_born_half`).

FakeTensorMode is entered below it for what it does around operations: torch then does not look for a driver. Its own
tensors have no values and would end at the first one that is read.

What this can't show: the kernels of a GPU (their numbers, their limits of shape and alignment, which kind of attention torch
picks), memory, streams, several processes, and anything of speed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = torch.device("cuda", 0)
HALF = (torch.bfloat16, torch.float16)
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "convolution"}
# What these give belongs to the body of a network, however their inputs were born.
BODY = {"native_layer_norm", "native_batch_norm", "embedding"}
RANKING = {"_log_softmax", "argmax", "topk", "sort", "searchsorted", "binary_cross_entropy_with_logits"}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}  # their indices may lie on the host
TRANSFERS = {"_to_copy", "copy_"}
WAITING = {  # hand a value, or a shape that depends on values, to the host
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_consecutive",
    "unique_dim",
    "equal",
    "is_nonzero",
    "repeat_interleave",
    "bincount",
}


class GpuTensor(Tensor):
    """A tensor of the pretended GPU.

    Attributes:
        held: its values, on the CPU.
        born_half: whether it was born in half precision, see `_born_half`.
        from_weights: whether it is computed from weights alone (a transposed or cast one).
        from_words: whether it is a word embedding, or computed from one alone.
    """

    held: Tensor
    born_half = from_weights = from_words = False

    @staticmethod
    def __new__(cls, held: Tensor) -> GpuTensor:
        # One that is made in inference mode has no views together with the weights, which are not.
        with torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext():
            tensor = Tensor._make_wrapper_subclass(
                cls,
                held.size(),
                strides=held.stride(),
                storage_offset=held.storage_offset(),
                dtype=held.dtype,
                device=CUDA,
            )
        tensor.held = held
        return tensor

    def tolist(self) -> list:
        """As torch's own, by way of a copy on the host, which is a read."""
        return self.cpu().tolist()

    def __repr__(self, **_: Any) -> str:
        return f"GpuTensor({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} on a tensor of the pretended GPU outside of it")


class PretendGpu(TorchDispatchMode):
    """The device "cuda" for as long as this mode is entered.

    Attributes:
        count: operations on the device so far.
        reads: the names of the operations that read from it so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.reads: list[str] = []
        self._reads_allowed = True
        self._fake = FakeTensorMode()

    def __enter__(self) -> PretendGpu:
        self._fake.__enter__()
        # torch.tensor then builds on the host what it moves to the device, where there is a GPU, too.
        self._lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(self._lifted)
        self._fake.__exit__(*error)

    @contextmanager
    def no_reads(self) -> Iterator[None]:
        """Within, whatever makes the host wait for the device is an AssertionError."""
        self._reads_allowed = False
        try:
            yield
        finally:
            self._reads_allowed = True

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = list(_leaves((args, kwargs)))
        given = [leaf for leaf in leaves if isinstance(leaf, GpuTensor)]
        asked = [leaf for leaf in leaves if isinstance(leaf, torch.device)]
        if not given and not any(device.type == "cuda" for device in asked):
            return _on_the_cpu(func, args, kwargs)
        if torch.is_inference_mode_enabled():  # whose operations come whole, as those of autograd do not
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        name = func.overloadpacket.__name__
        self.count += 1
        on_host = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, GpuTensor)]
        self._check_devices(name, args, on_host)
        if name in RANKING and any(_is_half(one) for one in given if one.is_floating_point()):
            raise AssertionError(f"{name} gets scores of half precision")
        to_host = any(device.type == "cpu" for device in asked) or (
            name == "copy_" and not isinstance(args[0], GpuTensor)
        )
        if to_host or name in WAITING or _by_mask(name, args):
            self._note_read(name, given)
        result = _on_the_cpu(func, _mapped(_held, args), _mapped(_held, kwargs))
        return result if to_host else self._wrapped(name, given, result)

    def _check_devices(self, name: str, args: tuple, on_host: Sequence[Tensor]) -> None:
        allowed = on_host if name in TRANSFERS else args[1] if name in INDEXING else ()
        # A tensor without dimensions counts as a number, on a GPU as here.
        wrong = [one for one in on_host if one.ndim and not any(one is other for other in allowed)]
        if wrong:
            raise AssertionError(
                f"{name} gets tensors of the GPU and one of the host, {tuple(wrong[0].shape)}"
            )

    def _note_read(self, name: str, given: Sequence[GpuTensor]) -> None:
        if not self._reads_allowed:
            raise AssertionError(f"{name} waits for the device")
        # Image tokens are kept in float16, by their owner's decision: what comes in other types is a score or a feature.
        if any(one.is_floating_point() and one.dtype != torch.float16 and _is_half(one) for one in given):
            raise AssertionError(f"{name} reads scores or features of half precision")
        self.reads.append(name)

    def _wrapped(self, name: str, given: Sequence[GpuTensor], result: Any) -> Any:
        """The results as tensors of the GPU; what was changed in place stays the tensor that it was."""
        known = {id(one.held): one for one in given}
        weights = bool(given) and all(_is_weight(one) for one in given)
        words = weights and any(one.from_words for one in given)
        half = not weights and _born_half(name, given, result)

        def wrap(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            tensor = known.get(id(leaf))
            tensor = GpuTensor(leaf) if tensor is None else tensor
            tensor.born_half = half
            tensor.from_weights |= weights
            tensor.from_words |= words
            return tensor

        return _mapped(wrap, result)


def put(model: nn.Module, place: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """A model on the pretended GPU, by `place`, which moves it there.

    torch puts a weight's new memory under the old weight where both are tensors of its own, and has to make a new one of
    another type: a weight that two modules share becomes two, which are joined here.
    """
    shared: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            shared.setdefault(id(parameter), []).append((module, name))
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        model = place(model)
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwrites)
    for (first, name), *others in shared.values():
        for module, other in others:
            setattr(module, other, getattr(first, name))
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.weight.from_words = True
    return model


def _leaves(nested: Any) -> Iterator[Any]:
    """What is in an operation's arguments; torch's own tree functions take ten times as long."""
    if isinstance(nested, (list, tuple, dict)):
        for part in nested.values() if isinstance(nested, dict) else nested:
            yield from _leaves(part)
    else:
        yield nested


def _mapped(change: Callable[[Any], Any], nested: Any) -> Any:
    """The same arguments with every leaf changed."""
    if isinstance(nested, dict):
        return {name: _mapped(change, part) for name, part in nested.items()}
    if isinstance(nested, (list, tuple)):
        return type(nested)([_mapped(change, part) for part in nested])
    return change(nested)


def _on_the_cpu(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    with unset_fake_temporarily():
        return func(*args, **kwargs)


def _held(leaf: Any) -> Any:
    if isinstance(leaf, GpuTensor):
        return leaf.held
    return torch.device("cpu") if isinstance(leaf, torch.device) else leaf


def _by_mask(name: str, args: tuple) -> bool:
    """Whether rows are chosen by a mask, whose number of rows is not known; a single value is written by a mask without it."""
    if name not in INDEXING or not any(i is not None and i.dtype == torch.bool for i in args[1]):
        return False
    return name == "index" or args[2].numel() != 1


def _is_weight(tensor: GpuTensor) -> bool:
    return isinstance(tensor, nn.Parameter) or tensor.from_weights


def _is_half(tensor: GpuTensor) -> bool:
    return tensor.dtype in HALF or tensor.born_half


def _born_half(name: str, given: Sequence[GpuTensor], result: Any) -> bool:
    """Whether a result was born in half precision: in a half-precision product, or in one of two tensors born so.

    What is computed from such a tensor by anything but a product stays so: casts, sums, normalisation. A float32 product with
    a weight is a head, which gives float32 whatever it gets: bodies may be bfloat16. And a word head, whose matrix is the word
    embedding, counts as body: a fifth of a decoder's work, of which the softmax alone is float32. What is written into a part
    of a tensor marks that part and not the whole.
    """
    if name in BODY:
        return False
    if name not in PRODUCTS:
        return any(one.born_half for one in given)
    factors = given[:2] if name == "convolution" else given[-2:]
    if any(one.from_words for one in factors):
        return False
    weighted = any(_is_weight(one) for one in factors)
    return result.dtype in HALF or (not weighted and any(_is_half(one) for one in factors))
