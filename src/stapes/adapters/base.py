"""What every adapter promises; ``tests/adapters/test_contract.py`` holds each one in the table to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence

from torch import Tensor, nn

from stapes.types import Padded


class Adapter(nn.Module, ABC):
    """Encoder frames (B, T, E) -> speech embeddings (B, K, D) in the LLM's space.

    A constructor takes ``encoder_dim``, ``llm_dim`` and whatever else it needs of what is derived from the encoder and the LLM
    (``DERIVED`` beside the table). Its other keywords are what a recipe may set. The embeddings of an utterance are the same
    alone, in a batch and beside longer neighbours; what stands in the padding does not matter. Every frame is heard, the last
    one too, except where the paper drops an end that is too little for an embedding of its own (``cif`` with its ``tail``).

    Attributes:
        losses: names of the losses that ``with_losses`` can give; a recipe's stage may weigh them.
        lengths_are_bounds: whether ``output_lengths`` is only an upper bound, because the number depends on what is heard.
        over_frames: names of its layers that run on every frame, where the others run on what is left of them by content.
        over_vocabulary: names of those that score every token of the LLM. They meet one utterance at a time, and again in the
            backward pass (``ctc.by_utterance``), so that memory is counted for one (``training/footprint.py``).
        stride: frames per step of these.
    """

    losses: Sequence[str] = ()
    lengths_are_bounds: bool = False
    over_frames: Sequence[str] = ()
    over_vocabulary: Sequence[str] = ()
    stride: int = 1

    @abstractmethod
    def forward(self, frames: Padded) -> Padded:
        """Map frames to embeddings.

        Args:
            frames: (B, T, E).

        Returns:
            (B, K, D) with lengths ``output_lengths(frames.lengths)`` and zeros in the padding.
        """

    def with_losses(
        self, frames: Padded, targets: Sequence[Sequence[int]], wanted: Collection[str]
    ) -> tuple[Padded, dict[str, Tensor]]:
        """Map frames to embeddings as training wants them, and compute those of the adapter's own losses that are wanted.

        Args:
            frames: (B, T, E).
            targets: token ids of what is said in each, the end token last, whatever the task.
            wanted: names of losses, also of others than the adapter's own.

        Returns:
            (B, K, D), and for each name in ``losses`` that is wanted a sum over the batch.
        """
        return self(frames), {}

    @abstractmethod
    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Number of embeddings (B,) for numbers of frames (B,); see ``lengths_are_bounds``."""
