"""Batches of an LLM without padding: the utterances stand in one row, and attention is done utterance by utterance.

Where the lengths of a batch differ, padding is a third of the positions and more, and each costs what a real one does. In a
row nothing is padded, and what an utterance gives does not depend on its neighbours. transformers knows such rows by their
position ids and would mask all that crosses a border, at the price of a matrix of all positions by all; the attention function
of this module, registered with it, takes the utterances one after the other instead.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "stapes"  # what transformers calls it


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    row_lengths: list[int] | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' scaled dot-product attention: (B, heads, L, C) -> (B, L, heads, C).

    Args:
        module, query, key, value, attention_mask: as transformers gives them.
        row_lengths: of the utterances that one row (B = 1) is made of; None for an ordinary batch.
        **options: handed on.
    """
    if row_lengths is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    rows = zip(*(states.split(row_lengths, dim=2) for states in (query, key, value)), strict=True)
    return torch.cat([sdpa_attention_forward(module, *row, None, **options)[0] for row in rows], dim=1), None


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
