"""Speech encoders: waveform -> frames. One file a family; the table below is how a recipe finds them."""

from stapes.encoders.base import Encoder as Encoder
from stapes.registry import Table

ENCODERS = Table(
    "encoder",
    {
        "whisper": "stapes.encoders.whisper:WhisperEncoder",
        "ssl": "stapes.encoders.ssl:SSLEncoder",
        "seamless": "stapes.encoders.seamless:SeamlessEncoder",
        "moonshine": "stapes.encoders.moonshine:MoonshineEncoder",
        "auto": "stapes.encoders.auto:AutoEncoder",
        "toy": "stapes.encoders.toy:ToyEncoder",
    },
)
