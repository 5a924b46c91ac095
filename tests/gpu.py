"""A GPU, for the tests that otherwise meet a device that is not there (``elsewhere.py``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

MIXED = "on the same device"  # what is said where tensors of both sides meet

torch.backends.cudnn.allow_tf32 = False  # it would be compared with the CPU's float32


@contextmanager
def there() -> Iterator[torch.device]:
    """The device, in a context in which it works."""
    yield torch.device("cuda", 0)


def held(value: Tensor) -> Tensor:
    """Its values, of a tensor that has to be there."""
    assert value.is_cuda, "a result on the CPU"
    return value.cpu()
