"""Sound: reading it, cutting it at pauses, changing it for training."""

from stapes.audio.augment import Augmentation, add_noise, apply, mask_features, speed
from stapes.audio.read import duration_seconds, read, resample
from stapes.audio.segment import Segment, find_speech, split

__all__ = [
    "Augmentation",
    "Segment",
    "add_noise",
    "apply",
    "duration_seconds",
    "find_speech",
    "mask_features",
    "read",
    "resample",
    "speed",
    "split",
]
