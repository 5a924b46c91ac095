"""What a recipe would build, found without loading any weights.

Sizes come from the configuration files of encoder and LLM where they are on this machine, else from the table of well-known
models (``hub/sizes.toml``), else from a hub. The modules are made on PyTorch's meta device, which has shapes and no memory.
Counts of parameters are exact. What they need in memory is in ``footprint``.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stapes import hub, lora, losses
from stapes.adapters import ADAPTERS
from stapes.encoders import ENCODERS
from stapes.errors import WeightsError
from stapes.hub.facts import known_facts
from stapes.hub.huggingface import cached_snapshot
from stapes.hub.sources import with_kind
from stapes.llms import LLMS
from stapes.losses.ctc import CTCHead
from stapes.recipe import Recipe, Stage
from stapes.registry import Table

SECONDS_PER_UTTERANCE = 10.0
TOKENS_PER_SECOND = 4.0  # ours: of speech, in the LLM's vocabulary; English has three to four


@dataclass(frozen=True)
class Outline:
    """A recipe's model on the meta device.

    Attributes:
        model: its parts under their names in ``SpeechLLM``: encoder, adapter, ctc, llm, losses; without those ``missing``.
        missing: part -> why its size is not known.
        origins: part -> where its sizes are from, for encoder and LLM unless they come without weights.
        frames_per_second: what the encoder gives for an utterance of ordinary length, in a second of it; with ``window: 30s``
            those of 30 s. None, as the next, where a part is missing.
        embeddings_per_second: what the adapter gives, as ``expected_embeddings`` has it.
        most_embeddings_per_second: the bound, where the number depends on what is heard; else None.
        longest_frames: of the longest utterance that the recipe takes (``data.max_seconds``).
    """

    model: nn.ModuleDict
    missing: dict[str, str]
    frames_per_second: float | None
    embeddings_per_second: float | None
    origins: dict[str, str] = field(default_factory=dict)
    most_embeddings_per_second: float | None = None
    longest_frames: int = 0


def outline(recipe: Recipe) -> Outline:
    """Build a recipe's model without its weights.

    Args:
        recipe: resolved (``checkpoint.inherit``).

    Raises:
        RecipeError: components or LoRA targets that do not fit.
    """
    parts: dict[str, nn.Module] = {}
    missing: dict[str, str] = {}
    origins: dict[str, str] = {}
    for part, table, build in (("encoder", ENCODERS, _encoder), ("llm", LLMS, _llm)):
        config = getattr(recipe, part) or {}
        if "weights" not in table.options(config["name"]):
            parts[part] = table.build(config)
            continue
        sources = _sources(table, config)
        with tempfile.TemporaryDirectory() as spare:
            found = _configuration(sources, Path(spare), getattr(table[config["name"]], "config_files", ("config.json",)))
            if found is None:
                missing[part] = f"not fetched; run `stapes fetch {sources[0]}`"
            else:
                folder, origins[part] = found
                parts[part] = build(folder, config)
    if missing:
        missing["adapter"] = f"its size follows from the {' and the '.join(missing)}"
        return Outline(nn.ModuleDict(parts), missing, None, None, origins)
    encoder, llm = parts["encoder"], parts["llm"]
    seconds_per_frame = float(encoder.seconds_per_frame)  # type: ignore[arg-type]
    with torch.device("meta"):
        adapter = ADAPTERS.build(
            recipe.adapter or {},
            encoder_dim=encoder.dim,
            llm_dim=width(llm),
            seconds_per_frame=seconds_per_frame,
            vocab_size=configuration(llm).vocab_size,
            blank_id=0,
            llm_table=torch.empty(configuration(llm).vocab_size, width(llm)),
        )
        head = CTCHead(torch.empty(1, width(llm))) if recipe.ctc else None
        modules = nn.ModuleDict(losses.build(recipe.loss_modules, width(llm)))
    if recipe.lora is not None:
        lora.add(llm, **recipe.lora.model_dump())
    if recipe.encoder_lora is not None:
        lora.add(encoder, **recipe.encoder_lora.model_dump(), side="encoder")
    window = float(encoder.max_seconds)  # type: ignore[arg-type]
    is_filled = getattr(encoder, "window", "none") == "30s"
    frames = round((window if is_filled else SECONDS_PER_UTTERANCE) / seconds_per_frame)
    longest = round((window if is_filled else min(window, recipe.data.max_seconds)) / seconds_per_frame)
    rate = expected_embeddings(adapter, frames, SECONDS_PER_UTTERANCE) / SECONDS_PER_UTTERANCE
    most = float(adapter.output_lengths(torch.tensor([frames]))) / SECONDS_PER_UTTERANCE if adapter.lengths_are_bounds else None
    parts = {"encoder": encoder, "adapter": adapter, **({"ctc": head} if head is not None else {}), "llm": llm}
    parts["losses"] = modules
    return Outline(nn.ModuleDict(parts), {}, frames / SECONDS_PER_UTTERANCE, rate, origins, most, longest)


def expected_embeddings(adapter: Any, frames: int, seconds: float) -> float:
    """How many embeddings an adapter gives for an utterance.

    Where that depends on what is heard, one for each token of ordinary speech: ours, and what such adapters learn to give. The
    compressions that arXiv 2409.17044 has, 13:1 (``ctc``) and 25:1 (``cif``) of 50 frames a second, are 3.8 and 2 a second. An
    adapter that is not trained yet may give many more.

    Args:
        adapter: any.
        frames: of the utterance, those of a window that is filled up included.
        seconds: of speech in it.
    """
    most = float(adapter.output_lengths(torch.tensor([frames])))
    return min(most, TOKENS_PER_SECOND * seconds) if adapter.lengths_are_bounds else most


def counts(model: nn.Module, stage: Stage | None = None) -> dict[str, tuple[int, int]]:
    """Part -> (trainable in ``stage``, all) numbers of parameters, as ``lora.parameter_counts`` names the parts."""
    lora.set_trainable(model, stage.trainable if stage is not None else ())
    return lora.parameter_counts(model)


def _sources(table: Table, config: dict[str, Any]) -> list[str]:
    """The sources of a component's weights: the recipe's, or its constructor's own."""
    weights = config.get("weights", table.options(config["name"])["weights"].default)
    return [weights] if isinstance(weights, str) else list(weights)


