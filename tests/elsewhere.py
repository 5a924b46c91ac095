"""A device that is not there: its tensors say that they are on it, hold values of the CPU, and refuse to meet one of the CPU.

What fails first on a GPU, where all tests have run on a CPU, is a tensor that was made on the one and meets one of the other.
So this stands in for that, on any machine: an operation on both raises, but for the few of which CUDA takes it. Of kernels,
speed and memory it knows nothing.

torch takes one such backend in the life of a process, and cannot give it back: it has one of its own (``test_elsewhere.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._contextlib import _DecoratorContextManager
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

aten = torch.ops.aten
KIND = "elsewhere"
MIXED = "tensors of the CPU"  # what is said where tensors of both sides meet
# What CUDA takes from both sides: copies, and places of the CPU in a tensor of its own.
COPIES = {aten.copy_.default, aten._to_copy.default}
BY_PLACES = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}
MATH = 0  # scaled dot product attention by plain products; the fused kernels are chosen by the kind of device
MAKERS = (torch.tensor, torch.as_tensor, torch.asarray)


class _Backend(backend_registration._DummyBackendModule):  # type: ignore[misc, name-defined]
    """What autocast asks of it."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


backend_registration._setup_privateuseone_for_python_backend(KIND, _Backend())
torch.__future__.set_swap_module_params_on_conversion(True)  # parameters stay the same objects, as they do on the way to CUDA
DEVICE = torch.device(KIND, 0)


class Elsewhere(Tensor):
    """A tensor that says it is there.

    Attributes:
        held: its values.
    """

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> Elsewhere:
        return torch.Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device=DEVICE
        )

    def __init__(self, held: Tensor) -> None:
        self.held = held

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.held.detach().__reduce_ex__(protocol)  # to files go values

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(operation, args, kwargs or {})


def _run(operation: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation, by the CPU; what it gives is where its arguments are, or where it is asked to be."""
    there = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Elsewhere)]
    if operation is aten._fused_sdp_choice.default and there:
        return MATH
    if there and operation not in COPIES:
        _refuse_a_mixture(operation, args, kwargs)
    wanted = kwargs.get("device")
    goes = bool(there) if wanted is None else torch.device(wanted).type == KIND
    if operation is aten.copy_.default:
        goes = isinstance(args[0], Elsewhere)
    if wanted is not None and goes:
        kwargs = kwargs | {"device": torch.device("cpu")}
    args, kwargs = tree_map(lambda value: value.held if isinstance(value, Elsewhere) else value, (args, kwargs))
    same = {id(value.held): value for value in there}  # what is changed in place
    return tree_map(
        lambda value: same.get(id(value), Elsewhere(value)) if goes and isinstance(value, Tensor) else value,
        operation(*args, **kwargs),
    )


def _refuse_a_mixture(operation: Any, args: Any, kwargs: dict[str, Any]) -> None:
    """Raise RuntimeError as CUDA does if tensors of both sides meet; single numbers of the CPU are welcome."""
    if operation in BY_PLACES and isinstance(args[0], Elsewhere):
        args = [args[0], *args[2:]]
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    here = [tuple(value.shape) for value in tensors if value.dim() and not isinstance(value, Elsewhere)]
    if here:
        raise RuntimeError(f"{operation}: {MIXED} {here} among those of {KIND}")


class _Operations(TorchDispatchMode):
    """Sends there what is made there."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(operation, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """What torch does itself, before any operation, from Python's lists: on the CPU first."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function in MAKERS and torch.device(kwargs.get("device") or "cpu").type == KIND:
            return function(*args, **kwargs | {"device": "cpu"}).to(DEVICE)
        if not args or not isinstance(args[0], Elsewhere):
            return function(*args, **kwargs)
        if function is Tensor.new_tensor:
            return torch.tensor(args[1], dtype=kwargs.get("dtype") or args[0].dtype).to(DEVICE)
        if function is Tensor.tolist:
            return args[0].held.tolist()
        if function in (Tensor.__getitem__, Tensor.__setitem__):
            places = args[1] if isinstance(args[1], tuple) else (args[1],)
            listed = tuple(torch.tensor(place, dtype=torch.long) if isinstance(place, list) else place for place in places)
            return function(args[0], listed if len(listed) > 1 else listed[0], *args[2:])
        return function(*args, **kwargs)


@contextmanager
def there() -> Iterator[torch.device]:
    """The device, in a context in which it works."""
    with _Functions(), _Operations():
        yield DEVICE


def held(value: Tensor) -> Tensor:
    """Its values, of a tensor that has to be there."""
    assert isinstance(value, Elsewhere), "a result on the CPU"
    return value.held


class _WithoutGradients(_DecoratorContextManager):
    """In place of ``torch.inference_mode``, whose tensors cannot be held."""

    def __init__(self, mode: bool = True) -> None:
        self.mode = mode

    def __enter__(self) -> None:
        self.before = torch.is_grad_enabled()
        torch.set_grad_enabled(self.before and not self.mode)

    def __exit__(self, *_: object) -> None:
        torch.set_grad_enabled(self.before)


torch.inference_mode = _WithoutGradients  # type: ignore[misc, assignment]
