"""Next-token cross-entropy over target positions only."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def next_token(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum of -log p over the target tokens, in float32; divided by their number over the whole step by the training loop.

    Args:
        logits: (B, U, V), position u predicting ``targets[:, u]``.
        targets: (B, U) token ids, negative where there is none.

    Returns:
        Scalar.
    """
    real = targets >= 0
    return F.cross_entropy(logits[real].float(), targets[real], reduction="sum")
