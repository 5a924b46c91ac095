"""The feature cache: found by content, safe against being killed, and never stale."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from stapes.data.cache import FeatureCache, by_seconds, encode, fill, read_utterance
from stapes.data.manifest import write_manifest
from stapes.encoders.toy import ToyEncoder
from stapes.encoders.whisper import WhisperEncoder
from stapes.errors import RecipeError
from stapes.types import Utterance

RATE = 16_000


def record(path: Path, seconds: float, seed: int = 0) -> Path:
    noise = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    soundfile.write(path, noise.astype(np.float32), RATE)
    return path


@pytest.fixture
def rows(tmp_path: Path) -> list[Utterance]:
    """Three utterances of a second and more."""
    seconds = (1.0, 1.5, 2.0)
    return [
        Utterance(f"u{number}", record(tmp_path / f"u{number}.wav", length, number), "the cat", length)
        for number, length in enumerate(seconds)
    ]


def cache(folder: Path, encoder: ToyEncoder | None = None, dtype: torch.dtype = torch.float16) -> FeatureCache:
    return FeatureCache(encoder or ToyEncoder(), folder / "features", dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_was_put_in_comes_out_in_its_precision(rows: list[Utterance], tmp_path: Path, dtype: torch.dtype):
    assert fill(cache(tmp_path, dtype=dtype), rows, progress=False) == 3
    later = cache(tmp_path, dtype=dtype)
    assert fill(later, rows, progress=False) == 0
    for row in rows:
        frames = encode(ToyEncoder(), [row]).rows()[0]
        assert torch.equal(later.get(row), frames.to(dtype).float())


def test_several_caches_in_turn_and_at_once(rows: list[Utterance], tmp_path: Path):
    """Each writes a shard of its own; who opens the folder later sees all of them."""
    first, second = cache(tmp_path), cache(tmp_path)
    fill(first, rows[:2], progress=False)
    fill(second, rows[1:], progress=False)
    found = cache(tmp_path)
    assert not found.missing(rows)
    assert all(torch.equal(found.get(row), encode(ToyEncoder(), [row]).values[0].half().float()) for row in rows)


def test_what_stands_in_two_manifests_is_encoded_once(rows: list[Utterance], tmp_path: Path):
    own = cache(tmp_path)
    assert fill(own, [*rows, replace(rows[0], id="again", entities=())], progress=False) == 3
    assert own.get(replace(rows[0], id="again")).shape == own.get(rows[0]).shape


def test_a_shard_that_grows_is_read_on(rows: list[Utterance], tmp_path: Path):
    growing = cache(tmp_path)
    for row in rows:
        growing.put(row, encode(growing.encoder, [row]).rows()[0])
        assert growing.get(row).shape[1] == 16
    growing.close()


def test_the_key_is_what_the_features_depend_on(rows: list[Utterance], tmp_path: Path):
    own = cache(tmp_path)
    row = rows[0]
    key = own.key(row)
    copy = replace(row, id="another", text="other words", speaker="x", audio=tmp_path / "copy.wav")
    copy.audio.write_bytes(row.audio.read_bytes())
    assert own.key(copy) == key, "a copy under another name is the same sound"
    others = {
        "content": own.key(rows[1]),
        "start": own.key(replace(row, start=0.1)),
        "duration": own.key(replace(row, duration=0.9)),
        "precision": cache(tmp_path, dtype=torch.float32).key(row),
        "encoder": cache(tmp_path, ToyEncoder(dim=8)).key(row),
    }
    assert len({key, *others.values()}) == 1 + len(others)


def test_the_window_is_part_of_the_key(rows: list[Utterance], tmp_path: Path, tiny_whisper: Path):
    encoders = [WhisperEncoder(f"path:{tiny_whisper}", window=window).requires_grad_(False) for window in ("none", "30s")]
    none, full = (FeatureCache(encoder, tmp_path) for encoder in encoders)
    assert none.encoder.digest == full.encoder.digest
    assert none.key(rows[0]) != full.key(rows[0])
    assert none.folder != full.folder


def test_other_weights_are_another_cache(rows: list[Utterance], tmp_path: Path, tiny_whisper: Path):
    other = tmp_path / "other"
    shutil.copytree(tiny_whisper, other)
    state = load_file(other / "model.safetensors")
    state["encoder.conv1.bias"] += 1
    save_file(state, other / "model.safetensors")
    encoders = [WhisperEncoder(f"path:{folder}").requires_grad_(False) for folder in (tiny_whisper, other)]
    assert len({FeatureCache(encoder, tmp_path).key(rows[0]) for encoder in encoders}) == 2


def test_a_trainable_encoder_is_refused(tmp_path: Path, tiny_whisper: Path):
    encoder = WhisperEncoder(f"path:{tiny_whisper}").requires_grad_(True)
    with pytest.raises(
        RecipeError, match=r"the encoder is trainable, cached features would go stale; set cache: false in this stage"
    ):
        FeatureCache(encoder, tmp_path)


KILLED = {
    "in the middle of an index line": lambda index, data: index.write_text(index.read_text()[:-20]),
    "in the middle of the features": lambda index, data: data.write_bytes(data.read_bytes()[:-50]),
    "before the data reached the disk": lambda index, data: data.unlink(),
}


@pytest.mark.parametrize("damage", KILLED.values(), ids=KILLED)
def test_what_a_killed_run_left_behind_is_used_as_far_as_it_is_whole(rows: list[Utterance], tmp_path: Path, damage):  # type: ignore[no-untyped-def]
    own = cache(tmp_path)
    fill(own, rows, progress=False)
    (index,) = own.folder.glob("*.jsonl")
    written = [json.loads(line)["key"] for line in index.read_text().splitlines()]
    damage(index, index.with_suffix(".bin"))
    later = cache(tmp_path)
    left = [row for row in rows if row in later]
    assert {later.key(row) for row in left} in ({*written[:2]}, set())
    assert fill(later, rows, progress=False) == 3 - len(left)
    for row in rows:
        assert torch.equal(cache(tmp_path).get(row), encode(ToyEncoder(), [row]).values[0].half().float())


def test_two_processes_fill_one_folder(rows: list[Utterance], tmp_path: Path):
    """Both at once, over the same utterances: each ends with all of them whole."""
    write_manifest(tmp_path / "m.jsonl", rows)
    program = (
        "import sys; from pathlib import Path; from stapes.data.cache import FeatureCache, fill;"
        "from stapes.data.manifest import read_manifest; from stapes.encoders.toy import ToyEncoder;"
        "cache = FeatureCache(ToyEncoder(), Path(sys.argv[2])); rows = read_manifest(sys.argv[1]);"
        "print(fill(cache, rows, progress=False)); assert not cache.missing(rows)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "m.jsonl"), str(tmp_path / "features")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    filled = [int(process.communicate(timeout=120)[0]) for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert sum(filled) >= 3
    found = cache(tmp_path)
    assert all(torch.equal(found.get(row), encode(ToyEncoder(), [row]).values[0].half().float()) for row in rows)


def test_an_utterance_is_its_stretch_of_the_file(tmp_path: Path):
    path = record(tmp_path / "long.wav", 4.0)
    whole = soundfile.read(path, dtype="float32")[0]
    inner = read_utterance(Utterance("a", path, "x", 1.5, start=1.0))
    np.testing.assert_array_equal(inner, whole[RATE : RATE * 5 // 2])
    first = read_utterance(Utterance("b", path, "x", 1.5))
    np.testing.assert_array_equal(first, whole[: RATE * 3 // 2])
    rounded = read_utterance(Utterance("c", path, "x", 3.97))
    np.testing.assert_array_equal(rounded, whole)  # a manifest's rounding cuts nothing off


def test_batches_by_seconds_count_their_padding():
    rows = [Utterance(str(number), Path("x"), "x", seconds) for number, seconds in enumerate([9.0, 5.0, 4.0, 3.0, 1.0, 1.0])]
    assert [[row.id for row in batch] for batch in by_seconds(rows, 10.0)] == [["0"], ["1", "2"], ["3", "4", "5"]]
