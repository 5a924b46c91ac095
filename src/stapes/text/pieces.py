"""Small pieces of an LLM's own vocabulary: what a CTC head listens for.

An LLM's tokens are far too many and too rare to be learnt from a few hours of speech: in 15 hours, half of those that occur
occur fewer than five times. But a byte-pair vocabulary is a sequence of merges, and its first few hundred are a complete small
vocabulary **whose every piece is a token of the LLM**, with an embedding. Every other token falls apart into such pieces along
its own merges, always in the same way. So speech can be aligned to pieces, and any text that the LLM may write can still be
scored against the sound.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

from stapes.errors import RecipeError


class PieceVocabulary:
    """The tokens that the first ``merges`` merges of a byte-pair tokenizer make.

    Args:
        tokenizer: of the LLM; a fast one (``tokenizers``) with a BPE model.
        merges: how many merges to keep. 1000 gives about five pieces for a second of English speech.
        ends: tokens that end an answer. They are no pieces, also where the tokenizer does not count them as special.

    Attributes:
        ids: the LLM's token ids of the pieces, ascending; the index into this list is the piece's number.

    Raises:
        RecipeError: the tokenizer is not byte-pair.
    """

    def __init__(self, tokenizer: Any, merges: int, ends: Sequence[int] = ()) -> None:
        model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
        if model["type"] != "BPE" or not model["merges"]:
            kind = model["type"]
            raise RecipeError("ctc.merges", f"the LLM's tokenizer is {kind}", "a byte-pair tokenizer", "leave `ctc` out")
        self.tokenizer, self.merges = tokenizer, merges
        vocabulary: dict[str, int] = model["vocab"]
        self._parts: dict[int, tuple[int, int]] = {}
        for pair in model["merges"][merges:]:
            left, right = pair if isinstance(pair, list) else pair.split(" ")
            whole = vocabulary.get(left + right)
            if whole is not None and left in vocabulary and right in vocabulary:
                self._parts.setdefault(whole, (vocabulary[left], vocabulary[right]))
        kept = {"".join(pair if isinstance(pair, list) else pair.split(" ")) for pair in model["merges"][:merges]}
        special = {*tokenizer.all_special_ids, *ends}
        self.ids = sorted(
            token for name, token in vocabulary.items() if token not in special and (name in kept or token not in self._parts)
        )
        self._number = {token: number for number, token in enumerate(self.ids)}
        for token in self.ids:
            self._parts.pop(token, None)

    def __len__(self) -> int:
        return len(self.ids)

    @functools.cache  # noqa: B019 (one vocabulary lives as long as its model)
    def of_token(self, token: int) -> tuple[int, ...]:
        """The piece numbers that an LLM token falls apart into; empty for special tokens."""
        if token in self._number:
            return (self._number[token],)
        if token not in self._parts:
            return ()
        left, right = self._parts[token]
        return self.of_token(left) + self.of_token(right)

    def of_tokens(self, tokens: Sequence[int]) -> list[int]:
        """The piece numbers of a sequence of LLM tokens."""
        return [piece for token in tokens for piece in self.of_token(token)]

    def decode(self, pieces: Sequence[int]) -> str:
        """The text of a sequence of piece numbers."""
        text: str = self.tokenizer.decode([self.ids[piece] for piece in pieces])
        return text.strip()
