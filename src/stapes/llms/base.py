"""What every LLM promises: a transformers causal language model and its tokenizer behind a narrow face."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stapes import hub
from stapes.errors import WeightsError

# Stands for the speech while the chat template is rendered; plain letters, so that no template treats it specially.
SPEECH_MARK = "STAPESSPEECHGOESHERE"
SPACES = str.maketrans("\u0120\u2581", "  ")  # how byte-level and SentencePiece vocabularies write a space


class LLM(nn.Module):
    """A causal language model that reads embeddings.

    Args:
        model: a transformers ``...ForCausalLM``.
        tokenizer: its tokenizer, with a chat template or without.
        source: where the weights came from.

    Attributes:
        dim: D, the width of its embeddings.
        digest: of its tensors as loaded (``hub.digest``), before any LoRA.
    """

    def __init__(self, model: Any, tokenizer: Any, source: str = "") -> None:
        super().__init__()
        self.model, self.tokenizer, self.source = model, tokenizer, source
        self.dim: int = model.get_input_embeddings().embedding_dim
        self.digest = hub.digest(dict(model.named_parameters()))
        eos = model.generation_config.eos_token_id
        ends = [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
        if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ends:
            ends.append(tokenizer.eos_token_id)
        if not ends:
            raise WeightsError(source, "no end-of-sequence token in tokenizer or generation config", "one of them to name it")
        self.end_ids: list[int] = ends

    @property
    def end_id(self) -> int:
        """The token that ends an answer in training: the tokenizer's own, where it has one."""
        return self.tokenizer.eos_token_id if self.tokenizer.eos_token_id is not None else self.end_ids[0]

    @property
    def pad_id(self) -> int:
        """The token that fills up batches: the tokenizer's own, else the end token."""
        return self.end_id if self.tokenizer.pad_token_id is None else self.tokenizer.pad_token_id

    @property
    def table(self) -> Tensor:
        """(V, D) embeddings of all tokens."""
        return self.model.get_input_embeddings().weight

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (...,) -> embeddings (..., D)."""
        return self.model.get_input_embeddings()(ids)

    def forward(self, embeddings: Tensor, mask: Tensor, wanted: Tensor) -> Tensor:
        """Next-token logits at the wanted positions only, by the model's own head code.

        Everything that the model does after its output layer (scaling, soft-capping) is done by the model; the hook only
        picks the positions that enter that layer.

        Args:
            embeddings: (B, L, D), padded on the left.
            mask: (B, L) bool, true where a position is real.
            wanted: (B, U) bool, of the last U positions, true where logits are wanted; n in all.

        Returns:
            (n, V), in the order of ``wanted``'s true entries.
        """

        def pick(_: nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor]:
            return (arguments[0][wanted][None],)

        hook = self.model.get_output_embeddings().register_forward_pre_hook(pick)
        try:
            logits: Tensor = self.model(
                inputs_embeds=embeddings,
                attention_mask=mask.long(),
                position_ids=positions(mask),
                logits_to_keep=wanted.shape[1],
                use_cache=False,
            ).logits
        finally:
            hook.remove()
        return logits[0]

    def checkpoint_gradients(self, wanted: bool) -> None:
        """Whether training computes each layer again in the backward pass, and keeps only its input until then.

        Raises:
            WeightsError: the model cannot do so.
        """
        if not wanted:
            if self.model.is_gradient_checkpointing:
                self.model.gradient_checkpointing_disable()
        elif self.model.supports_gradient_checkpointing:
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        else:
            raise WeightsError(self.source, "a model without gradient checkpointing", fix="set gradient_checkpointing: false")

    @property
    def can_rewind(self) -> bool:
        """Whether positions that it has read can be masked afterwards: full attention in every layer, and no other state."""
        kinds = set(getattr(self.model.config.get_text_config(), "layer_types", None) or ["full_attention"])
        return kinds == {"full_attention"} and not self.model._is_stateful

    def extend(self, embeddings: Tensor, mask: Tensor, cache: Any, keep: int = 0) -> Tensor:
        """Read more positions, after those in ``cache``, which is added to.

        Args:
            embeddings: (B, U, D) of the new positions.
            mask: (B, S + U) bool of all positions, those in the cache first; false ones are passed over and not counted.
            cache: transformers' key-value cache.
            keep: logits are wanted of that many last positions; 0 is all.

        Returns:
            (B, U or keep, V) logits.
        """
        logits: Tensor = self.model(
            inputs_embeds=embeddings,
            attention_mask=mask.long(),
            position_ids=positions(mask)[:, -embeddings.shape[1] :],
            past_key_values=cache,
            logits_to_keep=keep,
            use_cache=True,
        ).logits
        return logits

    def generate(self, embeddings: Tensor, mask: Tensor, **options: Any) -> Tensor:
        """Generate through transformers' ``generate``: (B, L, D), padded on the left -> new token ids (B, U)."""
        with torch.inference_mode(), warnings.catch_warnings():
            # The n-gram ban is meant to see what was written, and not the speech.
            warnings.filterwarnings("ignore", message="Passing `no_repeat_ngram_size`")
            return self.model.generate(
                inputs_embeds=embeddings,
                attention_mask=mask.long(),
                eos_token_id=self.end_ids,
                pad_token_id=self.pad_id,
                **options,
            )

    def save(self, folder: Path) -> None:
        """Write model, tokenizer and generation settings, as they stand, to a folder that transformers opens."""
        settings = self.model.generation_config
        try:
            settings.validate(strict=True)
        except ValueError:
            settings.do_sample = True  # settings of sampling without sampling, as Vicuna ships them, are read but not written
        self.model.save_pretrained(folder)
        for file in folder.glob("*.safetensors"):
            file.chmod(0o644)  # safetensors makes it private
        self.tokenizer.save_pretrained(folder)

    def wrap(self, instruction: str) -> tuple[list[int], list[int]]:
        """Token ids before and after the speech, from the chat template.

        The instruction is the system message (or, where the template knows no such role, the beginning of the user's), the
        speech is the user's message. Without a template it is "instruction, speech, newline". The text is tokenized in two
        parts, exactly as it stands around the speech, in training as in inference.
        """
        template = self.tokenizer.chat_template
        if template is None:
            text = f"{instruction}\n{SPEECH_MARK}\n"
        else:
            text = self._render(
                [{"role": "system", "content": instruction}, {"role": "user", "content": SPEECH_MARK}],
                [{"role": "user", "content": f"{instruction}\n{SPEECH_MARK}"}],
            )
        before, _, after = text.partition(SPEECH_MARK)
        return self.encode(before), self.encode(after)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, special tokens in it recognised and none added."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def spell(self, token: int) -> str:
        """The letters of a token, a space before it included, where letters are what it stands for."""
        name: str = self.tokenizer.convert_ids_to_tokens(token)
        return name.translate(SPACES)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True)
        return text.strip()

    def _render(self, *conversations: list[dict[str, str]]) -> str:
        """The first conversation that the template accepts, rendered up to where the answer begins; thinking switched off."""
        from jinja2 import TemplateError

        for conversation in conversations:
            try:
                text: str = self.tokenizer.apply_chat_template(
                    conversation, tokenize=False, add_generation_prompt=True, enable_thinking=False
                )
            except TemplateError:
                continue
            if SPEECH_MARK in text:
                return text
        raise WeightsError(self.source, "a chat template that takes neither a system nor a user message", "one that does")


def positions(mask: Tensor) -> Tensor:
    """Position ids (B, L) that count real positions only, so that padding on the left changes nothing."""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)
