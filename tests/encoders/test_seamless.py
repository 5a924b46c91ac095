"""SeamlessM4T v2's speech encoder against transformers' own."""

from collections.abc import Callable
from pathlib import Path

import contract
import numpy as np
import pytest
import torch

from stapes.encoders.seamless import SeamlessEncoder
from stapes.types import Audio

Folder = Callable[[str], Path]
WHOLE = 400 + 160 * 99  # samples that fill 100 windows


def of_transformers(folder: Path, arrays: list[np.ndarray], **options: bool):  # type: ignore[no-untyped-def]
    from transformers import AutoFeatureExtractor, SeamlessM4Tv2ForSpeechToText

    model = SeamlessM4Tv2ForSpeechToText.from_pretrained(folder).eval().speech_encoder
    features = AutoFeatureExtractor.from_pretrained(folder)(arrays, sampling_rate=16_000, return_tensors="pt")
    return model(features.input_features, attention_mask=features.attention_mask, **options)


@torch.inference_mode()
def test_it_is_what_transformers_computes(tiny_encoder: Folder):
    (array,) = (array[:WHOLE] for array in contract.sounds([2.0]))
    wanted = of_transformers(tiny_encoder("seamless"), [array], output_hidden_states=True)
    ours = SeamlessEncoder(f"path:{tiny_encoder('seamless')}")
    assert ours.seconds_per_frame == 0.16
    found = ours(Audio.from_arrays([array]))
    assert found.lengths.tolist() == [7]
    torch.testing.assert_close(found.values, wanted.last_hidden_state, rtol=1e-4, atol=1e-5)
    for layer in (0, 1):
        ours = SeamlessEncoder(f"path:{tiny_encoder('seamless')}", layer=layer)
        found = ours(Audio.from_arrays([array]))
        assert ours.seconds_per_frame == 0.02 and found.lengths.tolist() == [50]
        torch.testing.assert_close(found.values, wanted.hidden_states[layer], rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_the_last_layer_is_the_conformer_with_its_norm(tiny_encoder: Folder):
    (array,) = (array[:WHOLE] for array in contract.sounds([2.0]))
    ours = SeamlessEncoder(f"path:{tiny_encoder('seamless')}", layer=-1)
    found = ours(Audio.from_arrays([array])).values
    outputs: list[torch.Tensor] = []
    with ours.encoder.encoder.register_forward_hook(lambda module, inputs, output: outputs.append(output)):
        ours.encoder(ours.filterbank(Audio.from_arrays([array])))
    torch.testing.assert_close(found, outputs[0], rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_what_the_masks_are_for(tiny_encoder: Folder):
    """In transformers' length adaptor, the last frame of an utterance reads what stands in its padding."""
    short, long = contract.sounds([0.5, 2.0])
    short = short[: 400 + 160 * 35]  # 18 feature vectors: the last window of the adaptor, 12 to 20, lies partly outside
    alone = of_transformers(tiny_encoder("seamless"), [short]).last_hidden_state[0]
    beside = of_transformers(tiny_encoder("seamless"), [short, long]).last_hidden_state[0, : len(alone)]
    assert (beside - alone).abs().max() > 0.01
    ours = SeamlessEncoder(f"path:{tiny_encoder('seamless')}")(Audio.from_arrays([short, long])).rows()[0]
    torch.testing.assert_close(ours, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("samples", "vectors"), [(1, 1), (560, 1), (561, 2), (WHOLE - 160, 50), (WHOLE, 50), (WHOLE + 1, 51), (16_000, 50)]
)
@torch.inference_mode()
def test_windows_and_vectors_are_completed(tiny_encoder: Folder, samples: int, vectors: int):
    audio = Audio.from_arrays([contract.sounds([1.1])[0][:samples]])
    ours = SeamlessEncoder(f"path:{tiny_encoder('seamless')}", layer=1)
    assert ours(audio).lengths.tolist() == [vectors]
    features = ours.filterbank(audio)
    assert features.shape == (1, vectors, 160) and features.isfinite().all()
    whole = SeamlessEncoder(f"path:{tiny_encoder('seamless')}")(audio)
    assert whole.lengths.tolist() == [1 + vectors // 8]
    assert whole.values.isfinite().all()


def test_nothing_of_the_text_side_is_kept(tiny_encoder: Folder):
    names = {name.split(".")[0] for name, _ in SeamlessEncoder(f"path:{tiny_encoder('seamless')}").encoder.named_parameters()}
    assert names == {"feature_projection", "encoder", "intermediate_ffn", "adapter", "inner_layer_norm"}


def test_the_large_model_has_the_size_of_the_paper(tmp_path: Path):
    """The defaults of transformers' configuration are those of seamless-m4t-v2-large: 24 layers of 1024, 635 million in all."""
    from transformers import SeamlessM4Tv2Config

    SeamlessM4Tv2Config().save_pretrained(tmp_path)
    found = SeamlessEncoder.outline(tmp_path)
    assert found.dim == 1024
    assert sum(parameter.numel() for parameter in found.parameters()) == pytest.approx(635e6, rel=0.01)
