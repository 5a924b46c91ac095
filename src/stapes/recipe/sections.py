"""The sections of a recipe: strict, frozen settings with their defaults."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

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
        rank: of the updates.
        alpha: updates are scaled by alpha / rank; null for twice the rank (ours).
        dropout: before the updates, in training.
        targets: endings of the names of linear layers, or ``auto``: those of the attention.
    """

    rank: int = Field(16, gt=0)
    alpha: float | None = None
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: Literal["auto"] | list[str] = "auto"


class EncoderLoRA(Section):
    """LoRA on the speech encoder (lora.py); no dropout, since the encoder stays in evaluation mode while it is trained.

    Attributes:
        rank: of the updates.
        alpha: as of ``lora``.
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
        labels: what is classified: the combined entity tags that occur, the sentiment, or both.
        channels: of the three convolutions.
        weighting: of classes: inverse frequency as it stands, the same capped and with mean 1, or none.
        most_weight: the cap.
    """

    labels: Literal["entities", "sentiment", "both"] = "entities"
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
    """One manifest of a training mixture, for one task; the same manifest may come again for another.

    Attributes:
        path: a JSONL manifest, relative to the working directory.
        task: the key of a task of the recipe ("ner", "asr.written"); empty for the first. Utterances without the labels that
            it needs are left out and counted.
        weight: how often an utterance is seen in an epoch; 0.5 takes another random half each epoch.
        balance: see every kind of answer (``Task.kind``: a sentiment, or whether there are entities) equally often, the
            common ones less than ``weight`` says and the rare ones more; as many utterances an epoch as without.
        emphasis: how many tokens a token of its answers counts for in ``next_token`` (ours): a sentiment is two of them, and
            is hardly learnt beside transcripts of sixty, since the loss is a mean over tokens.
    """

    path: str
    task: str = ""
    weight: float = Field(1.0, gt=0)
    balance: bool = False
    emphasis: float = Field(1.0, gt=0)


class HeldOut(Section):
    """One manifest that is scored during training, for one task.

    Attributes:
        path, task: as of a source of ``data.train``.
    """

    path: str
    task: str = ""


class Masking(Section):
    """Masks over encoder features, as SpecAugment (arXiv 1904.08779) lays them over a spectrogram.

    Attributes:
        time_masks: how many stretches of frames are masked in an utterance.
        max_time_ratio: the longest of them, as a share of the utterance.
        feature_masks: how many bands of features.
        max_feature_width: the widest of them, in features.
        from_epoch: masks begin with this epoch, counted over all stages from 0. A fresh alignment has to break through first.
    """

    time_masks: int = Field(2, ge=0)
    max_time_ratio: float = Field(0.05, ge=0, le=1)
    feature_masks: int = Field(2, ge=0)
    max_feature_width: int = Field(64, ge=0)
    from_epoch: int = Field(0, ge=0)


class Noise(Section):
    """Noise laid under the speech before it is encoded.

    Attributes:
        path: a manifest of sounds.
        probability: that an utterance gets one, each epoch anew.
        snr_db: the least and the greatest ratio of speech to noise, in dB.
    """

    path: str
    probability: float = Field(0.5, ge=0, le=1)
    snr_db: tuple[float, float] = (5.0, 20.0)


class Data(Section):
    """What is trained and chosen on.

    Attributes:
        train: manifests, or {path, task, weight} each; what a stage without a ``mixture`` of its own trains on.
        dev: a manifest, or {path, task} each, that checkpoints are chosen on. The last is kept without one, and in a stage
            none of whose tasks is among them. A model given by ``init`` is scored on all of them before the first step.
        max_seconds: longer utterances are left out of training, counted; the first of them are named.
        speed: factors, one drawn per utterance and epoch; as ``noise``, for stages with ``cache: false``.
        noise: sounds laid under the speech; null for none.
        masking: masks over the encoder's features; null for none.
    """

    train: list[Source] = []
    dev: list[HeldOut] = []
    max_seconds: float = Field(30.0, gt=0)
    speed: list[float] = []
    noise: Noise | None = None
    masking: Masking | None = None

    @model_validator(mode="before")
    @classmethod
    def _paths(cls, values: Any) -> Any:
        if isinstance(values, dict):
            values = values | {key: _sources(values[key]) for key in ("train", "dev") if key in values}
        if isinstance(values, dict) and isinstance(values.get("noise"), dict) and "snr_db" in values["noise"]:
            values = values | {"noise": values["noise"] | {"snr_db": tuple(values["noise"]["snr_db"])}}
        return values


def _sources(given: Any) -> Any:
    """A path, or a list of paths and mappings, as a list of mappings."""
    if given is None:
        return []
    return [{"path": each} if isinstance(each, str) else each for each in (given if isinstance(given, list) else [given])]


