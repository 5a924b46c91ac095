"""What ``LLM`` promises, tried: prompt, end of an answer, logits, and room for a long utterance."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from stapes.doctor.base import Finding, Pair, difference, size
from stapes.training.footprint import PROMPT_TOKENS
from stapes.training.sizes import expected_embeddings

ANSWERS = ("and what was said is written here", "a short one", "")
ANSWER_MARK = "STAPESANSWERGOESHERE"
SAME = 1e-3
ANSWER_TOKENS = 250  # of 30 s: 8 a second, as decoding caps it, and a few


@torch.inference_mode()
def sizes(pair: Pair) -> Iterator[Finding]:
    """Width, vocabulary, parameters, and whether 30 s of speech fit into its context."""
    llm = pair.model.llm
    parameters = sum(parameter.numel() for parameter in llm.parameters())
    told = f"{llm.source}: {llm.dim} wide, vocabulary {llm.vocab_size:,}, {size(parameters)} parameters"
    window = min(30.0, pair.model.encoder.max_seconds)
    frames = round(window / pair.model.encoder.seconds_per_frame)
    around = PROMPT_TOKENS + ANSWER_TOKENS
    needed = round(expected_embeddings(pair.model.adapter, frames, window)) + around
    most = int(pair.model.adapter.output_lengths(torch.tensor([frames]))[0]) + around
    room = getattr(llm.model.config.get_text_config(), "max_position_embeddings", None)
    told_of = f"{told}; {window:g} s of speech, prompt and answer are"
    if room is not None and needed > room:
        yield Finding("llm", "wrong", f"{told_of} {needed} positions, it has {room}")
    elif room is not None and most > room:
        told_of += f" about {needed} positions with a trained adapter, and {most} at most; it has {room}"
        yield Finding("llm", "warning", told_of)
    else:
        yield Finding("llm", "ok", told)


def prompt(pair: Pair) -> Iterator[Finding]:
    """What stands around the speech."""
    llm = pair.model.llm
    before, after = (llm.tokenizer.decode(ids) for ids in pair.model.prompts[pair.model.task.key][0])
    told = f"{before!r} speech {after!r}" + ("" if llm.tokenizer.chat_template else " (it has no chat template)")
    is_lost = pair.model.task.instruction not in before + after
    yield Finding("prompt", "warning" if is_lost else "ok", told + "; the instruction is not in it" * is_lost)


def end(pair: Pair) -> Iterator[Finding]:
    """The token that ends an answer in training is the one that the chat template writes after an answer."""
    llm = pair.model.llm
    name = llm.tokenizer.convert_ids_to_tokens(llm.end_id)
    told = f"{name!r} ({llm.end_id})"
    if not llm.tokenizer.chat_template:
        yield Finding("end of an answer", "ok", f"{told}, the tokenizer's own")
        return
    conversation = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": ANSWER_MARK}]
    text: str = llm.tokenizer.apply_chat_template(conversation, tokenize=False)
    behind = text.partition(ANSWER_MARK)[2].strip()
    written = llm.encode(behind)[:1]
    if not written:
        yield Finding("end of an answer", "ok", f"{told}; the chat template writes nothing after an answer")
    elif written[0] in llm.end_ids:
        yield Finding("end of an answer", "ok", f"{told}, as in the chat template")
    else:
        other = llm.tokenizer.convert_ids_to_tokens(written[0])
        yield Finding("end of an answer", "warning", f"{told}, but the chat template writes {other!r} after an answer")


@torch.inference_mode()
def logits(pair: Pair) -> Iterator[Finding]:
    """The logits that the loss is computed on, against those that the model gives when it reads each utterance alone."""
    model = pair.model
    seconds = [min(each, model.encoder.max_seconds) for each in (1.0, 3.1, 0.5)]
    frames = model.encode(pair.audio(*(pair.cut(each, start=each) for each in seconds)))
    speech = model.speech(frames).embeddings
    answers = [model.answer(text) for text in ANSWERS]
    found, targets = model.logits(speech, answers)
    wanted = []
    for row, answer in zip(speech.rows(), answers, strict=True):
        embeddings, _ = model.splice(type(speech).from_rows([row]), [answer])
        wanted.append(model.llm.model(inputs_embeds=embeddings, use_cache=False).logits[0, -len(answer) :])
    worst = difference(found, torch.cat(wanted))
    told = f"{len(targets)} positions of a batch differ by {worst:.1e} from the model's own logits"
    told += "" if worst <= SAME else f", at most {SAME:g} is rounding"
    yield Finding("logits", "ok" if worst <= SAME else "wrong", told)
