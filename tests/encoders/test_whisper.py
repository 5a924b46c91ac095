"""Whisper's encoder against transformers' own."""

from collections.abc import Callable
from pathlib import Path

import contract
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from stapes.data.cache import read_utterance
from stapes.data.manifest import read_manifest
from stapes.encoders.whisper import WhisperEncoder
from stapes.errors import RecipeError, WeightsError
from stapes.types import Audio


def of_transformers(folder: Path, array: np.ndarray) -> torch.Tensor:
    """(1500, E): what transformers' feature extractor and encoder make of a waveform."""
    from transformers import WhisperFeatureExtractor, WhisperModel

    features = WhisperFeatureExtractor.from_pretrained(folder)(array, sampling_rate=16_000, return_tensors="pt")
    encoder = WhisperModel.from_pretrained(folder, dtype=torch.float32).get_encoder().eval()
    return encoder(features.input_features).last_hidden_state[0]


@pytest.mark.parametrize("seconds", [0.05, 3.3, 29.9, 30.0])
@torch.inference_mode()
def test_the_window_of_30_s_is_what_transformers_computes(tiny_whisper: Path, seconds: float):
    (array,) = contract.sounds([seconds])
    ours = WhisperEncoder(f"path:{tiny_whisper}", window="30s")(Audio.from_arrays([array]))
    assert ours.lengths.tolist() == [1500]
    expected = of_transformers(tiny_whisper, array)
    # Of a full 30 s transformers mirrors the end, where ours goes on with silence: half an FFT window of difference.
    torch.testing.assert_close(ours.values[0], expected, rtol=1e-4, atol=2e-3 if seconds == 30.0 else 1e-5)


@torch.inference_mode()
def test_without_a_window_a_full_one_is_the_same(tiny_whisper: Path):
    (array,) = contract.sounds([29.8])
    none, full = (
        WhisperEncoder(f"path:{tiny_whisper}", window=window)(Audio.from_arrays([array])) for window in ("none", "30s")
    )
    torch.testing.assert_close(none.values, full.values, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_without_a_window_the_frames_are_those_of_the_sound_and_a_short_tail(tiny_whisper: Path):
    encoder = WhisperEncoder(f"path:{tiny_whisper}")
    for seconds, frames in ((0.1, 21), (1.0, 66), (10.0, 516), (29.6, 1496), (29.9, 1500)):
        assert encoder(Audio.from_arrays(contract.sounds([seconds]))).lengths.tolist() == [frames]


@torch.inference_mode()
def test_silence_gives_numbers(tiny_whisper: Path):
    found = WhisperEncoder(f"path:{tiny_whisper}")(Audio.from_arrays([np.zeros(1), np.zeros(8000)]))
    assert found.lengths.tolist() == [17, 41]
    assert found.values.isfinite().all()


def test_an_unknown_window_is_an_error(tiny_whisper: Path):
    with pytest.raises(RecipeError, match=r"encoder\.window: '20s', expected none or 30s"):
        WhisperEncoder(f"path:{tiny_whisper}", window="20s")


def test_a_checkpoint_with_a_tensor_renamed_is_refused(tiny_whisper: Path, tmp_path: Path):
    (tmp_path / "config.json").write_text((tiny_whisper / "config.json").read_text())
    state = load_file(tiny_whisper / "model.safetensors")
    state["encoder.renamed.weight"] = state.pop("encoder.conv1.weight")
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"do not fit: conv1\.weight, renamed\.weight"):
        WhisperEncoder(f"path:{tmp_path}")


@pytest.mark.weights
@torch.inference_mode()
def test_whisper_base_is_what_transformers_computes(pack: Callable[[str], Path], examples: Path):
    array = read_utterance(read_manifest(examples)[1])
    ours = WhisperEncoder("pack:whisper-base", window="30s")(Audio.from_arrays([array]))
    torch.testing.assert_close(ours.values[0], of_transformers(pack("whisper-base"), array), rtol=1e-4, atol=1e-4)


@pytest.mark.weights
@pytest.mark.parametrize("name", ["whisper-tiny.en", "whisper-base"])
@torch.inference_mode()
def test_real_weights_on_real_speech_alone_and_in_a_batch(pack: Callable[[str], Path], examples: Path, name: str):
    pack(name)
    encoder = WhisperEncoder(f"pack:{name}")
    arrays = [read_utterance(row) for row in read_manifest(examples)[:3]]
    for array, found in zip(arrays, encoder(Audio.from_arrays(arrays)).rows(), strict=True):
        alone = encoder(Audio.from_arrays([array])).rows()[0]
        torch.testing.assert_close(found, alone, rtol=1e-3, atol=1e-3)
