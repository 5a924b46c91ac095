"""Recipes: YAML -> strict, frozen settings. Defaults < recipe < ``--set section.key=value``.

Components (``encoder``, ``adapter``, ``llm``, ``task``) are a ``name`` and keywords of its constructor, checked against the
signature; everything else is one of the models below. An unknown key is an error at every depth, with the nearest name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stapes.adapters import ADAPTERS
from stapes.adapters import DERIVED as ADAPTER_DERIVED
from stapes.encoders import ENCODERS
from stapes.errors import RecipeError
from stapes.llms import LLMS
from stapes.registry import Table, nearest
from stapes.tasks import TASKS

COMPONENTS: dict[str, tuple[Table, Sequence[str]]] = {
    "encoder": (ENCODERS, ()),
    "adapter": (ADAPTERS, ADAPTER_DERIVED),
    "llm": (LLMS, ()),
    "task": (TASKS, ()),
}
LossName = Literal["next_token", "ctc", "matching", "classifier", "distillation", "contrastive", "token_ctc", "quantity"]
Part = Literal["adapter", "ctc", "losses", "llm", "llm.lora", "encoder", "encoder.lora", "encoder.layers"]


class Section(BaseModel):
    """Base of all sections: strict and frozen."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class CTC(Section):
    """The CTC head over pieces of the LLM's vocabulary (losses/ctc.py).

    Attributes:
        merges: how many merges of the LLM's tokenizer make its pieces.
        compress: whether the LLM reads runs of labels instead of every embedding.
    """

    merges: int = Field(1000, gt=0)
    compress: bool = True


class LoRA(Section):
    """LoRA on the LLM (lora.py).

    Attributes:
        targets: endings of the names of linear layers, or ``auto``: those of the attention.
    """

    rank: int = Field(16, gt=0)
    alpha: float | None = None
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: Literal["auto"] | list[str] = "auto"


class EncoderLoRA(Section):
    """LoRA on the speech encoder (lora.py); no dropout, since the encoder stays in evaluation mode while it is trained.

    Attributes:
        targets: endings of the names of linear layers, or ``auto``: all in the repeated blocks (ours).
    """

    rank: int = Field(8, gt=0)
    alpha: float | None = None
    targets: Literal["auto"] | list[str] = "auto"


class Matching(Section):
    """Options of the loss ``matching`` (losses/matching.py); the values are ours.

    Attributes:
        score: how alike a token and a speech embedding are.
        mse: weight a of the squared distance.
        cosine: weight b of the cosine distance.
        projection_dim: width of learned projections before the scores; null for none.
    """

    score: Literal["dot", "scaled_dot"] = "scaled_dot"
    mse: float = Field(1.0, ge=0)
    cosine: float = Field(1.0, ge=0)
    projection_dim: int | None = Field(None, gt=0)


class Classifier(Section):
    """Options of the loss ``classifier`` (losses/classifier.py); the values are ours.

    Attributes:
        labels: what is classified: the combined entity tags that occur, or the sentiment.
        channels: of the three convolutions.
        weighting: of classes: inverse frequency as it stands, the same capped and with mean 1, or none.
        most_weight: the cap.
    """

    labels: Literal["entities", "sentiment"] = "entities"
    channels: list[Annotated[int, Field(gt=0)]] = Field([16, 32, 64], min_length=3, max_length=3)
    weighting: Literal["capped", "inverse", "none"] = "capped"
    most_weight: float = Field(20.0, gt=0)


class Distillation(Section):
    """Options of the loss ``distillation`` (losses/distillation.py).

    Attributes:
        temperature: of both distributions.
    """

    temperature: float = Field(2.0, gt=0)


class Contrastive(Section):
    """Options of the loss ``contrastive`` (losses/contrastive.py).

    Attributes:
        temperature: that the learned one starts from, as CLIP's does.
    """

    temperature: float = Field(0.07, gt=0)


class Losses(Section):
    """Options of losses, for those whose defaults do not do; ``train.losses`` says which are there and how they weigh."""

    matching: Matching = Matching()
    classifier: Classifier = Classifier()
    distillation: Distillation = Distillation()
    contrastive: Contrastive = Contrastive()


