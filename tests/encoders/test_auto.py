"""Any speech model of transformers', as transformers computes it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import contract
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stapes.encoders.auto import AutoEncoder
from stapes.errors import RecipeError, WeightsError
from stapes.types import Audio

Folder = Callable[[str], Path]


@pytest.mark.parametrize(
    ("kind", "dim", "seconds_per_frame"),
    [
        ("w2v-bert", 16, 0.02),
        ("moonshine", 16, 0.024),
        ("seamless", 16, 0.16),
        ("whisper", 32, 0.02),
        ("hubert-large", 16, 0.02),
    ],
)
def test_sizes_are_found_by_trying(tiny_encoder: Folder, kind: str, dim: int, seconds_per_frame: float):
    found = AutoEncoder.outline(tiny_encoder(kind))
    assert (found.dim, found.seconds_per_frame) == (dim, pytest.approx(seconds_per_frame, rel=1e-9))


@torch.inference_mode()
def test_it_is_what_transformers_computes(tiny_encoder: Folder):
    from transformers import AutoFeatureExtractor, Wav2Vec2BertModel

    folder = tiny_encoder("w2v-bert")
    (array,) = contract.sounds([1.0])
    followed = np.pad(array, (0, 320))  # by the zeros of one frame
    features = AutoFeatureExtractor.from_pretrained(folder)(followed, sampling_rate=16_000, return_tensors="pt")
    wanted = Wav2Vec2BertModel.from_pretrained(folder).eval()(**features, output_hidden_states=True)
    audio = Audio.from_arrays([array])
    assert torch.equal(AutoEncoder(f"path:{folder}")(audio).values, wanted.last_hidden_state)
    for layer in (0, 1):
        assert torch.equal(AutoEncoder(f"path:{folder}", layer=layer)(audio).values, wanted.hidden_states[layer])


@torch.inference_mode()
def test_features_are_made_in_full_precision(tiny_encoder: Folder):
    """Whisper's, too, which transformers computes with torch."""
    contract.encoder_in_half_precision_is_close(AutoEncoder(f"path:{tiny_encoder('whisper')}"))


@torch.inference_mode()
def test_utterances_of_one_length_share_a_batch(tiny_encoder: Folder):
    encoder = AutoEncoder(f"path:{tiny_encoder('w2v-bert')}")
    sizes: list[int] = []
    with encoder.encoder.register_forward_pre_hook(
        lambda module, arguments, options: sizes.append(len(options["input_features"])), with_kwargs=True
    ):
        found = encoder(Audio.from_arrays(contract.sounds([0.5, 0.8, 0.5, 0.5])))
    assert sorted(sizes) == [1, 3]
    assert found.lengths.tolist() == encoder.output_lengths(torch.tensor([8000, 12800, 8000, 8000])).tolist()


@pytest.mark.parametrize("kind", ["moonshine", "seamless", "whisper"])
@torch.no_grad()
def test_the_hearing_part_of_a_model_is_saved_alone(tiny_encoder: Folder, tmp_path: Path, kind: str):
    def build(folder: Path | None) -> AutoEncoder:
        return AutoEncoder(f"path:{folder or tiny_encoder(kind)}")

    contract.saved_state_is_whole(build, tmp_path / "saved")
    assert not [name for name in load_file(tmp_path / "saved/model.safetensors") if "decoder" in name]


def test_gradients_reach_an_encoder_that_is_trained(tiny_encoder: Folder):
    encoder = AutoEncoder(f"path:{tiny_encoder('moonshine')}", layer="weighted")
    encoder(Audio.from_arrays(contract.sounds([0.5, 0.8]))).values.square().sum().backward()
    assert encoder.layer_weights.grad.abs().min() > 0
    assert encoder.encoder.conv1.weight.grad.abs().max() > 0


def test_layers_of_different_rates_cannot_be_mixed(tiny_encoder: Folder):
    with pytest.raises(RecipeError, match="weighted, of layers that differ in size or rate"):
        AutoEncoder(f"path:{tiny_encoder('seamless')}", layer="weighted")


def test_a_short_window_of_ones_own(tiny_encoder: Folder):
    assert AutoEncoder(f"path:{tiny_encoder('moonshine')}", max_seconds=8.0).max_seconds == 8.0


def test_what_is_no_speech_model_is_refused(tiny_encoder: Folder, tmp_path: Path):
    from transformers import LlamaConfig, LlamaModel

    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    LlamaModel(LlamaConfig(vocab_size=9, hidden_size=8, **sizes)).save_pretrained(tmp_path / "text")
    with pytest.raises(WeightsError, match=r"no speech encoder that `auto` can use .*; write a class for it"):
        AutoEncoder(f"path:{tmp_path / 'text'}")
    folder = shutil.copytree(tiny_encoder("moonshine"), tmp_path / "telephone")
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"sampling_rate": 8000}))
    with pytest.raises(WeightsError, match="a model of 8000 Hz, expected one of 16000 Hz"):
        AutoEncoder(f"path:{folder}")
