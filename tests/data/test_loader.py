"""Training batches: a function of seed, epoch and utterance, whatever was read before."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from stapes import audio
from stapes.data.cache import FeatureCache, encode
from stapes.data.loader import TrainingData
from stapes.data.manifest import read_manifest, write_manifest
from stapes.data.reading import Planned, Waveforms, generator
from stapes.encoders.auto import AutoEncoder
from stapes.encoders.toy import ToyEncoder
from stapes.errors import AudioError, DataError, TrainingError
from stapes.recipe import parse
from stapes.tasks import Example
from stapes.tasks.asr import ASR
from stapes.tasks.sentiment import Sentiment
from stapes.types import Padded, Utterance

TASKS = {"asr": ASR(), "sentiment": Sentiment()}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STAPES_CACHE", str(tmp_path / "cache"))


def data(cache: bool = False, **section: Any) -> TrainingData:
    parts = {"encoder": {"name": "toy"}, "adapter": {"name": "stack_mlp"}, "llm": {"name": "toy"}}
    recipe = parse(parts | {"tasks": [{"name": name} for name in TASKS], "data": section})
    loader = TrainingData(recipe.data, ToyEncoder(), TASKS, progress=False)
    loader.attach(cache)
    loader.fill(loader.utterances)
    return loader


def ids(plan: Sequence[Sequence[Example]]) -> list[str]:
    return [row.utterance.id for rows in plan for row in rows]


def listed(folder: Path, name: str, durations: Sequence[float]) -> str:
    """A manifest of utterances whose sound is never read."""
    sound = folder / "silence.wav"
    soundfile.write(sound, np.zeros(160, np.float32), 16_000)
    rows = [Utterance(f"{name}{number}", sound, "a", seconds) for number, seconds in enumerate(durations)]
    write_manifest(folder / f"{name}.jsonl", rows)
    return str(folder / f"{name}.jsonl")


# -- which utterances, in which batches --------------------------------------------------------------------------------


def test_an_epoch_has_every_utterance_once_in_batches_of_like_durations(tmp_path: Path):
    seconds = np.random.default_rng(0).uniform(1, 20, size=200).round(2).tolist()
    loader = data(train=listed(tmp_path, "u", seconds))
    plan = loader.epoch(0, 0, batch_seconds=60.0)
    assert Counter(ids(plan)) == {f"u{number}": 1 for number in range(200)}
    assert all(sum(row.utterance.duration for row in rows) <= 60.0 for rows in plan)
    padded = sum(len(rows) * max(row.utterance.duration for row in rows) for rows in plan)
    assert padded < 1.15 * sum(seconds), "a random order would pad by half as much again"


@pytest.mark.parametrize(("count", "most"), [(100, 1.3), (350, 1.12)])
def test_small_data_is_not_padded_much_either(tmp_path: Path, count: int, most: float):
    """Durations as in SLUE-VoxPopuli, whose longest is fifteen times as long as its shortest."""
    seconds = np.random.default_rng(0).lognormal(2.114, 0.697, size=count).clip(1.0, 29.9).round(2).tolist()
    plan = data(train=listed(tmp_path, "u", seconds)).epoch(0, 0, batch_seconds=160.0)
    assert sum(len(rows) * max(row.utterance.duration for row in rows) for rows in plan) < most * sum(seconds)


def test_padding_counts_where_speech_is_still_to_be_encoded(tmp_path: Path):
    source = listed(tmp_path, "u", np.random.default_rng(0).uniform(1, 20, size=60).tolist())
    plans = {}
    for cached in (False, True):
        loader = data(train=source)
        loader.cache = FeatureCache(loader.encoder, tmp_path) if cached else None
        plans[cached] = loader.epoch(0, 0, batch_seconds=80.0)
    padded = {
        cached: max(len(rows) * max(row.utterance.duration for row in rows) for rows in plan) for cached, plan in plans.items()
    }
    assert padded[False] <= 80.0 < padded[True]
    assert all(sum(row.utterance.duration for row in rows) <= 80.0 for rows in plans[True])
    assert len(plans[True]) < len(plans[False])


def test_epochs_differ_and_each_can_be_had_again(tmp_path: Path):
    source = listed(tmp_path, "u", np.random.default_rng(0).uniform(1, 20, size=60).tolist())
    first, second = data(train=source), data(train=source)
    plans = [first.epoch(0, epoch, 60.0) for epoch in range(3)]
    assert [ids(second.epoch(0, epoch, 60.0)) for epoch in (2, 0)] == [ids(plans[2]), ids(plans[0])]
    assert len({tuple(ids(plan)) for plan in (*plans, first.epoch(1, 0, 60.0))}) == 4


@pytest.mark.parametrize("seconds", [[3.0], [3.0, 3.0], [20.0, 1.0], [20.0, 1.0, 1.0], [1.0] * 4])
def test_a_handful_of_utterances(tmp_path: Path, seconds: list[float]):
    """Also one that is longer than a batch may be."""
    plan = data(train=listed(tmp_path, "u", seconds)).epoch(0, 0, batch_seconds=2.0)
    assert sorted(ids(plan)) == [f"u{number}" for number in range(len(seconds))]


def test_weights_of_a_mixture(tmp_path: Path):
    """1: once; 0.25: another quarter each epoch; 2.5: twice, and another half a third time."""
    sources = [
        {"path": listed(tmp_path, "whole", [1.0] * 10)},
        {"path": listed(tmp_path, "part", [1.0] * 40), "weight": 0.25},
        {"path": listed(tmp_path, "often", [1.0] * 8), "weight": 2.5},
    ]
    loader = data(train=sources)
    epochs = [Counter(ids(loader.epoch(0, epoch, 30.0))) for epoch in range(12)]
    for counts in epochs:
        assert all(counts[f"whole{number}"] == 1 for number in range(10))
        assert sum(counts[f"part{number}"] for number in range(40)) == 10
        often = [counts[f"often{number}"] for number in range(8)]
        assert sorted(often) == [2] * 4 + [3] * 4
    seen = sum(epochs, Counter())
    assert all(seen[f"part{number}"] for number in range(40)), "over the epochs, all of it is seen"


def test_a_balanced_source_shows_every_kind_of_answer_equally_often(tmp_path: Path):
    path = tmp_path / "said.jsonl"
    rows = read_manifest(listed(tmp_path, "u", [1.0] * 60))
    labels = ["Neutral"] * 48 + ["Positive"] * 10 + ["Negative"] * 2
    write_manifest(path, [replace(row, sentiment=label) for row, label in zip(rows, labels, strict=True)])
    loader = data(train=[{"path": str(path), "task": "sentiment", "weight": 0.5, "balance": True}])
    plan = loader.epoch(0, 0, 30.0)
    assert Counter(row.utterance.sentiment for batch in plan for row in batch) == dict.fromkeys(labels, 10)
    assert max(Counter(ids(plan)).values()) == 5, "each of the two Negatives"


def test_the_emphasis_of_a_source_goes_with_its_examples(tmp_path: Path):
    said, short = listed(tmp_path, "s", [1.0] * 3), listed(tmp_path, "t", [1.0] * 2)
    loader = data(train=[said, {"path": short, "emphasis": 10}])
    found = {row.utterance.id: row.emphasis for batch in loader.epoch(0, 0, 30.0) for row in batch}
    assert found == {"s0": 1.0, "s1": 1.0, "s2": 1.0, "t0": 10.0, "t1": 10.0}


def test_what_is_too_long_is_left_out_and_listed(tmp_path: Path):
    source = listed(tmp_path, "u", [1.0, 29.0, 31.0, 12.0])
    assert [row.id for row in data(train=source, max_seconds=60).too_long] == ["u2"], "the encoder's window"
    loader = data(train=source, max_seconds=10)
    assert [row.id for row in loader.too_long] == ["u1", "u2", "u3"]
    assert ids(loader.epoch(0, 0, 60.0)) == ["u0"]


def test_nothing_left_is_an_error(tmp_path: Path):
    with pytest.raises(DataError, match="no utterance to train on, expected manifests with utterances of at most 30 s"):
        data(train=listed(tmp_path, "u", [40.0]))
    with pytest.raises(DataError, match="no utterance to train on"):
        data()


def test_an_encoder_that_cannot_mix_lengths_fills_batches_all_the_same(tiny_encoder: Callable[[str], Path], tones: Path):
    """Its frames are those of each utterance alone, encoded on the fly, in the cache, and in evaluation's batches."""
    loader = data(train=str(tones / "train.jsonl"))
    loader.encoder = AutoEncoder(f"path:{tiny_encoder('wav2vec2-base')}").requires_grad_(False)
    assert max(len(rows) for rows in loader.epoch(0, 0, 10.0)) > 2
    alone = {row.id: encode(loader.encoder, [row]).values[0] for row in loader.utterances}
    for cached in (False, True):
        loader.attach(cached)
        loader.fill(loader.utterances)
        for name, frames in read(loader).items():
            torch.testing.assert_close(frames, alone[name], rtol=0, atol=4e-3 if cached else 1e-4)


