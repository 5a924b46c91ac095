from pathlib import Path

import numpy as np
import pytest

RATE = 16_000
EXAMPLES = Path(__file__).parents[2] / "examples" / "audio"


@pytest.fixture(scope="session")
def chirp():
    """chirp(rate): 4 s from 200 to 3000 Hz at -6 dBFS, (N,) float32: every instant differs from every other."""

    def build(rate: int = RATE) -> np.ndarray:
        time = np.arange(4 * rate) / rate
        return (0.5 * np.sin(2 * np.pi * (200 * time + (3000 - 200) / (2 * 4) * time**2))).astype(np.float32)

    return build


@pytest.fixture(scope="session")
def speech():
    """Five read sentences, each (N,) float32 at 16 kHz."""
    from stapes.audio import read

    paths = sorted(path for path in EXAMPLES.glob("*") if path.suffix in (".wav", ".flac", ".ogg", ".opus"))
    if not paths:
        pytest.skip(f"no speech in {EXAMPLES}")
    return [read(path) for path in paths]
