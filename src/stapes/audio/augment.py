"""Changes of sound and of features that make a little training data count for more.

Everything is drawn from a NumPy generator that the caller seeds: the same seed gives the same change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from stapes.audio.read import resample
from stapes.errors import AudioError, RecipeError
from stapes.types import Padded


@dataclass(frozen=True)
class Augmentation:
    """How waveforms are changed in training.

    Attributes:
        speeds: factors to draw from, each as likely (Ko et al. 2015: 0.9, 1.0, 1.1).
        noise_probability: share of the utterances that get noise.
        snr_db: lowest and highest ratio of speech to noise, in dB.
    """

    speeds: tuple[float, ...] = (0.9, 1.0, 1.1)
    noise_probability: float = 0.0
    snr_db: tuple[float, float] = (5.0, 20.0)

    def __post_init__(self) -> None:
        if not self.speeds or not all(0.5 <= factor <= 2.0 for factor in self.speeds):
            raise RecipeError("speeds", f"{self.speeds}", "factors from 0.5 to 2")
        if not 0.0 <= self.noise_probability <= 1.0:
            raise RecipeError("noise_probability", f"{self.noise_probability}", "0 to 1")
        if len(self.snr_db) != 2 or not self.snr_db[0] <= self.snr_db[1]:
            raise RecipeError("snr_db", f"{self.snr_db}", "a lowest and a highest value in dB")


def apply(samples: np.ndarray, rng: np.random.Generator, config: Augmentation, noises: Sequence[np.ndarray] = ()) -> np.ndarray:
    """Change the speed of (N,) float32 samples and add noise to them, each as drawn from ``rng``.

    Args:
        samples: (N,) float32 at 16 kHz.
        rng: such as ``np.random.default_rng((seed, epoch, index))``.
        config: what may be drawn.
        noises: clips of (M,) float32 at 16 kHz, any lengths; without any, no noise is added.

    Returns:
        (N',) float32; N' differs from N where the speed does.
    """
    factor = float(rng.choice(config.speeds))
    noisy = rng.random() < config.noise_probability
    samples = speed(samples, factor)
    if noisy and noises:
        noise = noises[int(rng.integers(len(noises)))]
        samples = add_noise(samples, noise, float(rng.uniform(*config.snr_db)), rng)
    return samples


def speed(samples: np.ndarray, factor: float) -> np.ndarray:
    """Play (N,) float32 samples ``factor`` times as fast, pitch included, by resampling; N becomes about N / factor.

    The factor is rounded to a ratio of integers up to 100. Source: Ko et al. 2015, "Audio augmentation for speech recognition".
    """
    if not 0.1 <= factor <= 10.0:
        raise AudioError("speed", f"factor {factor}", "0.1 to 10")
    ratio = Fraction(factor).limit_denominator(100)
    return resample(samples, ratio.numerator, ratio.denominator)


def add_noise(samples: np.ndarray, noise: np.ndarray, snr_db: float, rng: np.random.Generator) -> np.ndarray:
    """Mix noise into (N,) float32 samples, so that their mean power stands ``snr_db`` dB above the noise's.

    Args:
        samples: (N,) float32; nothing is added to silence.
        noise: (M,) float32 at the same rate. A longer clip is cut at a random place, a shorter one repeated from a random one.
        snr_db: ratio of powers over the whole utterance, in dB.
        rng: draws the place.

    Returns:
        (N,) float32, not clipped.
    """
    if not len(noise):
        raise AudioError("noise", "holds no samples")
    if len(noise) > len(samples):
        begin = int(rng.integers(len(noise) - len(samples) + 1))
        stretch = noise[begin : begin + len(samples)]
    else:
        stretch = np.resize(np.roll(noise, -int(rng.integers(len(noise)))), len(samples))
    speech_power, noise_power = _power(samples), _power(stretch)
    if not speech_power or not noise_power:
        return samples
    gain = math.sqrt(speech_power / noise_power) * 10.0 ** (-snr_db / 20.0)
    mixed: np.ndarray = samples + np.float32(gain) * stretch.astype(np.float32, copy=False)
    return mixed


def _power(samples: np.ndarray) -> float:
    return float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0


def mask_features(
    frames: Padded,
    rngs: Sequence[np.random.Generator],
    *,
    time_masks: int = 2,
    max_time_frames: int = 50,
    max_time_ratio: float = 0.1,
    feature_masks: int = 2,
    max_feature_width: int = 32,
) -> Padded:
    """Set random stretches of time and random bands of features to zero, in each utterance others.

    SpecAugment's masking (Park et al. 2019, arXiv 1904.08779, section 2) on an encoder's features in place of mel bins.
    At most half of the frames and half of the features are masked, however many masks are asked for. The lengths stay.

    Args:
        frames: (B, T, E), not modified.
        rngs: draw the masks, each those of one utterance.
        time_masks: how many stretches of frames.
        max_time_frames: a stretch has 0 to this many frames,
        max_time_ratio: and at most this share of T.
        feature_masks: how many bands.
        max_feature_width: a band has 0 to this many features.

    Returns:
        (B, T, E), a masked copy.
    """
    count, longest, width = frames.values.shape
    times, features = np.zeros((count, longest, 1), dtype=bool), np.zeros((count, 1, width), dtype=bool)
    for row, (rng, length) in enumerate(zip(rngs, frames.lengths.tolist(), strict=True)):
        for start, end in _spans(rng, length, time_masks, min(max_time_frames, int(max_time_ratio * length))):
            times[row, start:end] = True
        for start, end in _spans(rng, width, feature_masks, max_feature_width):
            features[row, :, start:end] = True
    device = frames.values.device
    masked = torch.from_numpy(times).to(device) | torch.from_numpy(features).to(device)
    return Padded(frames.values.masked_fill(masked, 0.0), frames.lengths)


def _spans(rng: np.random.Generator, total: int, count: int, longest: int) -> list[tuple[int, int]]:
    """``count`` spans of 0 to ``longest`` positions out of ``total``, no more than half of which they may cover together."""
    spans, budget = [], total // 2
    for _ in range(count):
        length = int(rng.integers(min(longest, budget) + 1))
        start = int(rng.integers(total - length + 1))
        spans.append((start, start + length))
        budget -= length
    return spans