class Train(Section):
    """How one stage trains.

    Attributes:
        steps: optimiser steps; or
        epochs: passes over the mixture; one, where neither is given.
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
        weight_decay: AdamW's, on matrices.
        warmup_steps: linear rise, over at most half the steps; then a cosine falls to ``final_ratio`` of the peak.
        final_ratio: see ``warmup_steps``.
        clip_norm: of the whole gradient.
        masking: whether ``data.masking`` applies to this stage. It teaches CTC to use context, and an LLM to guess.
        precision: bf16 is autocast; weights and optimiser stay float32.
        gradient_checkpointing: compute each layer of the LLM again in the backward pass and keep its input only: less memory,
            about a third more time, the same result.
        evaluate_every: steps between evaluations (the best so far is kept, of equals the last); the end is always evaluated.
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
    """A training stage; what it does not say comes from ``train``.

    Attributes:
        name: of the stage's folder in the run, and in the log.
        mixture: what it trains on, as ``data.train``, which it replaces; of its tasks the best checkpoint is chosen.
    """

    name: str
    mixture: list[Source] | None = None

    @model_validator(mode="before")
    @classmethod
    def _paths(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("mixture") is not None:
            values = values | {"mixture": _sources(values["mixture"])}
        return values


class Decoding(Section):
    """How text is generated; belongs to the checkpoint.

    Attributes:
        beams: 1 is greedy.
        ctc_weight: share of the CTC prefix score in each token's score; 0 leaves the LLM alone.
        markup_bonus: in nats, what markup among words (entities) gets beside the LLM's score, where ``ctc_weight`` is not 0.
            With 0, what is less likely an entity than not is not marked; F1 is highest at lower odds (ours).
        constrained: whether an answer that has a grammar (entities, sentiment) is held to it.
        no_repeat_ngram: n-grams of spoken tokens, markup passed over, that may not come twice; 0 allows all.
        length_penalty: of beam search, as in transformers.
        tokens_per_second: new tokens are capped at this times the duration, plus ``tokens_spare``.
        tokens_spare: see ``tokens_per_second``.
    """

    beams: int = Field(1, gt=0)
    ctc_weight: float = Field(0.0, ge=0, le=1)
    markup_bonus: float = 0.0
    constrained: bool = True
    no_repeat_ngram: int = Field(0, ge=0)
    length_penalty: float = 1.0
    tokens_per_second: float = Field(8.0, gt=0)
    tokens_spare: int = Field(10, ge=0)


class Recipe(Section):
    """A whole experiment. ``stapes train`` writes the resolved one beside every run.

    Attributes:
        init: a trained model to start from; it brings encoder, adapter, LLM and CTC head, its tasks and decoding, and other
            defaults of ``train`` (``checkpoint.inherit``).
        tasks: what the model is to do, each by its name and options; the first is what it does unless asked otherwise. ``task``
            is a list of one.
        encoder, llm: the components; needed, unless ``init`` brings them.
        adapter: what connects them; needed as well. Beside ``init``, it may give options of the same adapter that leave its
            tensors as they are, such as the rate of one that pools.
        ctc, lora, encoder_lora: parts that a model may have; null for none.
        losses: options of losses.
        data: what is trained and chosen on.
        train: how, for all stages.
        stages: one after the other, each from where the last ended; without any, ``train`` is the only one.
        decoding: how text is generated.
    """

    init: str | None = None
    encoder: dict[str, Any] | None = None
    adapter: dict[str, Any] | None = None
    llm: dict[str, Any] | None = None
    tasks: list[dict[str, Any]] = Field([{"name": "asr"}], min_length=1)
    ctc: CTC | None = None
    lora: LoRA | None = None
    encoder_lora: EncoderLoRA | None = None
    losses: Losses = Losses()
    data: Data = Data()
    train: Train = Train()
    stages: list[Stage] = []
    decoding: Decoding = Decoding()

    @model_validator(mode="before")
    @classmethod
    def _one_task(cls, values: Any) -> Any:
        if isinstance(values, dict) and "task" in values:
            if "tasks" in values:
                raise ValueError("both task and tasks are given, expected one of them")
            values = {("tasks" if key == "task" else key): [value] if key == "task" else value for key, value in values.items()}
        return values

    @property
    def resolved_stages(self) -> list[Stage]:
        """The stages, or the one that ``train`` describes."""
        return self.stages or [Stage(name="train", **self.train.model_dump())]

    @property
    def loss_modules(self) -> dict[str, dict[str, Any]]:
        """Options of the losses that some stage weighs and that come as modules."""
        weighed = {name for stage in self.resolved_stages for name in stage.losses}
        return {name: options for name, options in self.losses.model_dump().items() if name in weighed}
