"""What every LLM promises: a transformers causal language model and its tokenizer behind a narrow face."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jinja2 import TemplateError
from torch import Tensor, nn

from stapes import hub
from stapes.errors import WeightsError
from stapes.llms import packing
from stapes.llms.templates import SAME_DAY, TEMPLATES

# Stands for the speech while the chat template is rendered; plain letters, so that no template treats it specially.
SPEECH_MARK = "STAPESSPEECHGOESHERE"
# How byte-level and SentencePiece vocabularies write a space and a line break.
BLANKS = str.maketrans("\u0120\u2581\u010a", "  \n")
BYTE_BREAK = "<0x0A>"
ANCHORS = ("\n", ".", "a", "0")  # texts to stand before another; no text runs into all of them


class LLM(nn.Module):
    """A causal language model that reads embeddings.

    Args:
        model: a transformers ``...ForCausalLM``.
        tokenizer: its tokenizer, with a chat template or without.
        source: where the weights came from.

    Attributes:
        dim: D, the width of its embeddings.
        digest: of its tensors as loaded (``hub.digest``), before any LoRA.
        end_ids: every token that ends an answer: those that generation config and tokenizer name, and the special token that
            the chat template puts behind one.
        end_id: the one of them that ends an answer in training: the template's, if the generation config or the tokenizer
            names it too (a base model may never have seen it), else the tokenizer's, else the generation config's first.
    """

    def __init__(self, model: Any, tokenizer: Any, source: str = "") -> None:
        from transformers import GenerationConfig

        super().__init__()
        self.model, self.tokenizer, self.source = model, tokenizer, source
        self.dim: int = model.get_input_embeddings().embedding_dim
        self.digest = hub.digest(dict(model.named_parameters()))
        self._packs = packing.install(model)
        eos = model.generation_config.eos_token_id
        named = [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
        own, turn = tokenizer.eos_token_id, self._turn_end()
        self.end_ids: list[int] = list(dict.fromkeys([*named, *(end for end in (own, turn) if end is not None)]))
        if not self.end_ids:
            raise WeightsError(source, "no end-of-sequence token in tokenizer or generation config", "one of them to name it")
        first = self.end_ids[0] if own is None else own
        self.end_id: int = first if turn is None or turn not in (*named, own) else turn
        # What else a model's files say about generation (sampling, a repetition penalty) is for the recipe to say.
        model.generation_config = GenerationConfig(eos_token_id=self.end_ids, pad_token_id=self.pad_id)

    @property
    def pad_id(self) -> int:
        """The token that fills up batches: the tokenizer's own, if the model has an embedding for it, else the end token."""
        pad = self.tokenizer.pad_token_id
        return self.end_id if pad is None or pad >= self.vocab_size else pad

    @property
    def vocab_size(self) -> int:
        """V, how many tokens have an embedding."""
        count: int = self.model.get_input_embeddings().num_embeddings
        return count

    @property
    def device(self) -> torch.device:
        """Where it is."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of its embeddings."""
        dtype: torch.dtype = self.model.get_input_embeddings().weight.dtype
        return dtype

    @property
    def table(self) -> Tensor:
        """(V, D) embeddings of all tokens, as the model reads them; made anew where those are scaled on the way out (Gemma)."""
        table = self.model.get_input_embeddings()
        if type(table) is nn.Embedding:
            return table.weight
        scaled: Tensor = table(torch.arange(table.num_embeddings, device=table.weight.device))
        return scaled

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (...,) -> embeddings (..., D)."""
        return self.model.get_input_embeddings()(ids)

    def forward(self, embeddings: Tensor, mask: Tensor, wanted: Tensor) -> Tensor:
        """Next-token logits at the wanted positions only, by the model's own head code.

        Everything that the model does after its output layer (scaling, soft-capping) is done by the model; the hook only
        picks the positions that enter that layer. Where the model can be given rows (``packing.py``), padding is left out.

        Args:
            embeddings: (B, L, D), padded on the left.
            mask: (B, L) bool, true where a position is real.
            wanted: (B, U) bool, of the last U positions, true where logits are wanted; n in all.

        Returns:
            (n, V), in the order of ``wanted``'s true entries.
        """

        if self._can_pack(embeddings.shape[1]):
            wanted = F.pad(wanted, (mask.shape[1] - wanted.shape[1], 0))[mask][None]
            inputs = {
                "inputs_embeds": embeddings[mask][None],
                "position_ids": positions(mask)[mask][None],
                "row": packing.Row(mask.sum(1).tolist(), embeddings.device),
            }
        else:
            inputs = {"inputs_embeds": embeddings, "position_ids": positions(mask), "attention_mask": mask.long()}

        def pick(_: nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor]:
            return (arguments[0][wanted][None],)

        hook = self.model.get_output_embeddings().register_forward_pre_hook(pick)
        try:
            logits: Tensor = self.model(**inputs, logits_to_keep=wanted.shape[1], use_cache=False).logits
        finally:
            hook.remove()
        return logits[0]

    def _can_pack(self, length: int) -> bool:
        """Whether every layer attends over all of ``length`` positions, and nothing else goes from one to another."""
        config = self.model.config.get_text_config()
        window = getattr(config, "sliding_window", None)
        reaching = {"full_attention"} if window is not None and window < length else {"full_attention", "sliding_attention"}
        return self._packs and not self.model._is_stateful and self._attention_kinds <= reaching

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
        return self._attention_kinds == {"full_attention"} and not self.model._is_stateful

    @property
    def _attention_kinds(self) -> set[str]:
        """What kinds of attention its layers have, in transformers' words."""
        config = self.model.config.get_text_config()
        windowed = "full_attention" if getattr(config, "sliding_window", None) is None else "sliding_attention"
        return set(getattr(config, "layer_types", None) or [windowed])

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
        with torch.inference_mode():
            return self.model.generate(
                inputs_embeds=embeddings,
                attention_mask=mask.long(),
                eos_token_id=self.end_ids,
                pad_token_id=self.pad_id,
                **options,
            )

    def save(self, folder: Path) -> None:
        """Write model, tokenizer and generation settings, as they stand, to a folder that transformers opens."""
        self.model.save_pretrained(folder)
        for file in folder.glob("*.safetensors"):
            file.chmod(0o644)  # safetensors makes it private
        self.tokenizer.save_pretrained(folder)

    def wrap(self, instruction: str) -> tuple[list[int], list[int]]:
        """Token ids before and after the speech, from the chat template.

        The instruction is the system message (or, where the template takes none, the beginning of the user's), the speech is
        the user's message. Without a template it is "instruction, speech, newline". The text is tokenized in two parts,
        exactly as it stands around the speech, in training as in inference. A token that opens every text is there once,
        whether the template writes it or the tokenizer adds it.

        Raises:
            WeightsError: the template accepts neither message, or leaves one out.
        """
        text = self._prompt(instruction)
        before, _, after = text.partition(SPEECH_MARK)
        opening = self._tokenize(before)
        if self._adds_bos and opening[:1] != [self.tokenizer.bos_token_id]:
            opening = [self.tokenizer.bos_token_id, *opening]
        return opening, self.encode(after)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text that goes on from another: special tokens in it recognised, none added, and no space either.

        SentencePiece vocabularies put a space before any text that they are given; so a text is tokenized behind another, whose
        tokens are taken off again.
        """
        for anchor in ANCHORS if self._adds_space else ():
            start, whole = self._tokenize(anchor), self._tokenize(anchor + text)
            if whole[: len(start)] == start:
                return whole[len(start) :]
        return self._tokenize(text)

    def spell(self, token: int) -> str:
        """The letters of a token, spaces and line breaks included, where letters are what it stands for."""
        name: str = self.tokenizer.convert_ids_to_tokens(token)
        return "\n" if name == BYTE_BREAK else name.translate(BLANKS)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True)
        return text.strip()

    @cached_property
    def _adds_space(self) -> bool:
        """Whether the tokenizer puts a space before a text."""
        return self.spell(self._tokenize("a")[0]).startswith(" ")

    @cached_property
    def _adds_bos(self) -> bool:
        """Whether the tokenizer, left to itself, opens a text with its begin token."""
        bos = self.tokenizer.bos_token_id
        return bos is not None and self.tokenizer("")["input_ids"][:1] == [bos]

    def _tokenize(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _prompt(self, instruction: str) -> str:
        """The first conversation that the template accepts, rendered up to where the answer begins."""
        system = [{"role": "system", "content": instruction}, {"role": "user", "content": SPEECH_MARK}]
        user = [{"role": "user", "content": f"{instruction}\n{SPEECH_MARK}"}]
        reason = "it leaves one out"
        for conversation in (system, user):
            try:
                text = self.render(conversation, add_generation_prompt=True)
            except TemplateError as error:
                reason = str(error)
                continue
            if SPEECH_MARK in text and instruction.strip() in text:
                return text
        found = f"a chat template that takes neither a system nor a user message ({reason})"
        raise WeightsError(self.source, found, "one that does", "give the LLM another `chat_template`")

    def _turn_end(self) -> int | None:
        """The special token that the template puts behind an answer, if it does."""
        conversation = [{"role": "user", "content": "a"}, {"role": "assistant", "content": SPEECH_MARK}]
        try:
            text = self.render(conversation, add_generation_prompt=False)
        except TemplateError:
            return None
        _, found, behind = text.rpartition(SPEECH_MARK)
        token = next(iter(self.encode(behind.lstrip())), None) if found else None
        added = self.tokenizer.added_tokens_decoder.get(token)
        return token if added is not None and added.special else None

    def render(self, conversation: list[dict[str, str]], add_generation_prompt: bool) -> str:
        """A conversation as text: thinking switched off, and the same on every day."""
        template = self.tokenizer.get_chat_template() if self.tokenizer.chat_template else TEMPLATES["plain"]
        text: str = self.tokenizer.apply_chat_template(
            conversation,
            chat_template=SAME_DAY + template,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            enable_thinking=False,
        )
        return text


def positions(mask: Tensor) -> Tensor:
    """Position ids (B, L) that count real positions only, so that padding on the left changes nothing."""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)
