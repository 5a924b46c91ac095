"""The encoder-feature cache: a frozen encoder runs over each utterance once, however many epochs, adapters or LLMs follow.

A feature is found by what it was computed from: the bytes of the sound file, the stretch of it, the digest of the encoder's
tensors, the layer taken, its window and the precision stored. Renaming a file, moving the cache or training another adapter
loses nothing; changing any of those computes anew. Features are appended to shards, the index line after the data, so that a
killed run leaves only whole entries, and several processes may write at once, each to a shard of its own.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from stapes import audio, hub, lora
from stapes.data.ahead import ahead
from stapes.encoders import Encoder
from stapes.errors import RecipeError
from stapes.types import SAMPLE_RATE_HZ, Audio, Padded, Utterance

BATCH_SECONDS = 30.0
CROP_TOLERANCE_SECONDS = 0.1


def read_utterance(utterance: Utterance) -> np.ndarray:
    """The samples (N,) of an utterance, 16 kHz mono; non-speech may be silent.

    Raises:
        AudioError: the file cannot be read.
    """
    silent = utterance.kind == "non-speech"
    if utterance.start > 0:
        return audio.read(utterance.audio, start=utterance.start, duration=utterance.duration, allow_silent=silent)
    samples = audio.read(utterance.audio, allow_silent=silent)
    wanted = round(utterance.duration * SAMPLE_RATE_HZ)
    # A manifest's duration is rounded; only a file that clearly goes on belongs to several utterances.
    return samples[:wanted] if len(samples) - wanted > CROP_TOLERANCE_SECONDS * SAMPLE_RATE_HZ else samples


class FeatureCache:
    """Encoder frames on disk, for one encoder.

    Args:
        encoder: frozen; its digest, those of its LoRA and its choice of layers, and its window are part of every key.
        folder: where; by default below ``hub.cache_folder()``.
        dtype: precision stored.

    Raises:
        RecipeError: the encoder has trainable parameters, so that its features would go stale.
    """

    def __init__(self, encoder: Encoder, folder: Path | None = None, dtype: torch.dtype = torch.float16) -> None:
        if encoder.is_trained:
            raise RecipeError(
                "cache", "the encoder is trainable, cached features would go stale", fix="set cache: false in this stage"
            )
        self.encoder, self.dtype = encoder, dtype
        self.identity = f"{encoder.digest}{lora.digest(encoder)}{encoder.layer_digest}/{encoder.window}/{dtype}"
        name = hashlib.sha256(self.identity.encode()).hexdigest()[:16]
        self.folder = (folder or hub.cache_folder() / "features") / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self._where: dict[str, tuple[Path, int, int]] = {}
        self._maps: dict[Path, np.memmap] = {}
        self._files: dict[Path, str] = {}
        self._shard: tuple[IO[bytes], IO[str]] | None = None
        for index in sorted(self.folder.glob("*.jsonl")):
            self._read_index(index)

    def key(self, utterance: Utterance) -> str:
        """What the features of ``utterance`` are filed under."""
        content = self._files.get(utterance.audio)
        if content is None:
            content = self._files[utterance.audio] = hashlib.sha256(utterance.audio.read_bytes()).hexdigest()
        stretch = f"{utterance.start:.6f}+{utterance.duration:.3f}"
        return hashlib.sha256(f"{content} {stretch} {self.identity}".encode()).hexdigest()[:32]

    def __contains__(self, utterance: Utterance) -> bool:
        return self.key(utterance) in self._where

    def get(self, utterance: Utterance) -> Tensor:
        """(T, E) float32 frames; KeyError if they are not cached."""
        path, offset, frames = self._where[self.key(utterance)]
        if path not in self._maps or self._maps[path].size < offset + frames * self.encoder.dim:
            self._maps[path] = np.memmap(path, dtype=_numpy_dtype(self.dtype), mode="r")
        values = self._maps[path][offset : offset + frames * self.encoder.dim].reshape(frames, self.encoder.dim)
        stored = torch.from_numpy(np.array(values))
        return (stored.view(torch.bfloat16) if self.dtype == torch.bfloat16 else stored).float()

    def put(self, utterance: Utterance, frames: Tensor) -> None:
        """File the frames (T, E) of an utterance."""
        if self._shard is None:
            name = self.folder / uuid.uuid4().hex[:12]
            self._shard = name.with_suffix(".bin").open("ab"), name.with_suffix(".jsonl").open("a")
        data, index = self._shard
        stored = frames.detach().cpu().to(self.dtype).contiguous()
        itemsize = stored.element_size()
        offset = data.tell() // itemsize
        data.write((stored.view(torch.int16) if self.dtype == torch.bfloat16 else stored).numpy().tobytes())
        data.flush()
        key = self.key(utterance)
        index.write(json.dumps({"key": key, "offset": offset, "frames": len(stored)}) + "\n")
        index.flush()
        self._where[key] = (Path(data.name), offset, len(stored))

    def missing(self, utterances: Iterable[Utterance]) -> list[Utterance]:
        """Those of ``utterances`` whose features are not cached yet; what stands in two manifests counts once."""
        return list({self.key(utterance): utterance for utterance in utterances if utterance not in self}.values())

    def close(self) -> None:
        """Close the shard that this process writes to, if any."""
        for file in self._shard or ():
            file.close()
        self._shard = None

    def _read_index(self, index: Path) -> None:
        data = index.with_suffix(".bin")
        size = data.stat().st_size // self.dtype.itemsize if data.exists() else 0
        for line in index.read_text().splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                break  # the last line of a run that was killed while it wrote
            if entry["offset"] + entry["frames"] * self.encoder.dim <= size:
                self._where[entry["key"]] = (data, entry["offset"], entry["frames"])


def encode(encoder: Encoder, utterances: Sequence[Utterance]) -> Padded:
    """Read and encode utterances in one batch: (B, T, E), without gradients, on the encoder's device."""
    with torch.inference_mode():
        return encoder(Audio.from_arrays([read_utterance(utterance) for utterance in utterances]).to(encoder.device))


