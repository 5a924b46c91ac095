"""How much faster is an epoch of training an LLM to hear than with the loop that one writes at first?

    python benchmarks/train_epoch.py [--model stapes-base] [--data FILE] [--utterances 24] [--json]

Both sides train the last stage of the same model's recipe that trains the LLM on a frozen encoder, on the same utterances, with
the same encoder, adapter, LLM, LoRA, optimiser and precision, warm:

- *ours*: `training/loop.py` as `stapes train` runs it. Encoder features come from the cache, utterances of like length are
  batched by seconds, the CTC head compresses speech as the model's recipe says, only answers are projected to the vocabulary,
  the C allocator keeps its memory.
- *naive*: features and frames are computed anew at each step by transformers' own feature extractor and `WhisperEncoder`,
  padded to 30 s; batches are a fixed number of utterances in random order; the LLM reads all that the adapter gives, and
  transformers computes the loss from logits at all positions. No CTC loss. `--compressed` gives it the CTC head's compression
  too, and so shows what the rest is worth.

Checkpoints and evaluations are on neither side. `ratio` is naive time over our time for an epoch;
`ratio_with_cache_fill_over_5_epochs` counts the encoding of all utterances into an empty cache on our side, over five epochs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import speech
import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import WhisperFeatureExtractor

from stapes import checkpoint, lora, memory
from stapes.data.cache import FeatureCache, encode, fill, read_utterance
from stapes.data.loader import TrainingData
from stapes.data.reading import generator
from stapes.encoders.whisper import WhisperEncoder
from stapes.errors import RecipeError
from stapes.model import SpeechLLM
from stapes.recipe import Data, Recipe, Stage
from stapes.training import optim
from stapes.training.display import Display
from stapes.training.loop import Loop
from stapes.types import SAMPLE_RATE_HZ, Padded, Utterance

EPOCHS = 2  # of ours that are timed, after one to warm up
NAIVE_BATCH = 4  # a usual default; padded to 30 s each, as many positions of the LLM as our batch of 160 s has
IGNORED = -100  # transformers' label for positions without a target


class TimedData(TrainingData):
    """Training data with a cache of its own, which notes how long it took to fill."""

    def __init__(self, data: Data, model: SpeechLLM, folder: Path) -> None:
        encoder = model.encoder
        super().__init__(data.model_copy(update={"speed": [], "noise": None}), encoder, model.tasks)
        encode(encoder, self.utterances[:1])
        started = time.perf_counter()
        self.filled = FeatureCache(encoder, folder)
        fill(self.filled, self.utterances, progress=False)
        self.fill_seconds = time.perf_counter() - started

    def attach(self, cache: bool, device: torch.device | None = None) -> None:
        """The cache is full already."""
        self.cache = self.filled


class Stopwatch(Display):
    """Shows nothing, and notes when each step ended."""

    def __init__(self) -> None:
        super().__init__(active=False)
        self.ends: list[float] = []

    def step(self, step: int, losses: object, speech_per_second: float) -> None:
        """A step is done."""
        self.ends.append(time.perf_counter())


def ours(model: SpeechLLM, recipe: Recipe, stage: Stage, data: TimedData, engine: Accelerator, folder: Path) -> float:
    """Seconds that an epoch takes."""
    stage = stage.model_copy(update={"epochs": 1.0 + EPOCHS, "steps": None, "save_every": 10**9})
    watch = Stopwatch()
    Loop(model, data, None, recipe, stage, folder, engine, watch).run()
    first = -(-len(data.epoch(stage.seed, 0, stage.batch_seconds)) // stage.accumulation)
    return (watch.ends[-1] - watch.ends[first - 1]) / EPOCHS


def naive(model: SpeechLLM, stage: Stage, rows: Sequence[Utterance], engine: Accelerator, compressed: bool) -> float:
    """Seconds that an epoch takes."""
    lora.set_trainable(model, stage.trainable)
    model.train()
    model.encoder.eval()
    optimizer = optim.optimizer(model, stage)
    extractor = WhisperFeatureExtractor(feature_size=model.encoder.encoder.config.num_mel_bins)
    order = [rows[index] for index in generator("naive order").permutation(len(rows))]
    batches = [order[first : first + NAIVE_BATCH] for first in range(0, len(order), NAIVE_BATCH)]
    for number, batch in enumerate([batches[0], *batches]):  # the first one warms up
        if number == 1:
            started = time.perf_counter()
        waves = [read_utterance(row) for row in batch]
        mel = extractor(waves, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt").input_features
        with engine.autocast():
            loss = _naive_loss(model, mel, batch, compressed)
        engine.backward(loss)
        torch.nn.utils.clip_grad_norm_((each for each in model.parameters() if each.requires_grad), stage.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - started


def _naive_loss(model: SpeechLLM, mel: Tensor, rows: Sequence[Utterance], compressed: bool) -> Tensor:
    """Next-token loss of a batch from log-mel features (B, M, 3000) of 30 s each."""
    with torch.no_grad():
        frames = model.encoder.encoder(mel).last_hidden_state  # (B, 1500, E)
    padded = Padded(frames, torch.full((len(rows),), frames.shape[1]))
    sound = model.speech(padded).embeddings if compressed else model.adapter(padded)
    inputs, labels = [], []
    for row, embeddings in zip(rows, sound.rows(), strict=True):
        answer = torch.tensor(model.answer(model.task.target(row)))
        before, after = (model.llm.embed(torch.tensor(ids)) for ids in model.prompts[model.task.key][0])
        parts = [before, embeddings, after, model.llm.embed(answer)]
        inputs.append(torch.cat([part.float() for part in parts]))
        labels.append(torch.cat([torch.full((len(inputs[-1]) - len(answer),), IGNORED), answer]))
    lengths = torch.tensor([len(row) for row in inputs])
    padded_inputs = torch.nn.utils.rnn.pad_sequence(inputs, batch_first=True)
    return model.llm.model(
        inputs_embeds=padded_inputs,
        attention_mask=(torch.arange(padded_inputs.shape[1]) < lengths[:, None]).long(),
        labels=torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=IGNORED),
        use_cache=False,
    ).loss


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Both sides, one after the other, each from the model as it was."""
    model, _, model_folder = checkpoint.load(arguments.model)
    if not isinstance(model.encoder, WhisperEncoder):
        raise RecipeError(arguments.model, "another encoder", "a model with Whisper, which transformers can also run")
    recipe = Recipe.model_validate(checkpoint.read_description(model_folder)["recipe"])
    stage = next(stage for stage in reversed(recipe.resolved_stages) if "next_token" in stage.losses and stage.cache)
    engine = Accelerator(cpu=True, mixed_precision="bf16" if stage.precision == "bf16" else "no")
    rows = speech.utterances(arguments.utterances, folder, arguments.data)
    state = {name: tensor.clone() for name, tensor in checkpoint.trained_state(model).items()}
    naive_seconds = naive(model, stage, rows, engine, arguments.compressed)
    checkpoint.load_trained(model, state, arguments.model)

    memory.keep()
    data_section = recipe.data.model_dump() | {"train": [{"path": str(folder / "utterances.jsonl")}], "dev": None}
    data = TimedData(Data.model_validate(data_section), model, folder / "cache")
    our_seconds = ours(model, recipe, stage, data, engine, folder / "run")

    epochs = 5
    seconds = sum(row.duration for row in rows)
    return {
        "model": arguments.model,
        "utterances": len(rows),
        "seconds_of_speech": round(seconds, 1),
        "lengths": arguments.data or "made up: log-normal fit to SLUE-VoxPopuli dev",
        "precision": stage.precision,
        "threads": torch.get_num_threads(),
        "naive_compressed": arguments.compressed,
        "our_epoch_seconds": round(our_seconds, 3),
        "our_cache_fill_seconds": round(data.fill_seconds, 3),
        "naive_epoch_seconds": round(naive_seconds, 3),
        "ratio_with_cache_fill_over_5_epochs": round(epochs * naive_seconds / (data.fill_seconds + epochs * our_seconds), 2),
        "ratio": round(naive_seconds / our_seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="stapes-base", help="a shipped name, a run folder or a hub id")
    parser.add_argument("--data", help="a manifest to draw utterances from; by default they are made up")
    parser.add_argument("--utterances", type=int, default=24)
    parser.add_argument("--compressed", action="store_true", help="let the naive loop use the CTC head's compression too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments, Path(folder))
    print(json.dumps(result) if arguments.json else "\n".join(f"{name}: {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
