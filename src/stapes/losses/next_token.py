"""Next-token cross-entropy over target positions only."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def next_token(logits: Tensor, targets: Tensor, emphasis: Tensor | None = None) -> Tensor:
    """Sum of -log p over the target tokens, in float32; divided by their number over the whole step by the training loop.

    Args:
        logits: (n, V), one row for each target token.
        targets: (n,) token ids.
        emphasis: (n,) how many tokens each counts for; one each if None.

    Returns:
        Scalar.
    """
    if emphasis is None:
        return F.cross_entropy(logits.float(), targets, reduction="sum")
    return (F.cross_entropy(logits.float(), targets, reduction="none") * emphasis).sum()
