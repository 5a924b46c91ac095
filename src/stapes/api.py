"""What ``stapes.load`` returns: a trained model with its decoding options, ready to be given sound."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from huggingface_hub import ModelCard, ModelHubMixin
from pydantic import ValidationError

from stapes import audio, checkpoint, hub, lora
from stapes.audio.read import Source
from stapes.data.manifest import read_manifest
from stapes.decoding.longform import BATCH_SECONDS, Transcript, recognise
from stapes.device import place, resolve_device, resolve_dtype
from stapes.errors import AudioError, DataError, RecipeError
from stapes.evaluation.evaluate import Evaluation, evaluate, provenance
from stapes.model import SpeechLLM
from stapes.recipe import Decoding, Recipe
from stapes.registry import nearest
from stapes.tasks import TASKS, key_of
from stapes.tasks.style import check_style
from stapes.types import Utterance

_BESIDE = ("README.md", "metrics.jsonl")  # what travels with a checkpoint and loading does not need
_CARD_TEMPLATE = """---
{{ card_data }}
---

# A speech LLM trained with Stapes

{{ parts }}

```
pip install stapes
stapes transcribe talk.wav --model OWNER/NAME
```

```python
import stapes
stapes.load("OWNER/NAME").transcribe("talk.wav").text
```
"""


def load(
    name: str | Path,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype | None = None,
    merge: bool = True,
    **decoding: Any,
) -> Stapes:
    """Load a trained model.

    Args:
        name: a shipped name ("stapes-base"), a run folder or a hub id ("owner/name", "owner/name@revision").
        device: "auto" (the first that is there of cuda, mps and cpu), "cpu", "cuda", "cuda:1", "mps".
        dtype: of encoder and LLM: "float32", "bfloat16" or "float16"; by default bfloat16 on
            cuda (float16 where it lacks that), float32 elsewhere.
        merge: add LoRA to the weights it belongs to, for speed; otherwise ``lora.disabled`` gives the base models back exactly.
        **decoding: options that replace the checkpoint's: ``beams``, ``ctc_weight``, ``markup_bonus``, ``constrained``,
            ``no_repeat_ngram``, ``length_penalty``, ``tokens_per_second``, ``tokens_spare`` (see ``recipe.Decoding``).

    Raises:
        CheckpointError: no such model, or one that does not fit the weights at hand.
        WeightsError: the encoder's or the LLM's weights cannot be had.
        RecipeError: an unknown device, precision or decoding option.
    """
    return Stapes.from_pretrained(name, device=device, dtype=dtype, merge=merge, **decoding)


class Stapes(
    ModelHubMixin,
    library_name="stapes",
    pipeline_tag="automatic-speech-recognition",
    tags=["speech-llm"],
    model_card_template=_CARD_TEMPLATE,
):
    """A trained model; ``stapes.load`` makes one.

    Args:
        module: the ``torch.nn.Module``: encoder, adapter, LLM; in evaluation mode.
        recipe: that trained it; its ``decoding`` is in force.
        name: what it was loaded as, for messages and the provenance of scores.
        folder: where its checkpoint lies.

    Attributes:
        digest: of the trained tensors as loaded, whatever precision they are kept in.
    """

    def __init__(self, module: SpeechLLM, recipe: Recipe, name: str, folder: Path) -> None:
        self._hub_mixin_config = None  # stapes.json says it all
        self.module, self.recipe, self.name, self.folder = module, recipe, name, folder
        self.digest = hub.digest(checkpoint.trained_state(module))

    # -- using it ------------------------------------------------------------------------------------------------------

    @property
    def tasks(self) -> list[str]:
        """What it was trained for, by key ("asr", "asr.written", "ner"); the first is what it does unless asked otherwise."""
        return list(self.module.tasks)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.module.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of its encoder and LLM."""
        return next(self.module.llm.parameters()).dtype

    @overload
    def transcribe(self, source: list[Source] | tuple[Source, ...], **options: Any) -> list[Transcript]: ...

    @overload
    def transcribe(self, source: Source, **options: Any) -> Transcript: ...

    def transcribe(
        self,
        source: Source | list[Source] | tuple[Source, ...],
        *,
        task: str | None = None,
        style: str = "spoken",
        to: str | None = None,
        sample_rate: int | None = None,
        batch_seconds: float = BATCH_SECONDS,
        on_progress: Callable[[float], None] | None = None,
        **decoding: Any,
    ) -> Transcript | list[Transcript]:
        """Sound of any length -> text, and what else a task finds in it.

        What exceeds the encoder's window is cut at pauses and joined again. Many sounds at once are faster than one by one.

        Args:
            source: a path, the bytes of a sound file, a binary file, or samples (array or tensor); or a list of such.
            task: "asr", "ner", "sentiment", "translation", "asr+ner", ...; the model's first if None.
            style: "spoken" (the words) or "written" (as a person would write them).
            to: the language to translate into ("fr"); the task is then "translation".
            sample_rate: of samples, in Hz; 16000 if not given. Files carry their own.
            batch_seconds: sound in one batch, padding included.
            on_progress: told the seconds of sound that each batch has finished.
            **decoding: as in ``load``, for this call.

        Returns:
            A ``Transcript`` (``.text``, ``.segments``, ``.entities``, ``.sentiment``); for a list of sounds, a list of them.

        Raises:
            AudioError: a sound cannot be read.
            RecipeError: an option is wrong, or the model was not trained for the task.
        """
        options, key = self._options(decoding), self.find_task(task, style, to)
        if isinstance(source, (list, tuple)):
            sounds = [_samples(sound, sample_rate) for sound in source]
            return recognise(self.module, sounds, options, batch_seconds, on_progress, key)
        return recognise(self.module, [_samples(source, sample_rate)], options, batch_seconds, on_progress, key)[0]

    def run(self, source: Any, task: str | None = None, **options: Any) -> Any:
        """Do a task by its name: ``model.run("talk.wav", task="ner").entities``.

        Args:
            source: as in ``transcribe``.
            task: as there.
            **options: as there.

        Returns:
            What ``transcribe`` returns.

        Raises:
            RecipeError: an unknown task, or one that the model was not trained for.
        """
        return self.transcribe(source, task=task, **options)

    def find_task(self, task: str | None = None, style: str = "spoken", to: str | None = None) -> str:
        """The key of the task that is asked for; the model's first if nothing is.

        Raises:
            RecipeError: an unknown task or style, or one that the model was not trained for.
        """
        name = task or ("translation" if to is not None else self.module.task.name)
        if name not in TASKS:
            raise RecipeError("task", f"unknown task '{name}'", fix=nearest(name, TASKS))
        check_style(name, style)
        key = self.module.task.key if task is None and to is None and style == "spoken" else key_of(name, style, to)
        if key not in self.module.tasks:
            raise RecipeError("task", f"'{key}'", f"what {self.name} was trained for: {', '.join(self.tasks)}")
        return key

    def evaluate(
        self,
        manifest: str | Path | list[Utterance],
        *,
        task: str | None = None,
        style: str = "spoken",
        to: str | None = None,
        limit: int | None = None,
        normaliser: str | None = None,
        comet: str | None = None,
        batch_seconds: float = BATCH_SECONDS,
        on_progress: Callable[[float], None] | None = None,
        on_unreadable: Callable[[AudioError], None] | None = None,
        **decoding: Any,
    ) -> Evaluation:
        """Score the model on a manifest; see ``stapes.evaluation.evaluate.evaluate``.

        Args:
            manifest: a JSONL file, or what ``read_manifest`` made of one.
            task, style, to: as in ``transcribe``.
            limit: take only the first so many utterances.
            normaliser: of the scores; by default that of the model's task.
            comet: a COMET model by which translations are scored, too (needs ``unbabel-comet``; untested).
            batch_seconds, on_progress, on_unreadable: as there.
            **decoding: as in ``load``, for this call.

        Raises:
            DataError: file and line of what is wrong with the manifest.
            RecipeError: an option is wrong.
            MissingDependency: COMET is asked for, and not installed.
        """
        if limit is not None and limit < 1:
            raise DataError("limit", f"{limit}", "at least 1 utterance")
        options = self._options(decoding)
        utterances = manifest if isinstance(manifest, list) else read_manifest(manifest)
        return evaluate(
            self.module,
            utterances[:limit],
            options,
            task=self.find_task(task, style, to),
            normaliser=normaliser,
            comet=comet,
            batch_seconds=batch_seconds,
            name=self._signed,
            on_progress=on_progress,
            on_unreadable=on_unreadable,
        )

    def provenance(self, task: str | None = None, **decoding: Any) -> str:
        """That of the scores that ``evaluate`` would give; nothing is computed.

        Args:
            task: the key of what is asked ("asr", "asr.written"); the model's first if None.
            **decoding: as in ``load``, for this call.

        Raises:
            RecipeError: an option is wrong, or the model was not trained for the task.
        """
        return provenance(self.module, self._options(decoding), task=task or "", name=self._signed)

    @property
    def _signed(self) -> str:
        """How the provenance of scores names it."""
        return f"{self.name}@{self.digest[:12]}"

    def _options(self, changes: Mapping[str, Any]) -> Decoding:
        return decoding_options(self.recipe.decoding, changes, has_ctc=self.module.ctc is not None)

    # -- keeping it ----------------------------------------------------------------------------------------------------

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write a run folder (``checkpoint.py``), its tensors in float16 where that loses nothing.

        Base weights that were trained are those of the folder it was loaded from: here they have LoRA in them, and are rounded.
        """
        state = checkpoint.trained_state(self.module)
        if self.module.stored:
            state = checkpoint.read_trained(self.folder)
        exact = all(torch.equal(tensor.half().float(), tensor.float()) for tensor in state.values())
        checkpoint.save(self.module, save_directory, self.recipe, state, torch.float16 if exact else torch.float32)
        if self.folder.resolve() != save_directory.resolve():
            for file in _BESIDE:
                if (self.folder / file).is_file():
                    shutil.copyfile(self.folder / file, save_directory / file)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **options: Any,
    ) -> Stapes:
        """Load a model as ``stapes.load`` does, with the usual options of a model hub; ``options`` are those of ``load``."""
        return cls._from_pretrained(
            model_id=str(pretrained_model_name_or_path),
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            **options,
        )

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype | None = None,
        merge: bool = True,
        **decoding: Any,
    ) -> Stapes:
        """Find the folder, load it strictly, place it."""
        where = resolve_device(device)
        precision = resolve_dtype(dtype, where)
        download = {"cache_dir": cache_dir, "force_download": force_download, "local_files_only": local_files_only}
        download = {option: value for option, value in (download | {"token": token}).items() if value}
        if download and not Path(model_id).is_dir() and not (checkpoint.MODELS / model_id).is_dir():
            folder = hub.snapshot(f"{model_id}@{revision or ''}", checkpoint.FILES, **download)
        else:
            folder = checkpoint.find(f"{model_id}@{revision}" if revision else model_id)
        recipe = Recipe.model_validate(checkpoint.read_description(folder)["recipe"])
        chosen = decoding_options(recipe.decoding, decoding, has_ctc=recipe.ctc is not None)
        module, _, _ = checkpoint.load(folder)
        name = Path(model_id).resolve().name if Path(model_id).is_dir() else model_id
        model = cls(module, recipe.model_copy(update={"decoding": chosen}), name, folder)
        if merge:
            lora.merge(module)
        place(module, where, precision)
        return model

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """A card that names the parts, for a model that has none of its own."""
        parts = "\n".join(f"- {part}: `{getattr(self.recipe, part)}`" for part in ("encoder", "adapter", "llm", "tasks"))
        return super().generate_model_card(*args, parts=parts, **kwargs)


def decoding_options(own: Decoding, changes: Mapping[str, Any], has_ctc: bool) -> Decoding:
    """A checkpoint's decoding options with changes; a change to None is none.

    Raises:
        RecipeError: an unknown option, a value out of range, or a CTC weight for a model without a CTC head.
    """
    changes = {key: value for key, value in changes.items() if value is not None}
    try:
        options = Decoding.model_validate(own.model_dump() | changes)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            raise RecipeError(key, "unknown option", fix=nearest(key, Decoding.model_fields)) from None
        raise RecipeError(f"decoding.{key}", f"{first['input']!r}", first["msg"]) from None
    if options.ctc_weight > 0 and not has_ctc:
        raise RecipeError("decoding.ctc_weight", f"{options.ctc_weight}", "0 for a model without a CTC head")
    return options


def _samples(sound: Source, sample_rate: int | None) -> np.ndarray:
    """(N,) at 16 kHz; the rate given is that of arrays, whatever else is in the list."""
    return audio.read(sound, sample_rate=sample_rate if isinstance(sound, (np.ndarray, torch.Tensor)) else None)
