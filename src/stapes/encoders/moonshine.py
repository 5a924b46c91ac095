"""Moonshine's encoder (arXiv 2410.15608): three convolutions over the waveform, rotary positions, 41.7 frames a second.

It was trained on inputs of any length, without padding to a window. The forward pass is our own over transformers' modules: the
group norm behind the first convolution averages over the utterance alone, and keys in the padding are masked. A waveform whose
end would not fill a frame is completed with zeros (at most 24 ms); transformers drops it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stapes.encoders.layers import Windows, group_norm, key_mask
from stapes.encoders.pretrained import Layer, PretrainedEncoder, configuration
from stapes.types import SAMPLE_RATE_HZ, Audio, Padded

KERNELS, STRIDES = (127, 7, 3), (64, 3, 2)  # of the convolutions
WINDOWS = Windows.of(KERNELS, STRIDES)


class MoonshineEncoder(PretrainedEncoder):
    """The encoder half of a Moonshine checkpoint.

    Args:
        weights: sources tried in order (``hf:UsefulSensors/moonshine-tiny``, ``path:...``).
        layer: see ``PretrainedEncoder``.
    """

    prefixes = ("model.encoder.", "encoder.")
    seconds_per_frame = WINDOWS.hop_samples / SAMPLE_RATE_HZ
    max_seconds = 30.0  # ours: its training utterances are at most that long
    padding_is_safe = True

    def __init__(self, weights: str | Sequence[str] = "hf:UsefulSensors/moonshine-tiny", layer: Layer = None) -> None:
        super().__init__(weights, layer=layer)

    def set_up(self, folder: Path, layer: Layer = None) -> None:
        """See ``PretrainedEncoder``."""
        from transformers import Wav2Vec2FeatureExtractor
        from transformers.models.moonshine.modeling_moonshine import MoonshineEncoder as Module

        config = self.config = configuration(folder, "moonshine")
        self.encoder = Module(config)
        self.features = Wav2Vec2FeatureExtractor(do_normalize=False)  # the checkpoints' own is of these settings, too
        self.dim = config.hidden_size
        self.choose_layer(layer, len(self.encoder.layers))

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Frames per waveform (B,): 1 + ceil((N - 895) / 384), at least 1."""
        return WINDOWS.frames(lengths)

    def encode(self, audio: Audio) -> Padded:
        """(B, N) -> (B, T, E) at 41.7 frames a second; see ``Encoder.encode``."""
        model, lengths = self.encoder, self.output_lengths(audio.lengths)
        samples = WINDOWS.complete(audio.samples, lengths)
        hidden = torch.tanh(model.conv1(samples[:, None].to(model.conv1.weight.dtype)))
        steps = 1 + (WINDOWS.samples(lengths) - KERNELS[0]) // STRIDES[0]
        hidden = group_norm(hidden, steps, model.groupnorm)
        hidden = F.gelu(model.conv3(F.gelu(model.conv2(hidden)))).mT
        keys = key_mask(Padded(hidden, lengths).mask, hidden.dtype)
        positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
        rotary = model.rotary_emb(hidden, position_ids=positions)

        def step(layer: Any, hidden: Tensor) -> Tensor:
            return layer(hidden, attention_mask=keys, position_ids=positions, position_embeddings=rotary)

        return Padded(self.through_layers(hidden, model.layers, step, model.layer_norm), lengths).zero_padding()
