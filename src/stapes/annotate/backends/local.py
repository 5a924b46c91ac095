"""A causal LM on this machine, through transformers; its answers are held to the JSON schema while they are written.

Greedy, one question at a time: a convenience for those without a server. vLLM or llama.cpp behind ``--base-url`` are quicker.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import torch
from llguidance import LLMatcher
from llguidance.hf import from_tokenizer
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from stapes.annotate import prompt
from stapes.annotate.backends.base import Answer, Backend, Question, Usage
from stapes.annotate.prompt import BadAnswer, Task
from stapes.errors import WeightsError
from stapes.llms.causal import CausalLLM

MAX_TOKENS = 512
MAX_ENTITIES, MAX_LETTERS = 32, 120  # so that a weak model comes to an end


class LocalBackend(Backend):
    """A causal LM.

    Args:
        source: ``pack:name``, ``path:/folder`` or ``hf:owner/name``; the kind may be left out.
        task: what it is asked for.
        device: where it runs.
        dtype: in which precision.

    Raises:
        WeightsError: the weights cannot be had, or their tokenizer is not one that a grammar can be laid over.
    """

    name = "local"

    def __init__(self, source: str, task: Task, device: torch.device, dtype: torch.dtype) -> None:
        self._llm = CausalLLM(source)
        self._llm.to(device=device, dtype=dtype).eval()
        self._task, self._device, self._dtype = task, device, dtype
        try:
            vocabulary = self._llm.model.get_output_embeddings().weight.shape[0]
            tokenizer = from_tokenizer(self._llm.tokenizer, n_vocab=vocabulary, eos_token=self._llm.end_ids)
        except ValueError as error:
            raise WeightsError(source, f"no fast tokenizer ({error})", "one that a grammar can be laid over") from error
        grammar = LLMatcher.grammar_from_json_schema(_bounded(prompt.schema(task)), overrides={"whitespace_flexible": False})
        self._matcher = LLMatcher(tokenizer, grammar)
        assert not self._matcher.is_error(), self._matcher.get_error()

    @property
    def settings(self) -> dict[str, Any]:
        """The digest of its tensors, and the precision."""
        model = {"model": self._llm.source, "digest": self._llm.digest}
        return {"backend": self.name, **model, "dtype": str(self._dtype).removeprefix("torch.")}

    async def ask(self, question: Question) -> Answer:
        """Write an answer; one that does not end, or does not fit into the model's context, is a failure."""
        text = self._llm.render(list(question.messages), add_generation_prompt=True)
        ids = torch.tensor([self._llm.encode(text)], device=self._device)
        longest = getattr(self._llm.model.config, "max_position_embeddings", None)
        if longest and ids.shape[1] + MAX_TOKENS > longest:
            return Answer(failure=f"longer than the model's context of {longest} tokens")
        self._matcher.reset()
        with torch.inference_mode():
            whole = self._llm.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=MAX_TOKENS,
                do_sample=False,
                eos_token_id=self._llm.end_ids,
                pad_token_id=self._llm.pad_id,
                logits_processor=LogitsProcessorList([_Constraint(self._matcher, ids.shape[1])]),
            )
        new = whole[0, ids.shape[1] :]
        answer = Answer(usage=Usage(1, ids.shape[1], 0, len(new)))
        try:
            if int(new[-1]) not in self._llm.end_ids:
                raise BadAnswer("cut off")
            answer.labels = prompt.read(self._task, self._llm.decode(new.tolist()))
        except BadAnswer as error:
            answer.failure = str(error)
            answer.trouble[answer.failure] += 1
        return answer


class _Constraint(LogitsProcessor):
    """Lets through only tokens that the grammar allows next."""

    def __init__(self, matcher: LLMatcher, prompt_length: int) -> None:
        self._matcher, self._read = matcher, prompt_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (1, V) with the forbidden ones at minus infinity, given the ids (1, L) so far."""
        for token in input_ids[0, self._read :].tolist():
            self._matcher.consume_token(token)
        self._read = input_ids.shape[1]
        allowed = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8)
        return scores.masked_fill(allowed[: scores.shape[1]].to(scores.device) == 0, float("-inf"))


def _bounded(schema: dict[str, Any]) -> str:
    """The schema with bounds on lists and strings; endpoints do not all take them."""
    schema = copy.deepcopy(schema)
    if (entities := schema["properties"].get("entities")) is not None:
        entities["maxItems"] = MAX_ENTITIES
        entities["items"]["properties"]["phrase"]["maxLength"] = MAX_LETTERS
    return json.dumps(schema)
