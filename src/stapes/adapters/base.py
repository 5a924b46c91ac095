"""What every adapter promises; ``tests/adapters/test_contract.py`` holds each one in the table to it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from stapes.types import Padded


class Adapter(nn.Module, ABC):
    """Encoder frames (B, T, E) -> speech embeddings (B, K, D) in the LLM's space.

    A constructor takes ``encoder_dim``, ``llm_dim`` and, where it needs the time scale, ``seconds_per_frame``: they are derived
    from the encoder and the LLM. Its other keywords are what a recipe may set. The embeddings of an utterance are the same
    alone, in a batch and beside longer neighbours; its last frame is heard; what stands in the padding does not matter.
    """

    @abstractmethod
    def forward(self, frames: Padded) -> Padded:
        """Map frames to embeddings.

        Args:
            frames: (B, T, E).

        Returns:
            (B, K, D) with lengths ``output_lengths(frames.lengths)`` and zeros in the padding.
        """

    @abstractmethod
    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Number of embeddings (B,) for numbers of frames (B,)."""
