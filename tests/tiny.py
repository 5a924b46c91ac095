"""Random speech encoders of transformers' classes, two narrow layers each, saved as a checkpoint is: the same at every call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
# Windows of 400 samples, 320 apart, as in the real models.
WAVE = SIZES | {"conv_dim": [8] * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
BASE = WAVE | {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False}
LARGE = WAVE | {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}


def _whisper() -> tuple[nn.Module, Any]:
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    config = WhisperConfig(
        d_model=32,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_layers=1,
        decoder_attention_heads=4,
        decoder_ffn_dim=48,
        vocab_size=100,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    return WhisperModel(config), WhisperFeatureExtractor()


def _wave(kind: str, options: dict[str, Any], do_normalize: bool = True) -> tuple[nn.Module, Any]:
    from transformers import AutoConfig, AutoModel, Wav2Vec2FeatureExtractor

    extractor = Wav2Vec2FeatureExtractor(do_normalize=do_normalize, return_attention_mask=False)
    return AutoModel.from_config(AutoConfig.for_model(kind, **options)), extractor


def _wav2vec2_ctc() -> tuple[nn.Module, Any]:
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    return Wav2Vec2ForCTC(Wav2Vec2Config(**LARGE, vocab_size=5)), Wav2Vec2FeatureExtractor(return_attention_mask=True)


def _seamless() -> tuple[nn.Module, Any]:
    from transformers import SeamlessM4TFeatureExtractor, SeamlessM4Tv2Config, SeamlessM4Tv2ForSpeechToText

    config = SeamlessM4Tv2Config(
        hidden_size=16,
        speech_encoder_layers=2,
        speech_encoder_attention_heads=2,
        speech_encoder_intermediate_size=24,
        conv_depthwise_kernel_size=5,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=16,
        encoder_layers=1,
        encoder_attention_heads=2,
        encoder_ffn_dim=16,
        vocab_size=20,
    )
    return SeamlessM4Tv2ForSpeechToText(config), SeamlessM4TFeatureExtractor()


def _moonshine() -> tuple[nn.Module, Any]:
    from transformers import MoonshineConfig, MoonshineForConditionalGeneration, Wav2Vec2FeatureExtractor

    heads = {f"{side}_num_{of}": 2 for side in ("encoder", "decoder") for of in ("attention_heads", "hidden_layers")}
    config = MoonshineConfig(vocab_size=20, hidden_size=16, intermediate_size=24, **heads)
    return MoonshineForConditionalGeneration(config), Wav2Vec2FeatureExtractor(do_normalize=False)


def _w2v_bert() -> tuple[nn.Module, Any]:
    from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig, Wav2Vec2BertModel

    return Wav2Vec2BertModel(Wav2Vec2BertConfig(**SIZES, conv_depthwise_kernel_size=5)), SeamlessM4TFeatureExtractor()


KINDS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "whisper": _whisper,
    "wav2vec2-base": lambda: _wave("wav2vec2", BASE),
    "wav2vec2-ctc": _wav2vec2_ctc,
    "hubert-base": lambda: _wave("hubert", BASE | {"conv_pos_batch_norm": True}),
    "hubert-large": lambda: _wave("hubert", LARGE),
    "wavlm-base": lambda: _wave("wavlm", BASE | {"num_buckets": 32}, do_normalize=False),
    "wavlm-large": lambda: _wave("wavlm", LARGE | {"num_buckets": 32}),
    "seamless": _seamless,
    "moonshine": _moonshine,
    "w2v-bert": _w2v_bert,
}


def save(kind: str, folder: Path) -> Path:
    """Write a random model of ``KINDS``, every bias other than zero, in transformers' layout; returns ``folder``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, extractor = KINDS[kind]()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
            for name, buffer in model.named_buffers():
                if name.endswith("running_mean"):
                    buffer += 0.5
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder
