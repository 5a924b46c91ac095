"""Whisper's encoder (arXiv 2212.04356), of any size, with or without its 30-second window.

Whisper was trained on inputs padded to 30 s. ``window: 30s`` does the same (as SENSE-ASR, arXiv 2509.04473, does): every
utterance gives 1500 frames and the silence after it is content. ``window: none``, the default, encodes what is there: the
position table is sliced, keys in the padding are masked, padding is zeroed before each convolution, and a short tail of
silence stands where the model expects speech to have ended. It is an order of magnitude cheaper for short audio. What it
costs in accuracy is measured in docs/results.md.

The forward pass is our own over the checkpoint's modules: transformers' refuses anything but 3000 mel frames and ignores masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from stapes.encoders.pretrained import Layer, PretrainedEncoder, configuration
from stapes.errors import RecipeError
from stapes.types import SAMPLE_RATE_HZ, Audio, Padded

HOP_SAMPLES = 160
FFT_SAMPLES = 400
FRAME_SAMPLES = 2 * HOP_SAMPLES  # the second convolution has stride 2
WINDOW_SECONDS = 30.0
TAIL_SECONDS = 0.32  # ours: long enough for the last sound to end, short enough to cost nothing


Window = Literal["none", "30s"]


class WhisperEncoder(PretrainedEncoder):
    """The encoder half of a Whisper checkpoint.

    Args:
        weights: sources tried in order (``pack:whisper-base``, ``hf:openai/whisper-base``, ``path:...``).
        window: "none" encodes the utterance as long as it is; "30s" pads every one to 30 s, as Whisper was trained.
        layer: see ``PretrainedEncoder``.
    """

    prefixes = ("model.encoder.", "encoder.")
    seconds_per_frame = FRAME_SAMPLES / SAMPLE_RATE_HZ
    max_seconds = WINDOW_SECONDS
    padding_is_safe = True
    mel_filters: Tensor
    taper: Tensor

    def __init__(
        self, weights: str | Sequence[str] = "hf:openai/whisper-base", window: Window = "none", layer: Layer = None
    ) -> None:
        super().__init__(weights, window=window, layer=layer)

    def set_up(self, folder: Path, window: Window = "none", layer: Layer = None) -> None:
        """See ``PretrainedEncoder``."""
        from transformers import WhisperFeatureExtractor
        from transformers.models.whisper.modeling_whisper import WhisperEncoder as Module

        if window not in ("none", "30s"):
            raise RecipeError("encoder.window", repr(window), "none or 30s")
        self.window = window
        config = self.config = configuration(folder, "whisper")
        self.encoder = Module(config)
        self.features = WhisperFeatureExtractor(feature_size=config.num_mel_bins)
        self.dim = config.d_model
        self.choose_layer(layer, config.encoder_layers)
        self.register_buffer("mel_filters", torch.from_numpy(self.features.mel_filters).float(), persistent=False)
        self.register_buffer("taper", torch.hann_window(FFT_SAMPLES), persistent=False)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Frames per waveform (B,): with the tail, at 50 a second, at most 1500; always 1500 with ``window: 30s``."""
        most = int(WINDOW_SECONDS / self.seconds_per_frame)
        if self.window == "30s":
            return torch.full_like(lengths, most)
        return (-(-(lengths + int(TAIL_SECONDS * SAMPLE_RATE_HZ)) // FRAME_SAMPLES)).clamp(max=most)

    def encode(self, audio: Audio) -> Padded:
        """(B, N) -> (B, T, E) at 50 frames a second; see ``Encoder.encode``."""
        lengths = self.output_lengths(audio.lengths)
        mel = self.log_mel(audio, lengths)
        dtype = self.encoder.conv1.weight.dtype
        mask = Padded(mel, 2 * lengths).mask
        hidden = F.gelu(self.encoder.conv1((mel * mask[:, :, None]).to(dtype).mT)).mT
        # The first convolution's bias has filled the padding; the second one would read it.
        hidden = F.gelu(self.encoder.conv2((hidden * mask[:, :, None]).mT)).mT
        hidden = hidden + self.encoder.embed_positions.weight[: hidden.shape[1]]
        mask = Padded(hidden, lengths).mask
        attention_mask = None if bool(mask.all()) else mask[:, None, None, :]
        step = partial(_layer, attention_mask=attention_mask)
        hidden = self.through_layers(hidden, self.encoder.layers, step, self.encoder.layer_norm)
        return Padded(hidden, lengths).zero_padding()

    def log_mel(self, audio: Audio, lengths: Tensor) -> Tensor:
        """Whisper's log-mel features (B, 2 T, M) for ``lengths`` output frames, each utterance normalised by its own peak."""
        size = 2 * int(lengths.max()) * HOP_SAMPLES
        # Zeros up to half an FFT window past the last frame, so that no frame can tell the batch's padding from the tail.
        samples = F.pad(audio.samples, (0, max(0, size + FFT_SAMPLES - audio.samples.shape[1])))[:, : size + FFT_SAMPLES]
        samples = F.pad(samples[:, None].float(), (FFT_SAMPLES // 2, 0), mode="reflect")[:, 0]
        spectrum = torch.stft(samples, FFT_SAMPLES, HOP_SAMPLES, window=self.taper, center=False, return_complex=True)
        power = spectrum.abs().square()[:, :, : 2 * int(lengths.max())]
        with torch.autocast(power.device.type, enabled=False):
            mel = (self.mel_filters.T @ power).clamp(min=1e-10).log10().mT
        real = Padded(mel, 2 * lengths).mask[:, :, None]
        peak = mel.masked_fill(~real, -torch.inf).amax(dim=(1, 2), keepdim=True)
        return (torch.maximum(mel, peak - 8.0) + 4.0) / 4.0


def _layer(layer: Any, hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
    """One pre-norm Transformer layer of Whisper: (B, T, E) -> (B, T, E); mask (B, 1, 1, T) true where a key is real."""
    attention = layer.self_attn
    normed = _narrow(layer.self_attn_layer_norm(hidden))
    query, key, value = (
        project(normed).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
    hidden = hidden + attention.out_proj(mixed.transpose(1, 2).flatten(2))
    return hidden + layer.fc2(F.gelu(layer.fc1(_narrow(layer.final_layer_norm(hidden)))))


def _narrow(values: Tensor) -> Tensor:
    """In autocast's precision where it is on: once for all that read them, and not again for each projection and its LoRA."""
    kind = values.device.type
    return values.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else values