class Source(Section):
    """One manifest of a training mixture.

    Attributes:
        path: a JSONL manifest, relative to the working directory.
        weight: how often an utterance is seen in an epoch; 0.5 takes another random half each epoch.
    """

    path: str
    weight: float = Field(1.0, gt=0)


class Masking(Section):
    """Masks over encoder features, as SpecAugment (arXiv 1904.08779) lays them over a spectrogram.

    Attributes:
        from_epoch: masks begin with this epoch, counted over all stages from 0. A fresh alignment has to break through first.
    """

    time_masks: int = Field(2, ge=0)
    max_time_ratio: float = Field(0.05, ge=0, le=1)
    feature_masks: int = Field(2, ge=0)
    max_feature_width: int = Field(64, ge=0)
    from_epoch: int = Field(0, ge=0)


class Noise(Section):
    """Noise laid under the speech before it is encoded."""

    path: str
    probability: float = Field(0.5, ge=0, le=1)
    snr_db: tuple[float, float] = (5.0, 20.0)


class Data(Section):
    """What is trained and chosen on.

    Attributes:
        train: manifests, or {path, weight} each.
        dev: a manifest that checkpoints are chosen on; without one the last is kept.
        max_seconds: longer utterances are left out of training, counted and listed.
        speed: factors, one drawn per utterance and epoch; as ``noise``, for stages with ``cache: false``.
    """

    train: list[Source] = []
    dev: str | None = None
    max_seconds: float = Field(30.0, gt=0)
    speed: list[float] = []
    noise: Noise | None = None
    masking: Masking | None = None

    @model_validator(mode="before")
    @classmethod
    def _paths(cls, values: Any) -> Any:
        if isinstance(values, dict) and "train" in values:
            train = values["train"] if isinstance(values["train"], list) else [values["train"]]
            values = values | {"train": [{"path": entry} if isinstance(entry, str) else entry for entry in train]}
        if isinstance(values, dict) and isinstance(values.get("noise"), dict) and "snr_db" in values["noise"]:
            values = values | {"noise": values["noise"] | {"snr_db": tuple(values["noise"]["snr_db"])}}
        return values


