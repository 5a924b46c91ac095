import struct
from pathlib import Path

import numpy as np
import pytest

from stapes.errors import WeightsError
from stapes.hub.ctranslate2 import read_ctranslate2

VARIABLES = {
    "a/weight": np.arange(6, dtype=np.float16).reshape(2, 3),
    "b": np.array([1.5], dtype=np.float32),
    "flag": np.array(1, dtype=np.int8),
    "heads": np.array(6, dtype=np.int16),
}


def test_reads_names_types_shapes_and_values(tmp_path: Path, model_bin):
    path = tmp_path / "model.bin"
    path.write_bytes(model_bin(VARIABLES, "ToySpec"))
    specification, variables = read_ctranslate2(path)
    assert specification == "ToySpec"
    assert variables.keys() == VARIABLES.keys()
    for name, values in VARIABLES.items():
        assert variables[name].numpy().dtype == values.dtype
        np.testing.assert_array_equal(variables[name].numpy(), values)


def test_every_cut_within_the_variables_is_refused(tmp_path: Path, model_bin):
    path = tmp_path / "model.bin"
    data = model_bin({"a/weight": VARIABLES["a/weight"]})
    end = data.index(VARIABLES["a/weight"].tobytes()) + VARIABLES["a/weight"].nbytes
    for size in range(end):
        path.write_bytes(data[:size])
        with pytest.raises(WeightsError, match=f"ends at byte {size}"):
            read_ctranslate2(path)


def test_other_versions_and_impossible_variables_are_refused(tmp_path: Path, model_bin):
    path = tmp_path / "model.bin"
    path.write_bytes(model_bin(VARIABLES, version=5))
    with pytest.raises(WeightsError, match="version 5, expected a CTranslate2 file of version 6"):
        read_ctranslate2(path)
    shape = struct.pack("<BII", 2, 2, 3)
    path.write_bytes(model_bin(VARIABLES).replace(shape, struct.pack("<BII", 2, 2**31, 2**31), 1))
    with pytest.raises(WeightsError, match="expected one that fits"):
        read_ctranslate2(path)
