"""Text from frames: greedy or beam search through transformers' ``generate``, in batches, with a cap by duration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from stapes.decoding.ctc_prefix import CTCPrefixProcessor, CTCPrefixScorer
from stapes.model import SpeechLLM
from stapes.recipe import Decoding
from stapes.types import Padded


@dataclass(frozen=True)
class Hypothesis:
    """What the model wrote.

    Attributes:
        text: as the task parses it.
        tokens: the token ids, without the end token.
        capped: whether the cap by duration cut it off.
        ctc_text: what the CTC head alone heard; None for a model without one.
    """

    text: str
    tokens: list[int]
    capped: bool
    ctc_text: str | None


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


def generate(model: SpeechLLM, frames: Padded, seconds: Sequence[float], options: Decoding) -> list[Hypothesis]:
    """Decode a batch.

    Args:
        model: in evaluation mode.
        frames: (B, T, E) from its encoder.
        seconds: the duration of each utterance, for the cap.
        options: how.
    """
    with torch.inference_mode():
        speech = model.speech(frames)
        embeddings, mask = model.splice(speech.embeddings)
    caps = [math.ceil(options.tokens_per_second * duration) + options.tokens_spare for duration in seconds]
    processors = LogitsProcessorList()
    if options.ctc_weight > 0 and speech.log_probs is not None and model.pieces is not None:
        scorer = CTCPrefixScorer(speech.log_probs, speech.uncompressed.lengths)
        processors.append(CTCPrefixProcessor(scorer, model.pieces, options.ctc_weight, model.llm.end_ids, options.beams))
    processors.append(_Cap(caps, options.beams, model.llm.end_id))
    generated = model.llm.generate(
        embeddings,
        mask,
        max_new_tokens=max(caps) + 1,
        num_beams=options.beams,
        do_sample=False,
        no_repeat_ngram_size=options.no_repeat_ngram,
        length_penalty=options.length_penalty,
        logits_processor=processors,
    )
    return [
        _hypothesis(model, row, cap, heard)
        for row, cap, heard in zip(generated.tolist(), caps, model.heard(speech), strict=True)
    ]


def _hypothesis(model: SpeechLLM, row: list[int], cap: int, ctc_text: str | None) -> Hypothesis:
    ends = [place for place, token in enumerate(row) if token in model.llm.end_ids]
    tokens = row[: ends[0]] if ends else row
    return Hypothesis(model.task.parse(model.llm.decode(tokens)), tokens, len(tokens) >= cap, ctc_text)
