"""Where values may be asked for, and where a CPU's own ways may be gone."""

from __future__ import annotations

import torch
from torch import Tensor


def eager_on_cpu(tensor: Tensor) -> bool:
    """Whether what is done with a tensor happens at once and on the CPU.

    Only there a value is known without waiting, so that a shape may depend on it; a GPU would make the host wait, and a graph
    that is being compiled (`torch.compile`) would break at that place. Ways of computing that are a CPU's alone are gone
    there, too: the compiler has its own.
    """
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()