class Train(Section):
    """How one stage trains.

    Attributes:
        steps: optimiser steps; or
        epochs: passes over the mixture.
        batch_seconds: speech in one micro-batch.
        accumulation: micro-batches (over all processes) that make one step.
        trainable: of ``adapter``, ``ctc``, ``losses`` (what they learn), ``llm.lora``, ``encoder.lora``, ``encoder.layers``
            (the mixture of an encoder with ``layer: weighted``), and ``llm``, ``encoder``: all of its own weights; everything
            else is frozen.
        cache: keep the frozen encoder's output on disk and train on that; false where the encoder is trained, or to have
            ``data.speed`` and ``data.noise``.
        losses: name -> weight; each loss is divided by the step's number of its targets: tokens for ``next_token``, pieces for
            ``ctc``; of the adapter's own losses, tokens for ``token_ctc`` and utterances for ``quantity``.
            All are in docs/losses.md.
        learning_rate: of adapter, CTC head, losses and the mixture of layers, at its peak.
        lora_learning_rate: of LoRA layers.
        full_learning_rate: of the encoder's and the LLM's own weights (ours).
        warmup_steps: linear rise; then a cosine falls to ``final_ratio`` of the peak.
        clip_norm: of the whole gradient.
        masking: whether ``data.masking`` applies to this stage. It teaches CTC to use context, and an LLM to guess.
        precision: bf16 is autocast; weights and optimiser stay float32.
        gradient_checkpointing: compute each layer of the LLM again in the backward pass and keep its input only: less memory,
            about a third more time, the same result.
        evaluate_every: steps between evaluations (each saves a checkpoint); the end is always evaluated.
        evaluate_utterances: how many of ``data.dev`` are decoded then.
        save_every: steps between checkpoints to resume from.
        average_decay: keep an exponential moving average of the trained weights; it is what is evaluated and kept.
        interpolate: share of the stage's own weights in its result; the rest are those it began with (arXiv 2109.01903).
        seed: of everything random.
    """

    steps: int | None = Field(None, gt=0)
    epochs: float | None = Field(None, gt=0)
    batch_seconds: float = Field(160.0, gt=0)
    accumulation: int = Field(1, gt=0)
    trainable: list[Part] = ["adapter", "ctc", "losses", "llm.lora"]
    cache: bool = True
    losses: dict[LossName, float] = {"next_token": 1.0}
    learning_rate: float = Field(3e-4, gt=0)
    lora_learning_rate: float = Field(3e-4, gt=0)
    full_learning_rate: float = Field(1e-5, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup_steps: int = Field(50, ge=0)
    final_ratio: float = Field(0.02, ge=0, le=1)
    clip_norm: float = Field(1.0, gt=0)
    masking: bool = True
    precision: Literal["fp32", "bf16"] = "fp32"
    gradient_checkpointing: bool = False
    evaluate_every: int = Field(200, gt=0)
    evaluate_utterances: int = Field(100, gt=0)
    save_every: int = Field(50, gt=0)
    average_decay: float | None = Field(None, gt=0, lt=1)
    interpolate: float = Field(1.0, gt=0, le=1)
    seed: int = 0

    @model_validator(mode="after")
    def _length(self) -> Train:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("both steps and epochs are given, expected one of them")
        if not self.losses:
            raise ValueError("losses is empty, expected one or more, such as next_token or ctc")
        return self


class Stage(Train):
    """A training stage; what it does not say comes from ``train``."""

    name: str


class Decoding(Section):
    """How text is generated; belongs to the checkpoint.

    Attributes:
        beams: 1 is greedy.
        ctc_weight: share of the CTC prefix score in each token's score; 0 leaves the LLM alone.
        no_repeat_ngram: n-grams of tokens that may not come twice; 0 allows all.
        length_penalty: of beam search, as in transformers.
        tokens_per_second: new tokens are capped at this times the duration, plus ``tokens_spare``.
    """

    beams: int = Field(1, gt=0)
    ctc_weight: float = Field(0.0, ge=0, le=1)
    no_repeat_ngram: int = Field(0, ge=0)
    length_penalty: float = 1.0
    tokens_per_second: float = Field(8.0, gt=0)
    tokens_spare: int = Field(10, ge=0)


class Recipe(Section):
    """A whole experiment. ``stapes train`` writes the resolved one beside every run."""

    init: str | None = None
    encoder: dict[str, Any] | None = None
    adapter: dict[str, Any] | None = None
    llm: dict[str, Any] | None = None
    task: dict[str, Any] = {"name": "asr"}
    ctc: CTC | None = None
    lora: LoRA | None = None
    encoder_lora: EncoderLoRA | None = None
    losses: Losses = Losses()
    data: Data = Data()
    train: Train = Train()
    stages: list[Stage] = []
    decoding: Decoding = Decoding()

    @property
    def resolved_stages(self) -> list[Stage]:
        """The stages, or the one that ``train`` describes."""
        return self.stages or [Stage(name="train", **self.train.model_dump())]

    @property
    def loss_modules(self) -> dict[str, dict[str, Any]]:
        """Options of the losses that some stage weighs and that come as modules."""
        weighed = {name for stage in self.resolved_stages for name in stage.losses}
        return {name: options for name, options in self.losses.model_dump().items() if name in weighed}


class _Loader(yaml.SafeLoader):
    """YAML 1.2's floats: 1e-4 is a number, not a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    A recipe may begin with another one: ``extends`` names a file, relative to its own folder, or a recipe of the package. What
    it says itself goes before, key by key; another component (``name``) replaces the whole section, and a list the whole list.

    Args:
        path: a YAML file, or the name of a recipe that comes with the package.
        overrides: "section.key=value" each, the value in YAML.

    Raises:
        RecipeError: file, key, what was found, and the nearest name.
    """
    path = find(path)
    values = _read(path)
    for override in overrides:
        _override(values, override)
    return parse(values, str(path))


def _read(path: Path, extending: Sequence[Path] = ()) -> dict[str, Any]:
    """A recipe's mapping, laid over that of the recipe that it extends; ``extending`` are those that led here."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}
    except yaml.YAMLError as error:
        raise RecipeError(path, f"not YAML: {error}") from error
    if not isinstance(values, dict):
        raise RecipeError(path, f"a {type(values).__name__}", "a mapping of sections")
    if "extends" not in values:
        return values
    name = values.pop("extends")
    if not isinstance(name, str):
        raise RecipeError(f"{path}: extends", repr(name), "the name of a recipe")
    beside = path.parent / name
    parent = beside if beside.is_file() else find(name)
    chain = [*extending, path.resolve()]
    if parent.resolve() in chain:
        names = " -> ".join(each.name for each in [*chain, parent])
        raise RecipeError(f"{path}: extends", f"a circle ({names})", "a recipe that stands alone at the end")
    return _laid_over(_read(parent, chain), values)


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """``above``, with what it does not say from ``below``."""
    merged = below | above
    for key in below.keys() & above.keys():
        lower, upper = below[key], above[key]
        if isinstance(lower, dict) and isinstance(upper, dict) and upper.get("name") in (None, lower.get("name")):
            merged[key] = _laid_over(lower, upper)
    return merged


def find(name: str | Path) -> Path:
    """The file of a recipe: a path, or the name of one that comes with the package.

    Raises:
        RecipeError: it is neither; names the nearest.
    """
    if Path(name).is_file():
        return Path(name)
    known = shipped()
    found = known.get(str(name).removesuffix(".yaml"))
    if found is None:
        raise RecipeError(name, "no such recipe", "a YAML file or a recipe of the package", nearest(Path(name).stem, known))
    return found


def shipped() -> dict[str, Path]:
    """The recipes that come with the package, by name: from the wheel, or from the checkout that the package lies in."""
    for folder in (Path(__file__).parent / "recipes", Path(__file__).parents[2] / "recipes"):
        if folder.is_dir():
            return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}
    return {}


def parse(values: dict[str, Any], where: str = "recipe") -> Recipe:
    """Check a recipe's mapping; see ``load``."""
    values = dict(values)
    stages, shared = values.get("stages"), values.get("train") or {}
    if isinstance(stages, list) and isinstance(shared, dict):
        values["stages"] = [_inherit(shared, stage) if isinstance(stage, dict) else stage for stage in stages]
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise _explain(error, where) from None
    if recipe.init is None:
        for section in ("encoder", "adapter", "llm"):
            if getattr(recipe, section) is None:
                raise RecipeError(f"{where}: {section}", "missing", "this section, or `init: MODEL`")
    for section, (table, derived) in COMPONENTS.items():
        config = getattr(recipe, section)
        if config is not None:
            table.check(config, derived)
    return recipe


def _inherit(shared: dict[str, Any], stage: dict[str, Any]) -> dict[str, Any]:
    """A stage with what it takes from ``train``; its own length replaces the shared one, however that is given."""
    if "steps" in stage or "epochs" in stage:
        shared = {key: value for key, value in shared.items() if key not in ("steps", "epochs")}
    return shared | stage


def _override(values: dict[str, Any], override: str) -> None:
    """Apply one "section.key=value" to a mapping; "stages.0.steps=10" reaches into a list."""
    key, separator, text = override.partition("=")
    if not separator:
        raise RecipeError(f"--set {override}", "no '='", "section.key=value")
    *path, last = key.strip().split(".")
    target: Any = values
    try:
        for part in path:
            target = target[int(part)] if isinstance(target, list) else target.setdefault(part, {})
        value = yaml.load(text, _Loader)
        target[int(last) if isinstance(target, list) else last] = value
    except (ValueError, IndexError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise RecipeError(f"--set {override}", f"it leads nowhere ({error})", "section.key=value") from error


def _explain(error: ValidationError, where: str) -> RecipeError:
    """The first thing that is wrong, in one line."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        model: Any = Recipe
        for part in first["loc"][:-1]:
            model = _field_model(model, part)
        return RecipeError(f"{where}: {key}", "unknown key" + more, fix=nearest(str(first["loc"][-1]), model.model_fields))
    return RecipeError(f"{where}: {key}", f"{first['input']!r}{more}", first["msg"].removeprefix("Value error, "))


def _field_model(model: Any, part: int | str) -> Any:
    """The section model that a key of ``model`` leads to."""
    if isinstance(part, int):
        return model
    annotation = model.model_fields[part].annotation
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)), model)
