"""``wlq_former`` against its equation in NumPy, the papers' sizes, and Granite speech's projector with the same weights."""

import contract
import numpy as np
import pytest
import torch
from adapters.equations import lend_q_former, linear, norm, q_former

from stapes.adapters.wlq_former import WLQFormer
from stapes.types import Padded

OPTIONS = {"dim": 16, "layers": 2, "heads": 2, "ffn_dim": 24}


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("frames", [1, 17, 18, 40])
@torch.no_grad()
def test_equation(frames: int, queries: int):
    """z_i = W QFormer(q, LayerNorm(h)_{iw ... iw+w-1}) + b, a shorter window at the end."""
    torch.manual_seed(0)
    adapter, h = contract.awake(WLQFormer(12, 8, 0.02, queries=queries, **OPTIONS)), torch.randn(1, frames, 12)
    x = norm(h[0].numpy(), adapter.norm)
    z = np.concatenate([linear(q_former(x[i : i + 17], adapter.q_former), adapter.out) for i in range(0, frames, 17)])
    found = adapter(Padded(h, torch.tensor([frames])))
    np.testing.assert_allclose(found.values[0], z, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_granite_says_the_same():
    """Three queries for 15 frames, where the windows are full; Granite speech has no norm in front."""
    transformers = pytest.importorskip("transformers")
    from transformers.models.granite_speech.modeling_granite_speech import GraniteSpeechEncoderProjector

    ours = contract.awake(WLQFormer(12, 8, 0.02, window_seconds=0.3, queries=3, **OPTIONS))
    ours.norm = torch.nn.Identity()
    config = transformers.GraniteSpeechConfig(
        projector_config={
            "model_type": "blip_2_qformer",
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 24,
            "cross_attention_frequency": 1,
            "encoder_hidden_size": 12,
        },
        text_config={"model_type": "granite", "hidden_size": 8},
        window_size=15,
        downsample_rate=5,
    )
    theirs = GraniteSpeechEncoderProjector(config).eval()
    lend_q_former(theirs.qformer, ours.q_former)
    theirs.query.copy_(ours.q_former.queries[None])
    theirs.linear.load_state_dict(ours.out.state_dict())
    h = torch.randn(2, 45, 12)
    torch.testing.assert_close(ours(Padded(h, torch.tensor([45, 45]))).values, theirs(h), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("encoder_dim", "parameters"), [(1280, 44_107_520), (1024, 42_534_144)], ids=["Whisper large", "SeamlessM4T large"]
)
def test_parameters_of_wlq_former(encoder_dim: int, parameters: int):
    """To the 4096 of Mistral 7B and Llama 3.1 8B."""
    with torch.device("meta"):
        adapter = WLQFormer(encoder_dim, 4096, 0.02)
    assert sum(parameter.numel() for parameter in adapter.parameters()) == parameters


@pytest.mark.parametrize(("seconds_per_frame", "window"), [(0.02, 17), (0.16, 2), (1.0, 1)])
def test_a_third_of_a_second_in_frames(seconds_per_frame: float, window: int):
    """Whisper's 50 Hz and SeamlessM4T's 6.25 Hz, as in the papers; never less than a frame."""
    adapter = WLQFormer(12, 8, seconds_per_frame, **OPTIONS)
    assert adapter.window == window
    assert adapter.output_lengths(torch.tensor([window, window + 1])).tolist() == [1, 2]


def test_thirty_seconds_are_89_embeddings():
    assert WLQFormer(12, 8, 0.02, **OPTIONS).output_lengths(torch.tensor([1500])).tolist() == [89]
