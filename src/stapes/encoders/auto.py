"""Any speech model that transformers loads, whatever its layers are: w2v-BERT 2.0, data2vec, SEW, UniSpeech, Parakeet ...

Nothing is known of such a model but what can be tried. Its input is what the checkpoint's own feature extractor makes; width
and frame rate come from running it on noise, and the number of frames of an utterance from running it on silence of that
length. It may read padding, so utterances of different lengths are encoded apart (``padding_is_safe``), which is slower. Zeros
for one frame stand behind each waveform, since transformers drops what fills no frame: of them, that is, and not of the sound.

Code from a checkpoint's repository is not run: a model that transformers itself does not have needs a class of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from stapes import hub
from stapes.encoders.pretrained import Layer, PretrainedEncoder, configuration
from stapes.errors import RecipeError, WeightsError
from stapes.types import SAMPLE_RATE_HZ, Audio, Padded

TRIED_SAMPLES = 32_000
STEP_SAMPLES = 122_880  # added to it: 2 ** 13 * 15, so that the rate is found exactly where this is a multiple of the hop
FEWEST_SAMPLES = 1600  # ours: shorter waveforms are completed with zeros, which some models cannot do without


class AutoEncoder(PretrainedEncoder):
    """The speech encoder in a checkpoint that ``transformers.AutoModel`` opens.

    Args:
        weights: sources tried in order (``hf:facebook/w2v-bert-2.0``, ``path:...``).
        layer: see ``PretrainedEncoder``; hidden states are those that the model itself gives.
        max_seconds: the longest utterance to give it.
    """

    config_files = ("config.json", "preprocessor_config.json")
    padding_is_safe = False

    def __init__(self, weights: str | Sequence[str], layer: Layer = None, max_seconds: float = 30.0) -> None:
        super().__init__(weights, layer=layer, max_seconds=max_seconds)

    def set_up(self, folder: Path, layer: Layer = None, max_seconds: float = 30.0) -> None:
        """See ``PretrainedEncoder``; the module stays on the meta device until ``load`` replaces it."""
        from transformers import AutoFeatureExtractor, AutoModel

        self.config, self.wanted_layer, self.max_seconds = configuration(folder), layer, max_seconds
        if hasattr(self.config, "mask_time_prob"):  # for pretraining; without it no tensor is of use to masks only
            self.config.update({"mask_time_prob": 0.0, "mask_feature_prob": 0.0})
        try:
            self.features = AutoFeatureExtractor.from_pretrained(folder)
            with torch.device("meta"):
                self.encoder = _speech_encoder(AutoModel.from_config(self.config))
        except (OSError, ValueError, ImportError) as error:
            raise _cannot_open(folder, error) from error
        if self.features.sampling_rate != SAMPLE_RATE_HZ:
            raise WeightsError(folder, f"a model of {self.features.sampling_rate} Hz", f"one of {SAMPLE_RATE_HZ} Hz")

    @classmethod
    def outline(cls, folder: Path, **options: Any) -> Self:
        """See ``PretrainedEncoder``."""
        found = super().outline(folder, **options)
        found.measure()
        return found

    def load(self, found: hub.Weights) -> None:
        """See ``PretrainedEncoder``."""
        from transformers import AutoModel

        try:
            model, report = AutoModel.from_pretrained(
                found.folder, config=self.config, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
            )
        except (OSError, ValueError, ImportError) as error:
            raise _cannot_open(found.source, error) from error
        self.encoder = _speech_encoder(model)
        (place,) = (name for name, module in model.named_modules() if module is self.encoder)
        self.prefixes = (f"{place}." if place else "",)
        own = {id(tensor) for tensor in self.encoder.state_dict(keep_vars=True).values()}
        names = {name for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in own}
        misfits = [name for name in report["missing_keys"] if name in names]
        misfits += [entry[0] for entry in report["mismatched_keys"] if entry[0] in names]
        if misfits:
            listed = ", ".join(sorted(misfits)[:5])
            raise WeightsError(found.source, f"encoder tensors that do not fit: {listed}", "all that its config describes")
        self.eval()
        self.measure()

    def measure(self) -> None:
        """Find out width, frame rate and layers by running the encoder on noise of two lengths.

        Raises:
            WeightsError: no frames come out.
            RecipeError: there is no such layer, or the layers are of different rates and cannot be mixed.
        """
        self._frames: dict[int, int] = {}
        noise = 0.1 * torch.randn(1, TRIED_SAMPLES + STEP_SAMPLES, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            try:
                short, long = self.states(noise[:, :TRIED_SAMPLES]), self.states(noise)
            except (TypeError, ValueError, RuntimeError, AttributeError) as error:
                raise _cannot_open(self.source or type(self.encoder).__name__, error) from error
        self.choose_layer(self.wanted_layer, len(short) - 1)
        if self.layer_weights is not None and len({state.shape for state in long}) > 1:
            raise RecipeError("encoder.layer", "weighted, of layers that differ in size or rate", "a layer's number, or none")
        first, last = short[self.depth].shape[1], long[self.depth].shape[1]
        self.dim = long[self.depth].shape[2]
        if last > first:
            self.seconds_per_frame = STEP_SAMPLES / (last - first) / SAMPLE_RATE_HZ
        else:  # every input is padded to a window
            self.seconds_per_frame = getattr(self.features, "n_samples", TRIED_SAMPLES + STEP_SAMPLES) / last / SAMPLE_RATE_HZ

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Frames per waveform (B,), found by encoding silence of that length the first time that it is asked for."""
        for length in lengths.unique().tolist():
            if length not in self._frames:
                with torch.inference_mode():
                    self._frames[length] = self.states(self.completed(torch.zeros(1, length)))[self.depth].shape[1]
        return torch.tensor([self._frames[length] for length in lengths.tolist()], device=lengths.device)

    def encode(self, audio: Audio) -> Padded:
        """(B, N), all of one length -> (B, T, E); see ``Encoder.encode``."""
        states = self.states(self.completed(audio.samples))
        frames = states[self.depth] if self.layer_weights is None else self.mix(states)
        self._frames[audio.samples.shape[1]] = frames.shape[1]
        return Padded(frames, torch.full_like(audio.lengths, frames.shape[1]))

    def completed(self, samples: Tensor) -> Tensor:
        """Waveforms (B, N) with the zeros of one frame behind them."""
        return torch.nn.functional.pad(samples, (0, round(self.seconds_per_frame * SAMPLE_RATE_HZ)))

    def states(self, samples: Tensor) -> list[Tensor]:
        """All hidden states (B, T, E) of waveforms (B, N) of one length; only the last where the model gives no others."""
        waveforms = torch.nn.functional.pad(samples.cpu(), (0, max(0, FEWEST_SAMPLES - samples.shape[1]))).numpy()
        with torch.autocast("cpu", enabled=False):  # some extractors compute with torch
            found = self.features(list(waveforms.astype(np.float32)), sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
        parameter = next(self.encoder.parameters())
        accepted = inspect.signature(self.encoder.forward).parameters
        inputs = {
            name: tensor.to(parameter.device, parameter.dtype if tensor.is_floating_point() else tensor.dtype)
            for name, tensor in found.items()
            if name in accepted and not (parameter.is_meta and "mask" in name)  # shapes do not depend on a mask's values
        }
        output = self.encoder(**inputs, output_hidden_states=True, return_dict=True)
        return [*(output.hidden_states or ())[:-1], output.last_hidden_state]


def _speech_encoder(model: Any) -> Any:
    """The part of a model that hears: its audio encoder, the encoder of an encoder-decoder, or all of it."""
    for name in ("speech_encoder", "audio_encoder", "audio_tower"):
        if hasattr(model, name):
            return getattr(model, name)
    return model.get_encoder() if getattr(model.config, "is_encoder_decoder", False) else model


def _cannot_open(where: object, error: Exception) -> WeightsError:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return WeightsError(
        where, f"no speech encoder that `auto` can use ({reason})", fix="write a class for it (docs/encoders.md)"
    )
