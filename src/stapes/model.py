"""The whole flow in one file, differentiable: features -> encoder -> adapter -> splice into the prompt -> LLM.

    waveform --encoder--> frames --adapter--> embeddings --[CTC head: compress]--> speech
    [prompt before] [speech] [prompt after] [answer] --LLM--> loss on the answer, or the answer itself

Speech is spliced in by concatenation, row by row, so that the number of embeddings may depend on what was said. Batches are
padded on the left: the answers end together, only their positions are projected to the vocabulary, and training sees exactly
the prefix that generation starts from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stapes import lora, losses
from stapes.adapters import ADAPTERS, Adapter
from stapes.encoders import ENCODERS, Encoder
from stapes.llms import LLM, LLMS
from stapes.losses import READ_BY_LLM, SpeechAndText, SpeechLoss
from stapes.losses.ctc import CTCHead
from stapes.losses.distillation import has_transcript
from stapes.losses.next_token import next_token
from stapes.tasks import TASKS, Example, Task
from stapes.tasks.asr import ASR
from stapes.text.pieces import PieceVocabulary
from stapes.types import Audio, Padded, Utterance

BASES = ("encoder", "llm")
TABLES = ("ctc.table", "adapter.table")  # buffers that are rows of the LLM's embedding table


def written(text: str) -> str:
    """A text as the LLM is to write it: a space before every word, the first included."""
    return f" {text}" if text else ""


class Prompt(NamedTuple):
    """Token ids of what the LLM reads before the speech and after it."""

    before: list[int]
    after: list[int]


@dataclass(frozen=True)
class Targets:
    """What a batch is trained on, row by row.

    Attributes:
        answers: token ids of what the LLM is to write, as ``SpeechLLM.answer`` makes them.
        prompts: what it is asked; those of the first task if there are none.
        transcripts: token ids of what was said, end token included: what CTC and the losses of the adapter's side are about,
            whatever the task; the answers if there are none.
        utterances: what the answers belong to, for the losses of labels and transcripts.
        emphasis: how many tokens a token of each answer counts for in ``next_token``; one if there is none.
    """

    answers: Sequence[Sequence[int]]
    prompts: Sequence[Prompt] | None = None
    transcripts: Sequence[Sequence[int]] | None = None
    utterances: Sequence[Utterance] = ()
    emphasis: Sequence[float] | None = None

    @property
    def said(self) -> Sequence[Sequence[int]]:
        """The transcripts."""
        return self.answers if self.transcripts is None else self.transcripts

    def over_tokens(self, of_rows: Sequence[float], device: torch.device) -> Tensor:
        """(n,): what each row has, for every token of its answer."""
        lengths = torch.tensor([len(answer) for answer in self.answers], device=device)
        return torch.tensor(of_rows, device=device).repeat_interleave(lengths)


@dataclass(frozen=True)
class Speech:
    """What the adapter side makes of a batch.

    Attributes:
        embeddings: (B, K, D) or, compressed, (B, R, D): what the LLM reads.
        uncompressed: (B, K, D): what the adapter gave.
        log_probs: (B, K, 1 + P) of the CTC head; None without one.
    """

    embeddings: Padded
    uncompressed: Padded
    log_probs: Tensor | None


class SpeechLLM(nn.Module):
    """A speech encoder and an LLM, connected by an adapter.

    Args:
        encoder: waveforms -> frames.
        adapter: frames -> embeddings in the LLM's space.
        llm: embeddings -> text.
        tasks: what it does, the first unless asked otherwise; their instructions go into the prompts.
        pieces: the small vocabulary of the CTC head; None for a model without one.
        compress: let the CTC head compress the speech before the LLM reads it.

    Attributes:
        tasks: by their keys.
        prompts: of each task, one for each of its instructions.
        transcription: the task whose targets are the words that the CTC head is to hear.
        stored: what belongs to its checkpoint besides adapter, CTC head and LoRA; see ``store``.
    """

    def __init__(
        self,
        encoder: Encoder,
        adapter: Adapter,
        llm: LLM,
        tasks: Sequence[Task],
        pieces: PieceVocabulary | None = None,
        compress: bool = False,
    ) -> None:
        super().__init__()
        self.encoder, self.adapter, self.llm = encoder, adapter, llm
        self.pieces, self.compress = pieces, compress
        self.stored: set[str] = set()
        self.ctc = None if pieces is None else CTCHead(llm.embed(torch.tensor(pieces.ids)))
        self.set_tasks(tasks)
        self.losses, self.loss_options = nn.ModuleDict(), dict[str, Mapping[str, Any]]()

    @classmethod
    def build(
        cls,
        encoder: Mapping[str, Any],
        adapter: Mapping[str, Any],
        llm: Mapping[str, Any],
        tasks: Sequence[Mapping[str, Any]],
        ctc: Mapping[str, Any] | None = None,
        llm_lora: Mapping[str, Any] | None = None,
        encoder_lora: Mapping[str, Any] | None = None,
        loss_modules: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> SpeechLLM:
        """Assemble a model from the sections of a recipe; sizes are derived here and nowhere else.

        Nothing is trainable afterwards: a training stage says what is (``lora.set_trainable``).

        Raises:
            RecipeError: an unknown component or option.
            WeightsError: pretrained weights cannot be had.
        """
        built_encoder: Encoder = ENCODERS.build(encoder)
        built_llm: LLM = LLMS.build(llm)
        built_adapter = ADAPTERS.build(
            adapter,
            encoder_dim=built_encoder.dim,
            llm_dim=built_llm.dim,
            seconds_per_frame=built_encoder.seconds_per_frame,
            vocab_size=built_llm.vocab_size,
            blank_id=built_llm.pad_id,
            llm_table=built_llm.table,
        )
        pieces = PieceVocabulary(built_llm.tokenizer, ctc["merges"], built_llm.end_ids) if ctc else None
        compress = bool(ctc and ctc["compress"])
        model = cls(built_encoder, built_adapter, built_llm, [TASKS.build(task) for task in tasks], pieces, compress)
        if llm_lora:
            lora.add(built_llm.model, **llm_lora)
        if encoder_lora:
            lora.add(built_encoder, **encoder_lora, side="encoder")
        model.set_losses(loss_modules or {})
        lora.set_trainable(model, ())
        return model.eval()

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        """Have exactly these tasks, and their prompts."""
        self.tasks = {task.key: task for task in tasks}
        self.transcription: Task = self.tasks.get(ASR.name) or ASR()
        self.prompts = {task.key: [Prompt(*self.llm.wrap(instruction)) for instruction in task.instructions] for task in tasks}

    @property
    def task(self) -> Task:
        """The first task."""
        return next(iter(self.tasks.values()))

    def set_losses(self, options: Mapping[str, Mapping[str, Any]]) -> None:
        """Have the modules of exactly these losses (name -> options); one that is there and set up alike is kept as it is."""
        fresh = {name: chosen for name, chosen in options.items() if self.loss_options.get(name) != chosen}
        built = losses.build(fresh, self.llm.dim)
        modules = {name: built[name] if name in built else self.losses[name] for name in options}
        self.losses = nn.ModuleDict(modules).to(self.device).requires_grad_(False).train(self.training)
        self.loss_options = dict(options)

    def store(self, parts: Iterable[str]) -> None:
        """Make more than the small parts belong to the model's checkpoint; called before any of it is trained.

        Tables that the CTC head or an adapter has from the LLM stay what they were when the LLM began to be trained: the
        alignment is to them. So they are stored with it, and no longer share its memory.

        Args:
            parts: "encoder" or "llm" for a base whose own weights are trained, "tables" for the tables alone.
        """
        self.stored |= set(parts)
        if "llm" in self.stored:
            self.stored.add("tables")
        if "encoder" in self.stored and not self.encoder.base_digest:
            self.encoder.base_digest = lora.base_digest(self.encoder)
        for table in self.tables().values():
            table.data = table.data.clone()

    def tables(self) -> dict[str, Tensor]:
        """The tables that belong to the checkpoint, by name."""
        buffers = dict(self.named_buffers()) if "tables" in self.stored else {}
        return {name: buffers[name] for name in TABLES if name in buffers}

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.llm.device

    def speech(self, frames: Padded) -> Speech:
        """Frames (B, T, E) -> what the LLM reads."""
        return self._listen(self.adapter(frames))

    def _listen(self, embeddings: Padded) -> Speech:
        if self.ctc is None:
            return Speech(embeddings, embeddings, None)
        # In float32 also under autocast: logits are large, and which of two labels leads decides what is kept.
        with torch.autocast(embeddings.values.device.type, enabled=False):
            embeddings = embeddings.to(dtype=torch.float32)
            log_probs = self.ctc.log_probs(embeddings)
            return Speech(self.ctc.compress(embeddings, log_probs) if self.compress else embeddings, embeddings, log_probs)

    def heard(self, speech: Speech) -> list[str | None]:
        """What the CTC head alone hears, greedily; None for each utterance without one."""
        if self.ctc is None or self.pieces is None or speech.log_probs is None:
            return [None] * len(speech.uncompressed.lengths)
        best = self.ctc.best_pieces(speech.log_probs, speech.uncompressed.lengths)
        return [self.pieces.decode(pieces) for pieces in best]

    def splice(
        self,
        speech: Padded,
        answers: Sequence[Sequence[int]] | None = None,
        prompts: Sequence[Prompt] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Put speech, prompts and (in training) answers in a row.

        Args:
            speech: (B, K, D).
            answers: token ids of each answer; its last token is predicted and not read.
            prompts: of each row; that of the first task for all of them if None.

        Returns:
            Embeddings (B, L, D), padded on the left, and their mask (B, L).
        """
        sounds = speech.rows()
        prompts = prompts or [self.prompts[self.task.key][0]] * len(sounds)
        read = [[] for _ in sounds] if answers is None else [answer[:-1] for answer in answers]
        rows = [
            torch.cat([self._embed(prompt.before), sound.to(self.llm.dtype), self._embed([*prompt.after, *answer])])
            for sound, prompt, answer in zip(sounds, prompts, read, strict=True)
        ]
        spliced = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_side="left")
        lengths = torch.tensor([len(row) for row in rows], device=spliced.device)
        mask = torch.arange(spliced.shape[1], device=spliced.device) >= spliced.shape[1] - lengths[:, None]
        return spliced, mask

    def _embed(self, ids: Sequence[int]) -> Tensor:
        return self.llm.embed(torch.tensor(ids, dtype=torch.long, device=self.device))

    def logits(
        self, speech: Padded, answers: Sequence[Sequence[int]], prompts: Sequence[Prompt] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits (n, V) at the answers' positions only and the n target tokens (n,), utterance by utterance."""
        embeddings, mask = self.splice(speech, answers, prompts)
        lengths = torch.tensor([len(answer) for answer in answers], device=embeddings.device)
        most = int(lengths.max())
        wanted = torch.arange(most, device=embeddings.device) >= most - lengths[:, None]
        targets = torch.tensor([token for answer in answers for token in answer], device=embeddings.device)
        return self.llm(embeddings, mask, wanted), targets

    def forward(self, frames: Padded, targets: Targets, weights: Mapping[str, float]) -> dict[str, Tensor]:
        """Losses of a batch, each a sum over its targets (``target_counts``). The LLM is run where one of them needs it.

        Args:
            frames: (B, T, E) from the encoder or its cache.
            targets: of each row.
            weights: names of the losses wanted ("next_token", "ctc", the adapter's own, those of ``losses``).
        """
        answers, said = targets.answers, targets.said
        embeddings, found = self.adapter.with_losses(frames, said, weights.keys())
        speech = self._listen(embeddings)
        if "ctc" in weights and self.ctc is not None and self.pieces is not None and speech.log_probs is not None:
            pieces = [self.pieces.of_tokens(transcript) for transcript in said]
            found["ctc"] = self.ctc.loss(speech.log_probs, speech.uncompressed.lengths, pieces)
        of_speech = {name: loss for name, loss in self.losses.items() if name in weights and isinstance(loss, SpeechLoss)}
        if of_speech:
            both = SpeechAndText(speech.uncompressed, self.read(said), targets.utterances)
            found |= {name: loss(both) for name, loss in of_speech.items()}
        if READ_BY_LLM & weights.keys():
            logits, wanted = self.logits(speech.embeddings, answers, targets.prompts)
            if "next_token" in weights:
                emphasis = None if targets.emphasis is None else targets.over_tokens(targets.emphasis, logits.device)
                found["next_token"] = next_token(logits, wanted, emphasis)
            if "distillation" in weights:
                taught = targets.over_tokens([has_transcript(row) for row in targets.utterances], logits.device)
                found["distillation"] = self.losses["distillation"](logits[taught], self.taught(targets))
        return found

    def read(self, answers: Sequence[Sequence[int]]) -> Padded:
        """The LLM's own embeddings of some answers, without their end tokens: (B, U, D), no gradient."""
        with torch.no_grad():
            return Padded.from_rows([self._embed(answer[:-1]) for answer in answers])

    @torch.no_grad()
    def taught(self, targets: Targets) -> Tensor:
        """Logits (n, V) at the answers' positions of the LLM as it was, which reads each transcript in the speech's place.

        LoRA and dropout are off. Utterances without a transcript are left out.
        """
        kept = [place for place, row in enumerate(targets.utterances) if has_transcript(row)]
        if not kept:
            return torch.empty(0, self.llm.vocab_size, device=self.device, dtype=self.llm.dtype)
        texts = (self.transcription.target(targets.utterances[place]) for place in kept)
        read = Padded.from_rows([self._embed(self.llm.encode(text)) for text in texts])
        prompts = None if targets.prompts is None else [targets.prompts[place] for place in kept]
        was_training = self.llm.training
        with lora.disabled(self.llm.eval()):
            logits, _ = self.logits(read, [targets.answers[place] for place in kept], prompts)
        self.llm.train(was_training)
        return logits

    def target_counts(self, targets: Targets) -> dict[str, float]:
        """How many targets each loss has: tokens by their emphasis, pieces (ctc), utterances (quantity), what a loss says."""
        said, emphasis = targets.said, targets.emphasis or [1.0] * len(targets.answers)
        answered = sum(len(answer) * counted for answer, counted in zip(targets.answers, emphasis, strict=True))
        pieces = 0 if self.pieces is None else sum(len(self.pieces.of_tokens(transcript)) for transcript in said)
        tokens = sum(len(transcript) - 1 for transcript in said)
        counts: dict[str, float] = {"next_token": answered, "ctc": pieces, "token_ctc": tokens, "quantity": len(said)}
        for name, loss in self.losses.items():
            texts = said if isinstance(loss, SpeechLoss) else targets.answers
            counts[name] = loss.target_count(texts, targets.utterances)  # type: ignore[operator]
        return counts

    def targets(self, examples: Sequence[Example]) -> Targets:
        """What some examples are trained on. What the CTC head is to hear are the words, whatever the task."""
        tasks = [self.tasks[example.task] if example.task else self.task for example in examples]
        rows = [example.utterance for example in examples]
        answers = [self.answer(task.target(row)) for task, row in zip(tasks, rows, strict=True)]
        return Targets(
            answers=answers,
            prompts=[self.prompts[task.key][example.template] for task, example in zip(tasks, examples, strict=True)],
            transcripts=[
                answer if task is self.transcription else self.answer(self.transcription.target(row))
                for task, row, answer in zip(tasks, rows, answers, strict=True)
            ],
            utterances=rows,
            emphasis=[example.emphasis for example in examples],
        )

    def answer(self, text: str) -> list[int]:
        """Token ids of a target text: a space before every word, the first included, and the end token."""
        return [*self.llm.encode(written(text)), self.llm.end_id]

    def encode(self, audio: Audio) -> Padded:
        """Waveforms -> frames by the encoder, in float32 whatever it computes in, as the adapter expects them."""
        return self.encoder(audio).to(dtype=torch.float32)
