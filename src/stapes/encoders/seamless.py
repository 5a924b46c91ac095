"""SeamlessM4T v2's speech encoder (arXiv 2312.05187): w2v-BERT 2.0 and a length adaptor, 6.25 frames a second.

160-dimensional features (two windows of 80 log-mel energies, each band normalised over the utterance), a Conformer, a
feed-forward block and a strided convolution with attention. Nothing else of the checkpoint is read. With ``layer`` the frames
are hidden states of the Conformer, 50 a second, from before the length adaptor; the last of them is the Conformer's own output.

The Conformer keeps apart what is padded. Of the length adaptor the forward pass is our own over transformers' modules, whose
convolutions would read what the Conformer gave for the padding. A waveform whose end would not fill a window is completed with
zeros (at most 10 ms), and an odd number of windows with one at the mean of its bands; transformers drops or masks them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stapes.encoders.layers import Windows, key_mask
from stapes.encoders.pretrained import Layer, PretrainedEncoder, configuration
from stapes.types import SAMPLE_RATE_HZ, Audio, Padded

FILTERBANK = Windows(frame_samples=400, hop_samples=160)
STACKED = 2  # windows in one feature vector
FEWEST_SAMPLES = 560  # two windows: the variance of a band needs two values


class SeamlessEncoder(PretrainedEncoder):
    """The speech encoder of a SeamlessM4T v2 checkpoint.

    Args:
        weights: sources tried in order (``hf:facebook/seamless-m4t-v2-large``, ``path:...``).
        layer: see ``PretrainedEncoder``; None is behind the length adaptor.
    """

    prefixes = ("speech_encoder.",)
    max_seconds = 30.0  # ours
    padding_is_safe = True

    def __init__(self, weights: str | Sequence[str] = "hf:facebook/seamless-m4t-v2-large", layer: Layer = None) -> None:
        super().__init__(weights, layer=layer)

    def set_up(self, folder: Path, layer: Layer = None) -> None:
        """See ``PretrainedEncoder``."""
        from transformers import SeamlessM4TFeatureExtractor
        from transformers.models.seamless_m4t_v2.modeling_seamless_m4t_v2 import SeamlessM4Tv2SpeechEncoder

        config = self.config = configuration(folder, "seamless_m4t_v2")
        self.encoder = SeamlessM4Tv2SpeechEncoder(config)
        self.features = SeamlessM4TFeatureExtractor(stride=STACKED)  # the checkpoints' own is of these settings, too
        self.dim = config.hidden_size
        self.choose_layer(layer, config.speech_encoder_layers)
        self.adaptors = [] if layer is not None or self.encoder.adapter is None else list(self.encoder.adapter.layers)
        stride = config.adaptor_stride ** len(self.adaptors)
        self.seconds_per_frame = stride * STACKED * FILTERBANK.hop_samples / SAMPLE_RATE_HZ

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Frames per waveform (B,): ceil(windows / 2), and of these 1 + floor(T / 8) behind the length adaptor."""
        lengths = self._feature_lengths(lengths)
        for layer in self.adaptors:
            lengths = self._adapted_lengths(layer, lengths)
        return lengths

    def _feature_lengths(self, lengths: Tensor) -> Tensor:
        return -(-FILTERBANK.frames(lengths.clamp(min=FEWEST_SAMPLES)) // STACKED)

    def _adapted_lengths(self, layer: Any, lengths: Tensor) -> Tensor:
        conv = layer.residual_conv
        return 1 + (lengths + 2 * conv.padding[0] - conv.kernel_size[0]) // conv.stride[0]

    def encode(self, audio: Audio) -> Padded:
        """(B, N) -> (B, T, E) at 6.25 frames a second, or 50 with ``layer``; see ``Encoder.encode``."""
        model, lengths = self.encoder, self._feature_lengths(audio.lengths)
        features = self.filterbank(audio).to(audio.samples.device, model.feature_projection.projection.weight.dtype)
        hidden = model.feature_projection(features)
        mask = Padded(hidden, lengths).mask
        allowed = mask[:, None, None]
        if model.config.speech_encoder_chunk_size is not None:
            allowed = model.encoder._apply_chunk_attention(mask, hidden)
        keys = torch.zeros_like(allowed, dtype=hidden.dtype).masked_fill(~allowed, torch.finfo(hidden.dtype).min)

        def step(layer: Any, hidden: Tensor) -> Tensor:
            return layer(hidden, attention_mask=keys, conv_attention_mask=mask)

        hidden = self.through_layers(hidden, model.encoder.layers, step, model.encoder.layer_norm)
        if self.layer is None:
            hidden = hidden + 0.5 * model.intermediate_ffn(hidden)
            for layer in self.adaptors:
                hidden, lengths = self._adapt(layer, Padded(hidden, lengths))
            hidden = model.inner_layer_norm(hidden)
        return Padded(hidden, lengths).zero_padding()

    def filterbank(self, audio: Audio) -> Tensor:
        """(B, T, 160) features as transformers' extractor computes them, on the CPU; zeros in the padding."""
        rows = []
        for samples, length in zip(audio.samples.cpu(), audio.lengths.tolist(), strict=True):
            windows = FILTERBANK.frames(torch.tensor([max(length, FEWEST_SAMPLES)]))
            waveform = FILTERBANK.complete(samples[None, :length], windows)[0].numpy().astype(np.float32)
            found = self.features(waveform, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
            rows.append(found.input_features[0].float())
        return Padded.from_rows(rows).values

    def _adapt(self, layer: Any, hidden: Padded) -> tuple[Tensor, Tensor]:
        """One layer of the length adaptor: (B, T, E) -> (B, 1 + T // 8, E), and the new lengths."""

        def pool(norm: Any, conv: Any) -> Tensor:
            normed = norm(hidden.values).masked_fill(~hidden.mask[:, :, None], 0.0)
            return layer.activation(conv(normed.mT)).mT

        lengths = self._adapted_lengths(layer, hidden.lengths)
        residual = pool(layer.residual_layer_norm, layer.residual_conv)
        pooled = pool(layer.self_attn_layer_norm, layer.self_attn_conv)
        keys = key_mask(Padded(pooled, lengths).mask, pooled.dtype)
        attended = layer.self_attn(pooled, attention_mask=keys)[0] + residual
        return attended + layer.ffn(layer.ffn_layer_norm(attended)), lengths