# -- what is in them ---------------------------------------------------------------------------------------------------


def read(loader: TrainingData, epoch: int = 0, seed: int = 0) -> dict[str, torch.Tensor]:
    """The frames of an epoch by utterance."""
    plan = loader.epoch(seed, epoch, 10.0)
    batches = list(loader.batches([Planned(epoch, rows) for rows in plan], seed))
    assert [ids([batch.examples]) for batch in batches] == [ids([rows]) for rows in plan]
    pairs = [pair for batch in batches for pair in zip(batch.examples, loader.frames(batch).rows(), strict=True)]
    return {row.utterance.id: frames for row, frames in pairs}


def test_cached_or_encoded_on_the_fly(tones: Path):
    """The same frames, to the precision of the cache."""
    manifest = str(tones / "train.jsonl")
    cached, fresh = read(data(cache=True, train=manifest)), read(data(train=manifest))
    for row in read_manifest(manifest):
        expected = encode(ToyEncoder(), [row]).values[0]
        assert torch.equal(fresh[row.id], expected)
        assert torch.equal(cached[row.id], expected.half().float())


@pytest.mark.parametrize(
    "section",
    [
        {"speed": [0.9, 1.1]},
        {"noise": {"probability": 1.0}},
        {"speed": [0.9, 1.0, 1.1], "noise": {"probability": 0.5}, "masking": {}},
    ],
    ids=["speed", "noise", "all"],
)
def test_augmentation_is_drawn_anew_each_epoch_and_can_be_had_again(tones: Path, section: dict[str, Any]):
    if "noise" in section:
        section = section | {"noise": section["noise"] | {"path": str(tones / "dev.jsonl"), "snr_db": [0, 5]}}
    section = section | {"train": str(tones / "train.jsonl")}
    loader = data(**section)
    first, second = read(loader, 0), read(loader, 1)
    again = read(data(**section), 0)
    assert all(torch.equal(first[name], again[name]) for name in first)
    changed = [name for name in first if first[name].shape != second[name].shape or not torch.equal(first[name], second[name])]
    assert len(changed) > len(first) / 4
    assert any(not torch.equal(first[name], other) for name, other in read(loader, 0, seed=1).items())


