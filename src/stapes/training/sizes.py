"""What a recipe would build and need, found without loading any weights.

Sizes come from the configuration files of encoder and LLM; the modules are made on PyTorch's meta device, which has shapes and
no memory. Counts of parameters are exact. Of the memory of a training step, weights, gradients and optimiser are exact and
activations an estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stapes import hub, lora, losses
from stapes.adapters import ADAPTERS
from stapes.encoders import ENCODERS
from stapes.errors import WeightsError
from stapes.hub.sources import with_kind
from stapes.llms import LLMS
from stapes.losses.ctc import CTCHead
from stapes.recipe import Recipe, Stage
from stapes.registry import Table

FLOAT_BYTES = 4  # weights, gradients and optimiser are float32 whatever the arithmetic is
TOKENS_PER_SECOND = 4.0  # of speech, in the LLM's vocabulary: English read or spoken freely has three to four
PIECES_PER_SECOND = 6.0  # what a CTC head leaves of the embeddings
SECONDS_PER_UTTERANCE = 10.0
PROMPT_TOKENS = 30


@dataclass(frozen=True)
class Outline:
    """A recipe's model on the meta device.

    Attributes:
        model: its parts under their names in ``SpeechLLM``: encoder, adapter, ctc, llm, losses; without those ``missing``.
        missing: part -> why its size is not known.
        frames_per_second: what the encoder gives; None, as the next, where a part is missing.
        embeddings_per_second: what the adapter gives.
    """

    model: nn.ModuleDict
    missing: dict[str, str]
    frames_per_second: float | None
    embeddings_per_second: float | None


@dataclass(frozen=True)
class Memory:
    """Bytes that a training step takes.

    Attributes:
        weights: of all parts, and the moving average of the trained ones where one is kept.
        training: gradients and Adam's two moments of what is trained.
        activations: about, for one micro-batch.
    """

    weights: int
    training: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.training + self.activations


def outline(recipe: Recipe) -> Outline:
    """Build a recipe's model without its weights.

    Args:
        recipe: resolved (``checkpoint.inherit``).

    Raises:
        RecipeError: components or LoRA targets that do not fit.
    """
    parts: dict[str, nn.Module] = {}
    missing: dict[str, str] = {}
    for part, table, build in (("encoder", ENCODERS, _encoder), ("llm", LLMS, _llm)):
        config = getattr(recipe, part) or {}
        if "weights" not in table.options(config["name"]):
            parts[part] = table.build(config)
            continue
        sources = _sources(table, config)
        folder = _config_folder(sources, getattr(table[config["name"]], "config_files", ("config.json",)))
        if folder is None:
            missing[part] = f"not fetched; run `stapes fetch {sources[0]}`"
        else:
            parts[part] = build(folder, config)
    if missing:
        missing["adapter"] = f"its size follows from the {' and the '.join(missing)}"
        return Outline(nn.ModuleDict(parts), missing, None, None)
    encoder, llm = parts["encoder"], parts["llm"]
    seconds_per_frame = float(encoder.seconds_per_frame)  # type: ignore[arg-type]
    with torch.device("meta"):
        adapter = ADAPTERS.build(
            recipe.adapter or {},
            encoder_dim=encoder.dim,
            llm_dim=_width(llm),
            seconds_per_frame=seconds_per_frame,
            vocab_size=_config(llm).vocab_size,
            blank_id=0,
            llm_table=torch.empty(_config(llm).vocab_size, _width(llm)),
        )
        head = CTCHead(torch.empty(1, _width(llm))) if recipe.ctc else None
        modules = nn.ModuleDict(losses.build(recipe.loss_modules, _width(llm)))
    if recipe.lora is not None:
        lora.add(llm, **recipe.lora.model_dump())
    if recipe.encoder_lora is not None:
        lora.add(encoder, **recipe.encoder_lora.model_dump(), side="encoder")
    frames = round(SECONDS_PER_UTTERANCE / seconds_per_frame)
    rate = float(adapter.output_lengths(torch.tensor([frames]))) / SECONDS_PER_UTTERANCE
    parts = {"encoder": encoder, "adapter": adapter, **({"ctc": head} if head is not None else {}), "llm": llm}
    parts["losses"] = modules
    return Outline(nn.ModuleDict(parts), {}, 1 / seconds_per_frame, rate)


def counts(model: nn.Module, stage: Stage | None = None) -> dict[str, tuple[int, int]]:
    """Part -> (trainable in ``stage``, all) numbers of parameters, as ``lora.parameter_counts`` names the parts."""
    lora.set_trainable(model, stage.trainable if stage is not None else ())
    return lora.parameter_counts(model)


def memory(found: Outline, recipe: Recipe, stage: Stage) -> Memory:
    """What a training step of a stage takes."""
    sizes = counts(found.model, stage)
    trained = sum(trainable for trainable, _ in sizes.values())
    kept = sum(total for _, total in sizes.values()) + (trained if stage.average_decay else 0)
    return Memory(FLOAT_BYTES * kept, 3 * FLOAT_BYTES * trained, _activations(found, recipe, stage))


def _activations(found: Outline, recipe: Recipe, stage: Stage) -> int:
    """Bytes that the backward pass of one micro-batch keeps, about.

    A layer of the LLM of width D with an inner width I keeps some 10 D + 4 I numbers a position (norms, attention, gate), the
    vocabulary's logits exist three times (logits, log-probabilities, gradient), each linear layer of an adapter keeps three
    times its output, one of a frozen encoder, LoRA's included, its output once, and of a trained one 1.4 times.
    With the parts of ``stapes-base`` this is within a fifth of what autograd saves for adapter and LLM. An LLM that is trained
    keeps the inputs of its linear layers too; with gradient checkpointing, the inputs of its layers and the inside of one.
    """
    seconds = stage.batch_seconds
    embeddings = seconds * (found.embeddings_per_second or 0.0)
    numbers = 3 * embeddings * _outputs(found.model["adapter"])
    frames = seconds * (found.frames_per_second or 0.0)
    if {"encoder", "encoder.lora"} & set(stage.trainable):
        numbers += (1.4 if "encoder" in stage.trainable else 1.0) * frames * _outputs(found.model["encoder"])
    if "encoder.layers" in stage.trainable:
        encoder: Any = found.model["encoder"]
        numbers += 2 * frames * len(encoder.layer_weights) * encoder.dim  # each hidden state, and its share of the mixture
    if "classifier" in stage.losses:  # each convolution keeps its input and what ReLU leaves, at a quarter of the positions
        widths = recipe.losses.classifier.channels
        numbers += embeddings * _width(found.model["llm"]) * (2 + sum(2 * width / 4**n for n, width in enumerate(widths, 1)))
    if losses.READ_BY_LLM & stage.losses.keys():
        config: Any = _config(found.model["llm"])
        read = seconds * PIECES_PER_SECOND if recipe.ctc and recipe.ctc.compress else embeddings
        answers = seconds * TOKENS_PER_SECOND
        positions = read + answers + PROMPT_TOKENS * seconds / SECONDS_PER_UTTERANCE
        wide = getattr(config, "intermediate_size", 4 * config.hidden_size)
        layer = 10 * config.hidden_size + 4 * wide
        if "llm" in stage.trainable:
            layer += 2 * config.hidden_size + wide
        kept = config.num_hidden_layers * layer
        if stage.gradient_checkpointing:
            kept = config.num_hidden_layers * config.hidden_size + layer
        logits = 3 * bool("next_token" in stage.losses) + 4 * bool("distillation" in stage.losses)
        numbers += positions * kept + logits * answers * config.vocab_size
    return round(FLOAT_BYTES * numbers)


def _outputs(module: nn.Module) -> int:
    """How many numbers the linear layers and convolutions of a module give for one position."""
    layers = [part for part in module.modules() if not isinstance(part, nn.Embedding)]
    return sum(own.shape[0] for part in layers for own in part.parameters(recurse=False) if own.dim() > 1)


def _sources(table: Table, config: dict[str, Any]) -> list[str]:
    """The sources of a component's weights: the recipe's, or its constructor's own."""
    weights = config.get("weights", table.options(config["name"])["weights"].default)
    return [weights] if isinstance(weights, str) else list(weights)


def _config_folder(sources: list[str], files: Sequence[str]) -> Path | None:
    """Where the configuration of the first source that has one lies; a hub is asked for these ``files`` only."""
    fetched = {f"pack:{row.name}": row.folder for row in hub.available()}
    for name in sources:
        source = with_kind(name)
        kind, _, rest = source.partition(":")
        if kind == "hf":
            try:
                return hub.snapshot(rest, files)
            except WeightsError:
                continue  # no network is no mistake in a recipe; what is not known is reported
        folder = fetched.get(source) if kind == "pack" else Path(rest).expanduser()
        if folder is not None and all((folder / file).is_file() for file in files):
            return folder
    return None


def _encoder(folder: Path, config: dict[str, Any]) -> nn.Module:
    found: Any = ENCODERS[config["name"]]
    made: nn.Module = found.outline(folder, **{key: config[key] for key in config.keys() - {"name", "weights"}})
    return made


def _llm(folder: Path, config: dict[str, Any]) -> nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))


def _config(module: Any) -> Any:
    """The transformers configuration of a bare model, or of the one in a component of ours."""
    return module.config if hasattr(module, "config") else module.model.config


def _width(module: Any) -> int:
    return int(module.dim if hasattr(module, "dim") else module.config.hidden_size)
