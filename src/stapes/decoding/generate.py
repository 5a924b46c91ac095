"""Text from frames, in batches, with a cap by duration.

Beam search is transformers' ``generate``. So is greedy search, unless the CTC head has heard something: then that is a draft
(``drafts.py``), and the same tokens are found in fewer steps.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from stapes.decoding.constraints import Grammar, GrammarProcessor
from stapes.decoding.ctc_prefix import CTCPrefixProcessor, CTCPrefixScorer, SpokenPieces
from stapes.decoding.drafts import Choose, Draft, search
from stapes.decoding.spoken import NoSpokenRepeats, Spoken
from stapes.model import SpeechLLM, written
from stapes.recipe import Decoding
from stapes.tasks import Result, Task, find_task
from stapes.types import Padded


@dataclass(frozen=True)
class Hypothesis:
    """What the model wrote.

    Attributes:
        answer: the text as it was written.
        result: what the task reads in it.
        tokens: the token ids, without the end token.
        capped: whether the cap by duration cut it off.
        ctc_text: what the CTC head alone heard; None for a model without one.
    """

    answer: str
    result: Result
    tokens: list[int]
    capped: bool
    ctc_text: str | None

    @property
    def text(self) -> str:
        """The words of the result."""
        return self.result.text


class _Cap(LogitsProcessor):
    """Ends each row at its own cap, so that it does not depend on its neighbours'."""

    def __init__(self, caps: Sequence[int], beams: int, end_id: int) -> None:
        self.caps = torch.tensor(caps).repeat_interleave(beams)
        self.end_id = end_id

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Leave the end token alone where a row has reached its cap."""
        full = (self.caps <= input_ids.shape[1]).to(scores.device)
        scores = scores.masked_fill(full[:, None], -torch.inf)
        scores[full, self.end_id] = 0.0
        return scores


def generate(model: SpeechLLM, frames: Padded, seconds: Sequence[float], options: Decoding, task: str = "") -> list[Hypothesis]:
    """Decode a batch.

    Args:
        model: in evaluation mode.
        frames: (B, T, E) from its encoder.
        seconds: the duration of each utterance, for the cap.
        options: how.
        task: the key of what is asked; the model's first if empty.
    """
    asked = find_task(model.tasks, task)
    with torch.inference_mode():
        speech = model.speech(frames)
        embeddings, mask = model.splice(speech.embeddings, prompts=[model.prompts[asked.key][0]] * len(seconds))
    per_second = asked.longer * options.tokens_per_second
    caps = [math.ceil(per_second * duration) + options.tokens_spare for duration in seconds]
    heard = model.heard(speech)
    drafts = [Draft(written(text or "" if asked.scores_sound else ""), model.llm, asked.listen) for text in heard]
    pattern = asked.grammar() if options.constrained else None
    grammar = GrammarProcessor(Grammar(model.llm, pattern)) if pattern is not None else None
    spoken = Spoken(model.llm, asked.listen)
    no_repeats = NoSpokenRepeats(spoken, options.no_repeat_ngram) if options.no_repeat_ngram else None
    sound: CTCPrefixProcessor | None = None
    if options.ctc_weight > 0 and asked.scores_sound and speech.log_probs is not None and model.pieces is not None:
        scorer = CTCPrefixScorer(speech.log_probs, speech.uncompressed.lengths)
        guesses = [copy.copy(draft) for draft in drafts]
        sound = CTCPrefixProcessor(
            scorer,
            SpokenPieces(spoken, model.pieces),
            options.ctc_weight,
            model.llm.end_ids,
            options.beams,
            guesses,
            markup_bonus=options.markup_bonus,
        )
    if options.beams == 1 and model.ctc is not None and model.llm.can_rewind:
        choose = _greedy(model.llm.end_id, caps, no_repeats, grammar, sound)
        rows = search(model.llm, embeddings, mask, drafts, choose)
    else:
        processors = LogitsProcessorList([each for each in (no_repeats, grammar, sound) if each is not None])
        processors.append(_Cap(caps, options.beams, model.llm.end_id))
        rows = model.llm.generate(
            embeddings,
            mask,
            max_new_tokens=max(caps) + 1,
            num_beams=options.beams,
            do_sample=False,
            length_penalty=options.length_penalty,
            logits_processor=processors,
        ).tolist()
    return [_hypothesis(model, asked, row, cap, text) for row, cap, text in zip(rows, caps, heard, strict=True)]


def _greedy(
    end_id: int,
    caps: Sequence[int],
    no_repeats: NoSpokenRepeats | None,
    grammar: GrammarProcessor | None,
    sound: CTCPrefixProcessor | None,
) -> Choose:
    """The next token of some rows, from what ``generate`` would look at, in the same order: repetition, grammar, sound, cap."""

    def choose(rows: list[int], texts: list[list[int]], scores: Tensor) -> list[int]:
        if no_repeats is not None:
            scores = no_repeats.ban(texts, scores)
        if grammar is not None:
            scores = grammar.allow(texts, scores)
        if sound is not None:
            scores = sound.mix(rows, texts, scores)
        best = scores.argmax(-1).tolist()
        return [end_id if len(text) >= caps[row] else token for row, text, token in zip(rows, texts, best, strict=True)]

    return choose


def _hypothesis(model: SpeechLLM, task: Task, row: list[int], cap: int, ctc_text: str | None) -> Hypothesis:
    ends = [place for place, token in enumerate(row) if token in model.llm.end_ids]
    tokens = row[: ends[0]] if ends else row
    answer = model.llm.decode(tokens)
    return Hypothesis(answer, task.parse(answer), tokens, len(tokens) >= cap, ctc_text)