def test_augmentation_does_not_depend_on_the_batch(tones: Path):
    """Neighbours, their order and where a run was resumed change nothing."""
    loader = data(train=str(tones / "train.jsonl"), speed=[0.9, 1.1], masking={"max_time_ratio": 0.3})
    together = read(loader, 3)
    for row in loader.utterances[:5]:
        (batch,) = loader.batches([Planned(3, [Example(row)])], 0)
        torch.testing.assert_close(loader.frames(batch).values[0], together[row.id], rtol=1e-5, atol=1e-5)


def test_several_processes_read_what_one_does(tones: Path):
    section = {"train": str(tones / "train.jsonl"), "speed": [0.9, 1.1]}
    section["noise"] = {"path": str(tones / "dev.jsonl"), "probability": 0.5, "snr_db": [0, 5]}
    alone, several = data(**section), data(**section)
    several.readers = 2
    expected, found = read(alone, 1), read(several, 1)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_what_one_of_several_processes_cannot_read_is_one_clear_line(tmp_path: Path):
    loader = data(train=listed(tmp_path, "u", [1.0] * 6))
    (tmp_path / "silence.wav").unlink()
    loader.readers = 2
    with pytest.raises(AudioError, match=r"^\S+silence.wav: no such file, expected a sound file$"):
        list(loader.batches([Planned(0, rows) for rows in loader.epoch(0, 0, 2.0)], 0))