def fill(cache: FeatureCache, utterances: Iterable[Utterance], progress: bool = True) -> int:
    """Encode what is missing, longest first; returns how many utterances that was.

    Raises:
        AudioError: a file cannot be read; what was encoded before stays.
    """
    from rich.console import Console
    from rich.progress import Progress

    todo = sorted(cache.missing(utterances), key=lambda utterance: -utterance.duration)
    seconds = sum(utterance.duration for utterance in todo)
    with Progress(console=Console(stderr=True), disable=not (progress and todo)) as bar:
        task = bar.add_task(f"encoding {len(todo)} utterances ({seconds / 3600:.1f} h)", total=seconds)
        for batch, encoded in _encoded(cache.encoder, list(by_seconds(todo, BATCH_SECONDS))):
            for utterance, frames in zip(batch, encoded.rows(), strict=True):
                cache.put(utterance, frames)
            bar.update(task, advance=sum(utterance.duration for utterance in batch))
    cache.close()
    return len(todo)


def _encoded(encoder: Encoder, work: Sequence[list[Utterance]]) -> Iterator[tuple[list[Utterance], Padded]]:
    """Batches and their frames, in order. On CPU each core takes a batch of its own: small ones do not share well."""
    threads = torch.get_num_threads()
    workers = threads if encoder.device.type == "cpu" else 1
    return ahead(partial(encode, encoder), work, workers, threads // workers, waiting=2 * workers)


def by_seconds(utterances: Sequence[Utterance], seconds: float) -> Iterable[list[Utterance]]:
    """Cut a list that is sorted by duration, longest first, into batches of at most ``seconds``, padding counted."""
    batch: list[Utterance] = []
    for utterance in utterances:
        if batch and (len(batch) + 1) * batch[0].duration > seconds:
            yield batch
            batch = []
        batch.append(utterance)
    if batch:
        yield batch


def _numpy_dtype(dtype: torch.dtype) -> type:
    return {torch.float32: np.float32, torch.float16: np.float16, torch.bfloat16: np.int16}[dtype]
