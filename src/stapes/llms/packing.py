"""Batches of an LLM without padding: the utterances stand in one row, and attention is done utterance by utterance.

Where the lengths of a batch differ, padding is a third of the positions and more, and each costs what a real one does. In a
row nothing is padded, and what an utterance gives does not depend on its neighbours. transformers knows such rows by their
position ids and would mask all that crosses a border, at the price of a matrix of all positions by all; the attention function
of this module, registered with it, takes the utterances apart instead.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "stapes"  # what transformers calls it


@dataclass(frozen=True)
class Row:
    """Utterances that stand one after the other in a row.

    Attributes:
        lengths: positions of each.
        device: of what is looked up.
    """

    lengths: list[int]
    device: torch.device

    @cached_property
    def places(self) -> tuple[Tensor, Tensor]:
        """Where each position of the row stands when the utterances lie side by side, and the way back.

        Returns:
            (n,): of every position of the row, its place among the B x L; (B x L,): of every place, the position of the row
            that it shows; any of the utterance's where it is padding.
        """
        lengths = torch.tensor(self.lengths, device=self.device)
        steps = torch.arange(max(self.lengths), device=self.device)
        first = lengths.cumsum(0) - lengths
        shown = first[:, None] + torch.minimum(steps, lengths[:, None] - 1)
        return (steps < lengths[:, None]).flatten().nonzero().flatten(), shown.flatten()


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    row: Row | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' scaled dot-product attention: (B, heads, L, C) -> (B, L, heads, C).

    Args:
        module, query, key, value, attention_mask: as transformers gives them.
        row: what one row (B = 1) is made of; None for an ordinary batch.
        **options: handed on.
    """
    if row is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    apart = _one_by_one if query.device.type == "cpu" else _side_by_side
    return apart(module, query, key, value, row, **options), None


def _one_by_one(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, row: Row, **options: Any) -> Tensor:
    """Every utterance by itself: nothing is computed in vain."""
    utterances = zip(*(states.split(row.lengths, dim=2) for states in (query, key, value)), strict=True)
    return torch.cat([sdpa_attention_forward(module, *states, None, **options)[0] for states in utterances], dim=1)


def _side_by_side(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, row: Row, **options: Any) -> Tensor:
    """All at once, padded on the right, where no position that is before sees it: a GPU's time goes into calls, not padding."""
    back, shown = row.places
    batch = [
        states.index_select(2, shown).unflatten(2, (len(row.lengths), -1))[0].transpose(0, 1) for states in (query, key, value)
    ]
    mixed: Tensor = sdpa_attention_forward(module, *batch, None, **options)[0]
    return mixed.flatten(0, 1).index_select(0, back)[None]


def install(model: Any) -> bool:
    """Let a model that uses scaled dot-product attention use ``attention``; false where it does it some other way."""
    takes_options = any(
        parameter.kind is parameter.VAR_KEYWORD for parameter in inspect.signature(model.forward).parameters.values()
    )
    if model.config._attn_implementation != "sdpa" or not model._can_set_attn_implementation() or not takes_options:
        return False
    model.set_attn_implementation(ATTENTION)
    return True


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
