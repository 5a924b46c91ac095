"""Answers that a grammar allows and no others: tokens that would lead out of it are ruled out at every step.

A regular expression is compiled for the LLM's vocabulary by ``llguidance``, which follows it letter by letter: a token may
cross any boundary in the pattern. The end tokens are allowed exactly where the answer so far is complete. A closed list of
labels is a grammar like any other: ``Negative|Neutral|Positive``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import llguidance.hf
import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from torch import Tensor
from transformers import LogitsProcessor

from stapes.errors import WeightsError
from stapes.llms import LLM

LAST_RESORT = -1e4  # a score for what is picked only where nothing else can be


class Grammar:
    r"""A regular expression or a JSON schema, compiled for one LLM. Both its vocabulary and the grammar are prepared once.

    Args:
        llm: whose tokens the answer is made of.
        pattern: of whole answers as ``LLM.decode`` gives them, in the syntax of Rust's ``regex`` without look-around. The
            space before the first letter, which was there in training, comes on top of it; an empty answer has none. A JSON
            schema is a mapping, and allows no white space but what JSON on one line has.

    Raises:
        WeightsError: the LLM's tokenizer is not one that grammars can be compiled for.
    """

    def __init__(self, llm: LLM, pattern: str | Mapping[str, Any]) -> None:
        is_schema = not isinstance(pattern, str)
        pattern = json.dumps(pattern) if is_schema else str(pattern)
        self.llm, self.pattern, self.end_ids = llm, pattern, llm.end_ids
        if llm not in _VOCABULARIES:
            _VOCABULARIES[llm] = _vocabulary(llm), {}
        self._tokens, patterns = _VOCABULARIES[llm]
        if pattern not in patterns:
            if is_schema:
                grammar = LLMatcher.grammar_from_json_schema(pattern, overrides={"whitespace_flexible": False})
            else:
                empty = LLMatcher(self._tokens, LLMatcher.grammar_from_regex(pattern)).is_accepting()
                grammar = LLMatcher.grammar_from_regex(f"(?: (?:{pattern})){'?' if empty else ''}")
            patterns[pattern] = LLMatcher(self._tokens, grammar)
            assert not patterns[pattern].is_error(), f"{pattern}: {patterns[pattern].get_error()}"
        self._start = patterns[pattern]

    def start(self) -> LLMatcher:
        """The state of an answer without tokens."""
        return self._start.deep_copy()

    def allowed(self, state: LLMatcher, text: Sequence[int]) -> np.ndarray:
        """(V,) bool, which tokens may come next, special ones never; V is the tokenizer's, whatever the LLM's table has."""
        allowed = np.frombuffer(state.compute_logit_bias(), dtype=np.uint8) > 0
        allowed[self.end_ids] = state.is_accepting()
        assert allowed.any(), f"nothing may follow {self.llm.decode(text)!r} in {self.pattern}: {state.get_error()}"
        return allowed


class GrammarProcessor(LogitsProcessor):
    """Keeps answers within a grammar, in ``generate``, greedy or beam, and in greedy search with drafts.

    It goes before processors that choose among the tokens (``CTCPrefixProcessor``), and before the cap, which may leave an
    answer unfinished. Where a ban on repetition has ruled out everything that the grammar allows, the grammar has its way.

    The state of a row is found by its tokens, since beams change places; states of texts that are not asked for again are
    forgotten, and are built anew from their tokens where they are.
    """

    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar
        self._known: dict[tuple[int, ...], LLMatcher | None] = {}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (R, V) of the next token, R = B x beams, given the tokens so far (R, U)."""
        return self.allow(input_ids.tolist(), scores)

    def allow(self, texts: Sequence[Sequence[int]], scores: Tensor) -> Tensor:
        """The same for texts that may differ in length.

        Args:
            texts: the tokens so far of R rows. One with an end token has ended; one that the grammar does not allow, as beam
                search keeps where there are fewer ways to go on than beams, is treated as if it had.
            scores: (R, V) of the LLM.

        Returns:
            (R, V), -inf for tokens that are ruled out.
        """
        prefixes = [tuple(text) for text in texts]
        self._known = {prefix: self._follow(prefix) for prefix in dict.fromkeys(prefixes)}
        rows = {prefix: self.grammar.allowed(state, prefix) for prefix, state in self._known.items() if state is not None}
        allowed = np.zeros(tuple(scores.shape), dtype=bool)
        for row, prefix in enumerate(prefixes):
            if prefix in rows:
                width = min(len(rows[prefix]), allowed.shape[1])
                allowed[row, :width] = rows[prefix][:width]
            else:
                allowed[row, self.grammar.end_ids[0]] = True
        mask = torch.from_numpy(allowed).to(scores.device)
        kept = scores.masked_fill(~mask, -torch.inf)
        stuck = kept.isneginf().all(-1, keepdim=True)
        ended = torch.tensor([[prefix not in rows] for prefix in prefixes], device=scores.device)
        return kept.masked_fill((stuck | ended) & mask, LAST_RESORT)

    def _follow(self, text: tuple[int, ...]) -> LLMatcher | None:
        """The state after a text; None where it has ended or is not allowed."""
        if text in self._known:
            return self._known[text]
        state, tokens = self.grammar.start(), text
        if text[:-1] in self._known and text:
            before = self._known[text[:-1]]
            if before is None:
                return None
            state, tokens = before.deep_copy(), text[-1:]
        if not set(tokens).isdisjoint(self.grammar.end_ids):
            return None
        return state if state.consume_tokens(list(tokens)) else None


def _vocabulary(llm: LLM) -> LLTokenizer:
    try:
        return llguidance.hf.from_tokenizer(llm.tokenizer, eos_token=llm.end_ids)
    except ValueError as error:
        found = f"a tokenizer that no grammar can be compiled for ({error})"
        raise WeightsError(llm.source, found, "a fast tokenizer", "decode without a grammar") from None


# Of each LLM, its vocabulary as llguidance has it (a second's work for a large one) and the patterns compiled for it.
_VOCABULARIES: WeakKeyDictionary[LLM, tuple[LLTokenizer, dict[str, LLMatcher]]] = WeakKeyDictionary()
