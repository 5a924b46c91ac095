"""A causal LM on this machine, through transformers; its answers are held to the JSON schema while they are written.

Greedy, one question at a time: a convenience for those without a server. vLLM or llama.cpp behind ``--base-url`` are quicker.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import LogitsProcessorList

from stapes.annotate import prompt
from stapes.annotate.backends.base import Answer, Backend, Question, Usage
from stapes.annotate.prompt import BadAnswer, Task
from stapes.decoding.constraints import Grammar, GrammarProcessor
from stapes.device import settle
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
        settle(device)
        self._llm.to(device=device, dtype=dtype).eval()
        self._task, self._device, self._dtype = task, device, dtype
        self._grammar = Grammar(self._llm, _bounded(prompt.schema(task)))

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
        (new,) = self._llm.generate(
            self._llm.embed(ids),
            torch.ones_like(ids),
            max_new_tokens=MAX_TOKENS,
            do_sample=False,
            logits_processor=LogitsProcessorList([GrammarProcessor(self._grammar)]),
        )
        answer = Answer(usage=Usage(1, ids.shape[1], 0, len(new)))
        try:
            if int(new[-1]) not in self._llm.end_ids:
                raise BadAnswer("cut off")
            answer.labels = prompt.read(self._task, self._llm.decode(new.tolist()))
        except BadAnswer as error:
            answer.failure = str(error)
            answer.trouble[answer.failure] += 1
        return answer


def _bounded(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with bounds on lists and strings; endpoints do not all take them."""
    schema = copy.deepcopy(schema)
    if (entities := schema["properties"].get("entities")) is not None:
        entities["maxItems"] = MAX_ENTITIES
        entities["items"]["properties"]["phrase"]["maxLength"] = MAX_LETTERS
    return schema