def _configuration(sources: Sequence[str], spare: Path, files: Sequence[str]) -> tuple[Path, str] | None:
    """The folder of a configuration and where that is from; None if it is not known.

    What is on this machine goes first, then what is known without having it (written into ``spare``), and a hub is asked last,
    for these ``files`` only.
    """
    sources = [with_kind(source) for source in sources]
    fetched = {f"pack:{row.name}": row.folder for row in hub.available()}
    for source in sources:
        kind, _, rest = source.partition(":")
        repository, _, revision = rest.partition("@")
        if kind == "hf":
            folder = cached_snapshot(repository, revision, "config.json")
        else:
            folder = fetched.get(source) if kind == "pack" else Path(rest).expanduser()
        if folder is not None and all((folder / file).is_file() for file in files):
            return folder, f"the config of {source}"
    for source in sources if list(files) == ["config.json"] else []:
        if facts := known_facts(source):
            (spare / "config.json").write_text(json.dumps(facts.config), encoding="utf-8")
            return spare, f"facts ({facts.source}); {source} is not fetched"
    for source in sources:
        if source.startswith("hf:"):
            try:
                return hub.snapshot(source.removeprefix("hf:"), files), f"the config of {source}"
            except WeightsError:
                continue  # no network is no mistake in a recipe; what is not known is reported
    return None


def _encoder(folder: Path, config: dict[str, Any]) -> nn.Module:
    found: Any = ENCODERS[config["name"]]
    made: nn.Module = found.outline(folder, **{key: config[key] for key in config.keys() - {"name", "weights"}})
    return made


def _llm(folder: Path, config: dict[str, Any]) -> nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))


def configuration(module: Any) -> Any:
    """The transformers configuration of a bare model, or of the one in a component of ours; None for a module that has none."""
    inner = module if hasattr(module, "config") else getattr(module, "model", getattr(module, "encoder", None))
    return getattr(inner, "config", None)


def width(module: Any) -> int:
    """Of the vectors that a bare model or a component of ours gives."""
    return int(module.dim if hasattr(module, "dim") else module.config.hidden_size)
