"""What of an answer is spoken, token by token, and no run of spoken tokens twice.

A loop of words is the commonest failure of an LLM that transcribes, and a ban on repeated n-grams ends it. But an answer with
entities repeats the form of its markup, which is no loop: a list has ``"}, {"tag": "`` before every entity, and a phrase that
comes back with its tag is longer in tokens than the phrase alone. So n-grams are those of the spoken tokens, as if the markup
were not there, and markup itself is never banned. The rule is ours; where everything is spoken it is that of transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import LogitsProcessor

from stapes.llms import LLM
from stapes.tasks import OVER

Listen = Callable[[str, str], tuple[str, str]]


class Part(NamedTuple):
    """What a token is in an answer.

    Attributes:
        letters: of the token.
        spoken: what turns out to be spoken with it; letters that were held back before come first.
        over: whether nothing more is spoken after it.
        ends: whether that is its own doing.
    """

    letters: str
    spoken: str
    over: bool
    ends: bool

    @property
    def is_spoken(self) -> bool:
        """Whether words are said with it, or it is said as it stands."""
        return bool(self.spoken.strip()) or self.spoken == self.letters != ""


class Spoken:
    """Follows answers as they are written; what it has followed it knows.

    Args:
        llm: whose tokens the answers are made of.
        listen: as ``Task.listen``.
    """

    def __init__(self, llm: LLM, listen: Listen) -> None:
        self.llm, self.listen = llm, listen
        self._states: dict[tuple[int, ...], str] = {(): ""}

    def __call__(self, text: tuple[int, ...], token: int) -> Part:
        """What ``token`` is after ``text``."""
        before, letters = self._state(text), self.llm.spell(token)
        after, spoken = self.listen(before, letters)
        self._states[*text, token] = after
        return Part(letters, spoken, over=after == OVER, ends=after == OVER != before)

    def _state(self, text: tuple[int, ...]) -> str:
        if text not in self._states:
            self._states[text], _ = self.listen(self._state(text[:-1]), self.llm.spell(text[-1]))
        return self._states[text]


class NoSpokenRepeats(LogitsProcessor):
    """Rules out the token with which an n-gram of spoken tokens would come a second time.

    Args:
        spoken: what is spoken.
        size: n.
    """

    def __init__(self, spoken: Spoken, size: int) -> None:
        self.spoken, self.size = spoken, size
        self._said: dict[tuple[int, ...], tuple[int, ...]] = {(): ()}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (R, V) of the next token given the tokens so far (R, U)."""
        return self.ban(input_ids.tolist(), scores)

    def ban(self, texts: Sequence[Sequence[int]], scores: Tensor) -> Tensor:
        """The same for R texts that may differ in length: (R, V), -inf for tokens that are ruled out."""
        scores = scores.clone()
        for row, text in enumerate(map(tuple, texts)):
            said, before = self._spoken_tokens(text), self.size - 1
            recent = said[max(0, len(said) - before) :]
            again = {said[place + before] for place in range(len(said) - before) if said[place : place + before] == recent}
            scores[row, [token for token in again if self.spoken(text, token).is_spoken]] = -torch.inf
        return scores

    def _spoken_tokens(self, text: tuple[int, ...]) -> tuple[int, ...]:
        if text not in self._said:
            is_spoken = self.spoken(text[:-1], text[-1]).is_spoken
            self._said[text] = self._spoken_tokens(text[:-1]) + (text[-1:] if is_spoken else ())
        return self._said[text]