def test_a_killed_reader_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As the kernel kills one that finds no shared memory left."""
    loader = data(train=listed(tmp_path, "u", [1.0] * 6))
    loader.readers = 1
    monkeypatch.setattr(Waveforms, "__call__", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(TrainingError, match=r"^data: one of 1 reading processes was killed; .*shm-size"):
        list(loader.batches([Planned(0, rows) for rows in loader.epoch(0, 0, 2.0)], 0))


def test_reading_by_processes_draws_nothing_from_the_common_generator(tones: Path):
    """A resumed run finds it as it was."""
    loader = data(train=str(tones / "train.jsonl"))
    loader.readers = 1
    before = torch.get_rng_state()
    read(loader)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_speed_that_would_exceed_the_window_is_not_drawn(tmp_path: Path):
    sound = tmp_path / "long.wav"
    soundfile.write(sound, 0.1 * np.random.default_rng(0).standard_normal(29 * 16_000).astype(np.float32), 16_000)
    write_manifest(tmp_path / "m.jsonl", [Utterance("long", sound, "a", 29.0)])
    loader = data(train=str(tmp_path / "m.jsonl"), speed=[0.9])
    assert len(read(loader)["long"]) == 29 * 50


def test_masks_begin_with_their_epoch(tones: Path):
    options = {"time_masks": 2, "max_time_ratio": 0.5, "feature_masks": 2, "max_feature_width": 4}
    loader = data(train=str(tones / "train.jsonl"), masking=options | {"from_epoch": 1})
    plain, first, second = read(data(train=str(tones / "train.jsonl"))), read(loader, 0), read(loader, 1)
    assert all(torch.equal(plain[name], first[name]) for name in plain)
    masked = [name for name in plain if not torch.equal(plain[name], second[name])]
    assert len(masked) > len(plain) / 2
    for name in masked:
        expected = audio.mask_features(Padded.from_rows([plain[name]]), [generator(0, 1, name, "mask")], **options)
        assert torch.equal(second[name], expected.values[0])
    for batch in loader.batches([Planned(1, rows) for rows in loader.epoch(0, 1, 10.0)], 0, masked=False):
        for row, found in zip(batch.examples, loader.frames(batch).rows(), strict=True):
            assert torch.equal(found, plain[row.utterance.id])


def test_batches_are_padded_with_zeros_and_can_be_changed(tones: Path):
    """Frames that were made under inference_mode would not take part in a backward pass."""
    for cache in (True, False):
        loader = data(train=str(tones / "train.jsonl"), cache=cache)
        frames = loader.frames(next(loader.batches([Planned(0, [Example(row) for row in loader.utterances])], 0)))
        assert not frames.values[~frames.mask].any()
        assert not frames.values.is_inference()


def test_generator_depends_on_its_arguments_only():
    assert generator(0, 1, "a").integers(1 << 30) == generator(0, 1, "a").integers(1 << 30)
    seeds = ((0, 1, "a"), (0, 1, "b"), (1, 1, "a"), (0, 2, "a"))
    assert len({int(generator(*parts).integers(1 << 30)) for parts in seeds}) == 4
