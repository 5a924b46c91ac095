"""Optimiser, learning-rate schedule and weight averaging."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from stapes import lora
from stapes.model import BASES
from stapes.recipe import Train


def optimizer(module: nn.Module, train: Train) -> torch.optim.AdamW:
    """AdamW over what is trainable: a learning rate for adapter, CTC head and losses, one for LoRA, one for base weights.

    Vectors do not decay.
    """
    rates = dict.fromkeys(BASES, train.full_learning_rate)
    rates |= {f"{base}.lora": train.lora_learning_rate for base in BASES}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            rate = rates.get(lora.part_of(name), train.learning_rate)
            decay = train.weight_decay if parameter.dim() > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    listed = [{"params": members, "lr": rate, "weight_decay": decay} for (rate, decay), members in groups.items()]
    return torch.optim.AdamW(listed, betas=(0.9, 0.98))


def schedule(optimizer: torch.optim.Optimizer, train: Train, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up, then a cosine down to ``final_ratio`` of the peak at the last step."""

    def factor(step: int) -> float:
        warmup = min(train.warmup_steps, steps // 2)
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, steps - warmup)
        return train.final_ratio + (1 - train.final_ratio) * (1 + math.cos(math.pi * min(1.0, done))) / 2

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


class Average:
    """Exponential moving average of weights; its first steps average plainly, so that the start is soon forgotten.

    Args:
        state: the tensors to follow, by name.
        decay: weight of the past at each step, at most.
    """

    def __init__(self, state: dict[str, Tensor], decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.state = {name: tensor.detach().clone() for name, tensor in state.items()}

    def update(self, state: dict[str, Tensor]) -> None:
        """Move towards the current weights."""
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 9))
        current = [state[name].to(tensor.dtype) for name, tensor in self.state.items()]
        torch._foreach_lerp_(list(self.state.values()), current, 1 - decay)  # one call for all of them, as torch's own averages
