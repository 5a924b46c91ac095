"""Memory that a training step and inference take, found without loading any weights.

Weights, gradients and optimiser are exact; activations are counted from what the backward pass of each kind of layer keeps,
and are within a quarter of what is measured with the shipped pair (``stapes doctor`` measures it for any pair).

Lengths and rates are those of ordinary speech: utterances of 10 s, read or spoken freely in English. What an adapter has for
one utterance at a time is that of the longest one which the recipe takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from stapes.decoding.longform import BATCH_SECONDS
from stapes.lora import MARK
from stapes.losses import READ_BY_LLM
from stapes.recipe import Recipe, Stage
from stapes.training.sizes import SECONDS_PER_UTTERANCE, TOKENS_PER_SECOND, Outline, configuration, counts, width

# A weight of the LLM's linear layers by ``llm.quantize``: NF4 with double quantisation has 4.127 bits (arXiv 2305.14314).
QUANTIZED_BYTES = {"4bit": 4.127 / 8, "8bit": 1.0}
WIDE = 4  # bytes of a number: weights, gradients and optimiser are float32 whatever the arithmetic is
PIECES_PER_SECOND = 6.0  # ours: what a CTC head leaves of the embeddings
# How often an adapter's scores of the vocabulary are there at once, with a backward pass (measured: `ctc` 3, `posterior` 4) and
# without one (2 and 3).
SCORES_TRAINED, SCORES_HEARD = 3.5, 2.5
PROMPT_TOKENS = 30


@dataclass(frozen=True)
class Memory:
    """Bytes that a training step or inference takes.

    Attributes:
        weights: of all parts, and the moving average of the trained ones where one is kept.
        training: gradients and Adam's two moments of what is trained; 0 in inference.
        activations: about; of training for one micro-batch, of inference for one batch, with the LLM's cache.
    """

    weights: int
    training: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.training + self.activations


def training(found: Outline, recipe: Recipe, stage: Stage, plain_attention: bool) -> Memory:
    """What a training step of a stage takes.

    Args:
        found: the recipe's outline.
        recipe: resolved.
        stage: of the recipe.
        plain_attention: by matrix products, whose scores are kept, as the training loop has it on CPU.
    """
    sizes = counts(found.model, stage)
    trained = sum(trainable for trainable, _ in sizes.values())
    kept = sum(total for _, total in sizes.values()) + (trained if stage.average_decay else 0)
    weights = WIDE * kept - _spared(found, recipe, WIDE)
    return Memory(weights, 3 * WIDE * trained, _kept_for_backward(found, recipe, stage, plain_attention))


def inference(found: Outline, recipe: Recipe, number_bytes: int = WIDE, batch_seconds: float = BATCH_SECONDS) -> Memory:
    """What ``stapes transcribe`` takes.

    Encoder, the scores that an adapter gives to the vocabulary, and LLM do not hold anything at the same time. The encoder's
    peak is in a layer's feed-forward part (its input, the residual and twice the inner width); the LLM's while it reads the
    prompt, with its cache full at the end.

    Args:
        found: the recipe's outline.
        recipe: resolved.
        number_bytes: of the numbers of encoder and LLM.
        batch_seconds: of sound in a batch.
    """
    weights = number_bytes * sum(total for _, total in counts(found.model).values()) - _spared(found, recipe, number_bytes)
    encoder, llm = configuration(found.model["encoder"]), configuration(found.model["llm"])
    frames = batch_seconds * (found.frames_per_second or 0.0)
    width, inner = _of(encoder, "hidden_size", "d_model"), _of(encoder, *_INNER)
    heard = WIDE * frames * width + number_bytes * frames * (3 * width + 2 * inner)
    scores = SCORES_HEARD * _scores(found)
    read, answers = rates(found, recipe)
    rows = batch_seconds / SECONDS_PER_UTTERANCE * recipe.decoding.beams
    positions = rows * (SECONDS_PER_UTTERANCE * read + PROMPT_TOKENS)
    cache = 2 * _of(llm, *_LAYERS) * _key_width(llm) * (positions + rows * SECONDS_PER_UTTERANCE * answers)
    reading = positions * (4 * llm.hidden_size + 3 * _of(llm, *_INNER)) + 2 * rows * llm.vocab_size
    return Memory(weights, 0, round(max(heard, scores, number_bytes * (cache + reading))))


def _spared(found: Outline, recipe: Recipe, number_bytes: int) -> int:
    """Bytes that ``llm.quantize`` spares of weights that would have so many bytes each: those of linear layers but the last."""
    quantize = (recipe.llm or {}).get("quantize")
    if quantize is None:
        return 0
    llm = found.model["llm"]
    layers = [layer for name, layer in llm.named_modules() if isinstance(layer, nn.Linear) and MARK not in name]
    last = configuration(llm).vocab_size
    numbers = sum(layer.weight.numel() for layer in layers if layer.out_features != last)
    return round(numbers * (number_bytes - QUANTIZED_BYTES[quantize]))


def _kept_for_backward(found: Outline, recipe: Recipe, stage: Stage, plain_attention: bool) -> int:
    """Bytes that the backward pass of one micro-batch needs, about.

    Each linear layer of an adapter keeps three times its output, for each embedding, or for each frame where it runs on those
    (``Adapter.over_frames``). Where content decides on the number of embeddings, the share of each frame in each is kept. The
    scores of the vocabulary that an adapter gives are made again for one utterance after the other, when the LLM's activations
    are gone: the more of the two counts. A linear layer of an encoder that LoRA is trained in its output once, of an encoder
    that is trained itself 1.4 times. A mixture of an encoder's layers keeps each, and its share. A classifier keeps what each
    convolution reads and what ReLU leaves, at a quarter of the positions. A frozen layer of the LLM, of width D, attention
    width A, inner width I and H heads, keeps the inputs of two norms (2 D), the attention's queries, keys and values (3 A, and
    the scores, H for each key, where attention is plain; else 4 A with its output), and gate, its activation and the other
    factor (3 I); LoRA keeps the inputs of the attention's projections (2 D), an LLM that is trained itself those of all (3 D +
    I); with gradient checkpointing there are the inputs of its layers and the inside of one. The vocabulary's logits exist
    three times (logits, log-probabilities, gradient), four more with a teacher. Under autocast, matrix products are in
    bfloat16, norms and plain attention are not, and there is a bfloat16 copy of every matrix.
    """
    narrow = 2 if stage.precision == "bf16" else WIDE
    utterances = stage.batch_seconds / SECONDS_PER_UTTERANCE
    adapter, encoder, llm = (found.model[part] for part in ("adapter", "encoder", "llm"))
    embeddings = SECONDS_PER_UTTERANCE * (found.embeddings_per_second or 0.0)
    frames = SECONDS_PER_UTTERANCE * (found.frames_per_second or 0.0)
    heads = sum(int(getattr(part, "heads", 0)) for part in adapter.modules())
    scored, early = (_outputs(*_named(adapter, names)) for names in ("over_vocabulary", "over_frames"))
    outputs = embeddings * (_outputs(adapter) - scored - early) + frames * early
    row = (3 * outputs + plain_attention * heads * embeddings**2) * (WIDE + narrow) / 2
    row += 2 * WIDE * frames * embeddings * (found.most_embeddings_per_second is not None)
    heard = 0.0  # what is there to the end of the backward pass
    if {"encoder", "encoder.lora"} & set(stage.trainable):
        config, times = configuration(encoder), 1.4 if "encoder" in stage.trainable else 1.0
        scores = plain_attention * frames * _of(config, *_LAYERS) * _of(config, *_HEADS)
        heard += frames * (narrow * times * _outputs(encoder) + WIDE * scores)
    if "encoder.layers" in stage.trainable:
        heard += WIDE * 2 * frames * len(encoder.layer_weights) * encoder.dim  # type: ignore[arg-type]
    if "classifier" in stage.losses:
        widths = recipe.losses.classifier.channels
        images = 2 + sum(2 * channels / 4**number for number, channels in enumerate(widths, 1))
        row += WIDE * embeddings * width(llm) * images
    once = 0
    if READ_BY_LLM & stage.losses.keys():
        config = configuration(llm)
        read, answers = (SECONDS_PER_UTTERANCE * rate for rate in rates(found, recipe))
        positions = read + answers + PROMPT_TOKENS
        wide, inner = config.hidden_size, _of(config, *_INNER)
        attention = _of(config, *_HEADS) * _head_width(config)
        scores = WIDE * (3 * attention + _of(config, *_HEADS) * positions) if plain_attention else narrow * 4 * attention
        layer = 2 * WIDE * wide + scores + 3 * narrow * inner
        layer += narrow * max(2 * wide * ("llm.lora" in stage.trainable), (3 * wide + inner) * ("llm" in stage.trainable))
        layers = _of(config, *_LAYERS)
        logits = (2 * WIDE + narrow) * ("next_token" in stage.losses) + 4 * WIDE * ("distillation" in stage.losses)
        row += positions * (WIDE * layers * wide + layer if stage.gradient_checkpointing else layers * layer)
        row += logits * answers * config.vocab_size
        once = _matrices(llm) * narrow * (narrow < WIDE)
    return round(utterances * heard + max(utterances * row + once, SCORES_TRAINED * _scores(found)))


def _scores(found: Outline) -> float:
    """Bytes of the scores that an adapter gives the vocabulary at each of its steps, of the longest utterance."""
    adapter = found.model["adapter"]
    return WIDE * found.longest_frames / float(adapter.stride) * _outputs(*_named(adapter, "over_vocabulary"))  # type: ignore[arg-type]


def rates(found: Outline, recipe: Recipe) -> tuple[float, float]:
    """Embeddings that the LLM reads and tokens that it writes, for a second of speech."""
    read = found.embeddings_per_second or 0.0
    return min(read, PIECES_PER_SECOND) if recipe.ctc is not None and recipe.ctc.compress else read, TOKENS_PER_SECOND


# What configurations call the same thing.
_LAYERS = ("num_hidden_layers", "encoder_layers", "speech_encoder_layers")
_HEADS = ("num_attention_heads", "encoder_attention_heads", "speech_encoder_attention_heads")
_INNER = ("intermediate_size", "encoder_ffn_dim", "speech_encoder_intermediate_size")


def _of(config: Any, *names: str) -> int:
    """The first of the names that a configuration knows; 0 for an encoder without one."""
    return int(next((getattr(config, name) for name in names if getattr(config, name, None) is not None), 0))


def _head_width(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _key_width(config: Any) -> int:
    """Of the keys of a layer, all heads together."""
    return int((getattr(config, "num_key_value_heads", None) or config.num_attention_heads) * _head_width(config))


def _named(adapter: Any, names: str) -> list[nn.Module]:
    """Layers of an adapter under such an attribute of ``Adapter``."""
    return [getattr(adapter, name) for name in getattr(adapter, names)]


def _outputs(*modules: nn.Module) -> int:
    """How many numbers the linear layers and convolutions of modules give for one position."""
    layers = [part for module in modules for part in module.modules() if not isinstance(part, nn.Embedding)]
    return sum(own.shape[0] for part in layers for own in part.parameters(recurse=False) if own.dim() > 1)


def _matrices(module: nn.Module) -> int:
    """How many numbers the matrices of a module have, LoRA's apart."""
    return sum(own.numel() for name, own in module.named_parameters() if own.dim() > 1 and MARK not in name)
