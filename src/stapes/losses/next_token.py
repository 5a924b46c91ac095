"""Next-token cross-entropy over target positions only."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def next_token(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum of -log p over the target tokens, in float32; divided by their number over the whole step by the training loop.

    Args:
        logits: (n, V), one row for each target token.
        targets: (n,) token ids.

    Returns:
        Scalar.
    """
    return F.cross_entropy(logits.float(), targets, reduction="sum")
