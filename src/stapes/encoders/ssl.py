"""Self-supervised encoders: wav2vec 2.0 (arXiv 2006.11477), HuBERT (2106.07447) and WavLM (2110.13900), of any size.

Convolutions over the waveform, 50 frames a second, a convolution for positions, Transformer layers. What these models have
learnt lies in different layers (SUPERB, arXiv 2105.01051), for recognition often below the top: see ``layer``.

The forward pass is our own over transformers' modules, so that an utterance does not feel its neighbours: the group norm of the
smaller models averages over the utterance alone, padding is zeroed before the positional convolution, and its keys are masked.
What differs from transformers:

- a waveform whose end would not fill a frame is completed with zeros (at most 20 ms); transformers drops it;
- WavLM's attention uses the fused kernel, and its projections are called as modules, so that LoRA on them has an effect;
- the strided convolutions that some checkpoints add on top (``add_adapter``) are left out: adapters are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stapes import hub
from stapes.encoders.layers import Windows, group_norm, key_mask
from stapes.encoders.pretrained import Layer, PretrainedEncoder, configuration
from stapes.errors import WeightsError
from stapes.types import SAMPLE_RATE_HZ, Audio, Padded

KINDS = ("wav2vec2", "hubert", "wavlm")
NORMALISED = 1e-7  # beside the variance of a waveform, as in transformers' feature extractor


class SSLEncoder(PretrainedEncoder):
    """wav2vec 2.0, HuBERT or WavLM, whichever the checkpoint is.

    Args:
        weights: sources tried in order (``hf:microsoft/wavlm-large``, ``hf:facebook/hubert-large-ll60k``, ``path:...``).
        layer: see ``PretrainedEncoder``.

    Attributes:
        calls_projections_of: kinds of attention whose projections transformers passes by (see ``lora.find_targets``).
        normalise: whether each waveform is brought to zero mean and unit variance, as the checkpoint's preprocessor says.
    """

    prefixes = (*(f"{kind}." for kind in KINDS), "")
    unused = ("masked_spec_embed", "adapter.", "quantizer.", "project_hid.", "project_q.", "lm_head.")
    calls_projections_of = ("WavLMAttention",)
    max_seconds = 30.0  # ours: what these models were trained on is shorter
    padding_is_safe = True
    normalise: bool

    def __init__(self, weights: str | Sequence[str] = "hf:microsoft/wavlm-large", layer: Layer = None) -> None:
        super().__init__(weights, layer=layer)

    def set_up(self, folder: Path, layer: Layer = None) -> None:
        """See ``PretrainedEncoder``."""
        from transformers import AutoModel

        config = self.config = configuration(folder, *KINDS)
        # Masks are for pretraining; without them the module has no tensor that only they use.
        config.update({"mask_time_prob": 0.0, "mask_feature_prob": 0.0, "add_adapter": False})
        self.encoder = AutoModel.from_config(config)
        self.dim = config.hidden_size
        self.windows = Windows.of(config.conv_kernel, config.conv_stride)
        self.seconds_per_frame = self.windows.hop_samples / SAMPLE_RATE_HZ
        self.choose_layer(layer, config.num_hidden_layers)

    def load(self, found: hub.Weights) -> None:
        """See ``PretrainedEncoder``; reads the preprocessor's settings, too."""
        from transformers import Wav2Vec2FeatureExtractor

        name = "preprocessor_config.json"
        try:
            self.features = Wav2Vec2FeatureExtractor.from_pretrained(found.folder)
        except (OSError, ValueError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            expected = f"{name} of this checkpoint, which says whether waveforms are normalised"
            raise WeightsError(found.source, f"{name} cannot be read ({reason})", expected) from error
        self.normalise = self.features.do_normalize
        super().load(found)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Frames per waveform (B,): 1 + ceil((N - 400) / 320) with the usual convolutions, at least 1."""
        return self.windows.frames(lengths)

    def encode(self, audio: Audio) -> Padded:
        """(B, N) -> (B, T, E) at 50 frames a second; see ``Encoder.encode``."""
        model, lengths = self.encoder, self.output_lengths(audio.lengths)
        samples = self.waveform(audio, lengths).to(model.feature_projection.projection.weight.dtype)
        hidden = _first(model.feature_projection(self.convolve(samples, lengths).mT))
        mask = Padded(hidden, lengths).mask
        hidden = hidden.masked_fill(~mask[:, :, None], 0.0)
        hidden = hidden + self.positions(hidden, mask)
        is_pre_norm = model.config.do_stable_layer_norm
        if not is_pre_norm:
            hidden = model.encoder.layer_norm(hidden)
        norm = model.encoder.layer_norm if is_pre_norm else torch.nn.Identity()
        keys = key_mask(mask, hidden.dtype)
        if model.config.model_type == "wavlm":
            bias = model.encoder.layers[0].attention.compute_bias(hidden.shape[1], hidden.shape[1])[None]

            def step(layer: Any, hidden: Tensor) -> Tensor:
                return _wavlm_layer(layer, hidden, keys, bias, is_pre_norm)
        else:

            def step(layer: Any, hidden: Tensor) -> Tensor:
                return _first(layer(hidden, attention_mask=keys))

        return Padded(self.through_layers(hidden, model.encoder.layers, step, norm), lengths).zero_padding()

    def waveform(self, audio: Audio, lengths: Tensor) -> Tensor:
        """Samples (B, N') that ``lengths`` frames read, normalised if need be; zeros behind each waveform."""
        samples = audio.samples.float()
        if self.normalise:
            count = audio.lengths[:, None].to(samples.device)
            mask = torch.arange(samples.shape[1], device=samples.device) < count
            mean = samples.masked_fill(~mask, 0.0).sum(1, keepdim=True) / count
            centred = (samples - mean).masked_fill(~mask, 0.0)
            samples = centred / (centred.square().sum(1, keepdim=True) / count + NORMALISED).sqrt()
        return self.windows.complete(samples, lengths)

    def convolve(self, samples: Tensor, lengths: Tensor) -> Tensor:
        """(B, N') -> (B, channels, T) by the convolutions, none of which pads: no frame reads past its own window."""
        first, *others = self.encoder.feature_extractor.conv_layers
        hidden = samples[:, None]
        if self.encoder.config.feat_extract_norm == "group":
            hidden = first.conv(hidden)
            steps = 1 + (self.windows.samples(lengths) - first.conv.kernel_size[0]) // first.conv.stride[0]
            hidden = first.activation(group_norm(hidden, steps, first.layer_norm))
        else:
            hidden = first(hidden)
        for layer in others:
            hidden = layer(hidden)
        return hidden

    def positions(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(B, T, E) of the positional convolution, which sees zeros around the utterance."""
        embed = self.encoder.encoder.pos_conv_embed
        if getattr(embed, "batch_norm", None) is None:
            return embed(hidden)
        # Some HuBERT models shift the zeros of the padding before they are read.
        hidden = embed.batch_norm(hidden.mT).masked_fill(~mask[:, None], 0.0)
        return embed.activation(embed.padding(embed.conv(hidden))).mT


def _first(output: Any) -> Tensor:
    """What a module of transformers gives, alone or before other things."""
    return output[0] if isinstance(output, tuple) else output


def _wavlm_layer(layer: Any, hidden: Tensor, keys: Tensor, bias: Tensor, is_pre_norm: bool) -> Tensor:
    """One layer of WavLM: (B, T, E) -> (B, T, E); ``bias`` (1, heads, T, T) of relative positions, shared by all layers."""
    if is_pre_norm:
        hidden = hidden + _wavlm_attention(layer.attention, layer.layer_norm(hidden), keys, bias)
        return hidden + layer.feed_forward(layer.final_layer_norm(hidden))
    hidden = layer.layer_norm(hidden + _wavlm_attention(layer.attention, hidden, keys, bias))
    return layer.final_layer_norm(hidden + layer.feed_forward(hidden))


def _wavlm_attention(attention: Any, hidden: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
    """Attention whose bias of relative positions each query gates (WavLM, section 3.1)."""
    heads = hidden.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
    gates = attention.gru_rel_pos_linear(heads).unflatten(-1, (2, 4)).sum(-1).sigmoid()
    update, reset = gates.split(1, dim=-1)
    gate = update * (reset * attention.gru_rel_pos_const - 1.0) + 2.0
    query, key, value = (
        project(hidden).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=(gate * bias + keys).to(query.dtype))
    return attention.out_proj(mixed.transpose(1, 2).flatten(2))
