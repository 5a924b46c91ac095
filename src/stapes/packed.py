"""Linear layers whose weights lie ready for the CPU: the same function, up to a third faster with few positions.

A step of decoding multiplies some ten positions with every weight of the LLM, and much of it is spent on bringing the weights
into the order that the kernel wants. oneDNN can keep them in that order. The copy takes as much memory as the weights do, so
that models are packed only up to ``MOST_BYTES``; it is used in inference alone, and the layer stays differentiable.
"""

from __future__ import annotations

import platform

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST_BYTES = 2**31  # of weights (ours): beyond that, memory matters more than the last third of the time
FEWEST_WEIGHTS = 2**15  # of a layer: smaller ones stay in the cores' caches anyhow
POSITIONS = 16  # that the order of the weights is chosen for: a step of decoding (decoding/drafts.py)


class PackedLinear(nn.Linear):
    """A linear layer with its own parameters and a packed copy of its weights.

    The copy is used in inference mode only, and no longer once the weights are others: replaced, moved, cast or changed in
    place. What changes them behind autograd's back (``.data``, as peft does when it merges) has to call ``forget``.

    Args:
        linear: shares its parameters.
    """

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.training = linear.training
        self._packed: Tensor | None = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), POSITIONS)
        self._of = self._identity()

    def forward(self, values: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        usable = self._packed is not None and torch.is_inference_mode_enabled() and values.dtype == self.weight.dtype
        if not usable or torch.is_autocast_enabled("cpu") or self._of != self._identity():
            return F.linear(values, self.weight, self.bias)
        found: Tensor = torch.ops.mkldnn._linear_pointwise(values, self._packed, self.bias, "none", [], "")
        return found

    def forget(self) -> None:
        """Drop the copy."""
        self._packed = None

    def _identity(self) -> tuple[int, int]:
        return self.weight.data_ptr(), self.weight._version

    def __getstate__(self) -> dict[str, object]:
        """The layer without its copy, which neither pickles nor copies."""
        return self.__dict__ | {"_packed": None}


def pack(module: nn.Module, without: str) -> int:
    """Pack the linear layers of a module in place.

    Args:
        module: in its place and precision; only what lies on the CPU is packed.
        without: part of the names of layers that are left as they are.

    Returns:
        How many were packed: none where this machine or the module's size rules it out.
    """
    layers = {
        name: part
        for name, part in module.named_modules()
        if type(part) is nn.Linear and without not in name and part.weight.numel() >= FEWEST_WEIGHTS and _suits(part.weight)
    }
    if sum(layer.weight.nbytes for layer in layers.values()) > MOST_BYTES:
        return 0
    for name, layer in layers.items():
        module.set_submodule(name, PackedLinear(layer))
    return len(layers)


def forget(module: nn.Module) -> None:
    """Drop all packed copies in a module."""
    for part in module.modules():
        if isinstance(part, PackedLinear):
            part.forget()


def _suits(weight: Tensor) -> bool:
    """float32, and bfloat16 where the CPU multiplies it: oneDNN would refuse elsewhere."""
    if weight.device.type != "cpu" or not _is_there():
        return False
    return weight.dtype == torch.float32 or (
        weight.dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def _is_there() -> bool:
    """oneDNN in this build of PyTorch, and a CPU on which it was measured to pay."""
    ops = ("_reorder_linear_weight", "_linear_pointwise")
    return (
        torch.backends.mkldnn.is_available()
        and platform.machine() in ("x86_64", "AMD64")
        and all(hasattr(torch.ops.mkldnn, name) for name in ops)
    )
