"""wav2vec 2.0, HuBERT and WavLM against transformers' own."""

import shutil
from collections.abc import Callable
from pathlib import Path

import contract
import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from stapes import lora
from stapes.encoders.ssl import SSLEncoder
from stapes.errors import WeightsError
from stapes.types import Audio

Folder = Callable[[str], Path]
KINDS = [kind for kind in tiny.KINDS if kind.startswith(("wav", "hubert"))]
WHOLE = 400 + 320 * 49  # samples that fill 50 frames


def of_transformers(folder: Path, array: np.ndarray) -> tuple[torch.Tensor, ...]:
    """(1 + layers) hidden states (1, T, E), the last one being the model's output."""
    from transformers import AutoFeatureExtractor, AutoModel

    features = AutoFeatureExtractor.from_pretrained(folder)(array, sampling_rate=16_000, return_tensors="pt")
    found = AutoModel.from_pretrained(folder).eval()(features.input_values, output_hidden_states=True)
    return (*found.hidden_states[:-1], found.last_hidden_state)


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_every_layer_is_what_transformers_computes(tiny_encoder: Folder, kind: str):
    (array,) = (array[:WHOLE] + 0.1 for array in contract.sounds([2.0]))
    wanted = of_transformers(tiny_encoder(kind), array)
    assert wanted[0].shape == (1, 50, 16)
    for layer in (0, 1, 2, None):
        ours = SSLEncoder(f"path:{tiny_encoder(kind)}", layer=layer)(Audio.from_arrays([array]))
        assert ours.lengths.tolist() == [50]
        torch.testing.assert_close(ours.values, wanted[2 if layer is None else layer], rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_an_end_that_fills_no_frame_is_completed_with_zeros(tiny_encoder: Folder):
    folder = tiny_encoder("wavlm-base")  # which does not normalise
    (array,) = contract.sounds([1.3])
    for rest, frames in ((0, 50), (1, 51), (320, 51), (321, 52)):
        ours = SSLEncoder(f"path:{folder}")(Audio.from_arrays([array[: WHOLE + rest]]))
        assert ours.lengths.tolist() == [frames]
        completed = np.pad(array[: WHOLE + rest], (0, (frames - 50) * 320 - rest))
        torch.testing.assert_close(ours.values, of_transformers(folder, completed)[-1], rtol=1e-4, atol=1e-5)
    assert SSLEncoder(f"path:{folder}")(Audio.from_arrays([array[:1]])).lengths.tolist() == [1]


@torch.inference_mode()
def test_loudness_is_normalised_where_the_preprocessor_says_so(tiny_encoder: Folder, tmp_path: Path):
    (array,) = contract.sounds([0.7])
    soft, loud = Audio.from_arrays([0.1 * array]), Audio.from_arrays([array + 0.2])
    for kind, is_same in (("hubert-large", True), ("wavlm-base", False)):
        encoder = SSLEncoder(f"path:{tiny_encoder(kind)}")
        assert encoder.normalise is is_same
        assert torch.allclose(encoder(soft).values, encoder(loud).values, atol=2e-3) is is_same
    folder = shutil.copytree(tiny_encoder("hubert-large"), tmp_path / "copy")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match=r"preprocessor_config\.json cannot be read .*, which says whether waveforms are"):
        SSLEncoder(f"path:{folder}")


@torch.inference_mode()
def test_a_group_norm_over_the_padding_would_be_felt(tiny_encoder: Folder):
    """What the masks are for: transformers' own forward changes with the neighbour."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(tiny_encoder("wav2vec2-base")).eval()
    short, long = contract.sounds([0.5, 2.0])
    alone = model(torch.tensor(short)[None]).last_hidden_state
    beside = model(Audio.from_arrays([short, long]).samples).last_hidden_state[:1, : alone.shape[1]]
    assert (beside - alone).abs().max() > 0.01


@torch.inference_mode()
def test_old_names_and_a_head_are_read_the_same(tiny_encoder: Folder, tmp_path: Path):
    """Checkpoints from before PyTorch 2 name weight norm otherwise, and CTC models carry their head."""
    folder = shutil.copytree(tiny_encoder("wav2vec2-ctc"), tmp_path / "copy")
    state = load_file(folder / "model.safetensors")
    assert {"lm_head.weight", "wav2vec2.masked_spec_embed"} <= state.keys()
    new = ("parametrizations.weight.original0", "parametrizations.weight.original1")
    renamed = {name.replace(new[0], "weight_g").replace(new[1], "weight_v"): tensor for name, tensor in state.items()}
    assert sum(name.endswith(("weight_g", "weight_v")) for name in renamed) == 2
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    audio = Audio.from_arrays(contract.sounds([0.4]))
    old, own = (SSLEncoder(f"path:{path}") for path in (folder, tiny_encoder("wav2vec2-ctc")))
    assert old.digest == own.digest
    assert torch.equal(old(audio).values, own(audio).values)


@pytest.mark.parametrize("kind", ["wav2vec2-base", "hubert-large", "wavlm-base", "wavlm-large"])
@torch.no_grad()
def test_lora_on_each_projection_has_an_effect(tiny_encoder: Folder, kind: str):
    audio = Audio.from_arrays(contract.sounds([0.4]))
    encoder = SSLEncoder(f"path:{tiny_encoder(kind)}")
    plain, found = encoder(audio).values, lora.find_targets(encoder, "encoder")
    targets = {"q_proj", "k_proj", "v_proj", "out_proj", "intermediate_dense", "output_dense"}
    assert set(found) == targets | ({"gru_rel_pos_linear"} if kind.startswith("wavlm") else set())
    for target in targets:
        encoder = SSLEncoder(f"path:{tiny_encoder(kind)}")
        lora.add(encoder, rank=2, targets=[target])
        assert torch.equal(encoder.eval()(audio).values, plain)
        for name, parameter in encoder.named_parameters():
            if "lora_B" in name:
                parameter += torch.randn_like(parameter)
        assert (encoder(audio).values - plain).abs().max() > 1e-3, target


def test_frames_of_silence_are_numbers(tiny_encoder: Folder):
    found = SSLEncoder(f"path:{tiny_encoder('wavlm-large')}")(Audio.from_arrays([np.zeros(8000), np.zeros(1)]))
    assert found.values.isfinite().all()
    assert found.lengths.tolist() == [25, 1]
