"""A backward pass without torch's engine, node by node.

The engine asks the driver for the streams of a GPU's tensors, and a torch that was built for GPUs then fails where there is
none. The nodes themselves are torch's own and know nothing of that; only the order in which they run is found here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import torch
from torch import Tensor

Node = Any  # torch.autograd.graph.Node


def backward(loss: Tensor) -> None:
    """Adds the gradients of a scalar to the `grad` of everything that it was computed from, as `loss.backward()` does."""
    waiting = _consumers(loss.grad_fn)
    gradients: dict[Node, dict[int, Tensor]] = defaultdict(dict)
    gradients[loss.grad_fn][0] = torch.ones_like(loss)
    ready = [loss.grad_fn]
    with torch.no_grad():
        while ready:
            node = ready.pop()
            arrived = gradients.pop(node, {})
            results: Any = ()
            if arrived:
                run = node if callable(node) else node.apply  # the latter of functions written in Python
                results = run(*(arrived.get(number) for number in range(len(node._input_metadata))))
            results = results if isinstance(results, tuple) else (results,)
            for place, (target, number) in enumerate(node.next_functions):
                if target is None:
                    continue
                gradient = results[place] if arrived else None
                if gradient is not None:
                    wanted = target._input_metadata[number]  # a sum's gradient comes as wide as its result
                    gradient = gradient.sum_to_size(wanted.shape).to(wanted.dtype)
                    before = gradients[target].get(number)
                    gradients[target][number] = gradient if before is None else before + gradient
                waiting[target] -= 1
                if not waiting[target]:
                    ready.append(target)


def _consumers(root: Node) -> Counter[Node]:
    """How many nodes send a gradient to each node below the root."""
    counts: Counter[Node] = Counter()
    seen, stack = {root}, [root]
    while stack:
        for target, _ in stack.pop().next_functions:
            if target is not None:
                counts[target] += 1
                if target not in seen:
                    seen.add(target)
                    stack.append(target)
    return counts
