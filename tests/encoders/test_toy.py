"""The toy encoder hears what it says it hears."""

from pathlib import Path

import numpy as np
import pytest
import torch

from stapes.encoders.toy import ToyEncoder
from stapes.errors import CheckpointError
from stapes.types import Audio


@pytest.mark.parametrize(("hz", "band"), [(200, 0), (1250, 2), (4250, 8), (7800, 15)])
def test_a_tone_is_loudest_in_its_band(hz: int, band: int):
    """16 bands of 500 Hz."""
    tone = 0.3 * np.sin(2 * np.pi * hz * np.arange(16_000) / 16_000)
    found = ToyEncoder()(Audio.from_arrays([tone]))
    assert found.values.shape == (1, 50, 16)
    assert (found.values[0].argmax(-1) == band).all()


def test_silence_is_the_lowest_value():
    found = ToyEncoder()(Audio.from_arrays([np.zeros(640), 0.1 * np.ones(640)])).values
    assert found[0].isfinite().all()
    assert (found[0] <= found[1]).all()
    assert torch.equal(found[0, 0], found[0, 1])


def test_it_has_no_weights_to_save(tmp_path: Path):
    with pytest.raises(CheckpointError, match="ToyEncoder: cannot write its weights, expected an encoder with a method `save`"):
        ToyEncoder().save(tmp_path / "saved")
