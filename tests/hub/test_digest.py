import hashlib
from pathlib import Path

import pytest
import torch

from stapes.errors import WeightsError
from stapes.hub import digest
from stapes.hub.digest import file_sha256

GENERATOR = torch.Generator().manual_seed(0)
TENSORS = {
    "b.weight": torch.randn(3, 4, generator=GENERATOR).half(),
    "a.weight": torch.randn(2, generator=GENERATOR).half(),
    "scalar": torch.tensor(1.5).half(),
}


def test_is_the_sha256_of_names_shapes_and_values():
    by_hand = hashlib.sha256()
    for name in ("a.weight", "b.weight", "scalar"):
        by_hand.update(f"{name} {list(TENSORS[name].shape)}\n".encode() + TENSORS[name].numpy().tobytes())
    assert digest(TENSORS) == by_hand.hexdigest()


def test_order_memory_layout_and_exact_widening_do_not_matter():
    expected = digest(TENSORS)
    assert digest(dict(reversed(TENSORS.items()))) == expected
    assert digest({name: tensor.float() for name, tensor in TENSORS.items()}) == expected
    assert digest({name: tensor.double() for name, tensor in TENSORS.items()}) == expected
    assert digest({**TENSORS, "b.weight": TENSORS["b.weight"].t().contiguous().t()}) == expected
    assert digest({name: torch.nn.Parameter(tensor) for name, tensor in TENSORS.items()}) == expected


def test_wrappers_of_names_do_not_matter():
    for wrapper in ("model.", "module.", "_orig_mod.", "module._orig_mod.model."):
        assert digest({wrapper + name: tensor for name, tensor in TENSORS.items()}) == digest(TENSORS)


def test_names_shapes_values_and_bfloat16_matter():
    changed = {
        "name": {**{k: v for k, v in TENSORS.items() if k != "scalar"}, "scaler": TENSORS["scalar"]},
        "shape": {**TENSORS, "b.weight": TENSORS["b.weight"].reshape(4, 3)},
        "value": {**TENSORS, "scalar": torch.nextafter(TENSORS["scalar"], torch.tensor(2.0).half())},
        "missing": {k: v for k, v in TENSORS.items() if k != "scalar"},
        "bfloat16": {name: tensor.bfloat16() for name, tensor in TENSORS.items()},
    }
    digests = {name: digest(tensors) for name, tensors in changed.items()}
    assert digest(TENSORS) not in digests.values()
    assert len(set(digests.values())) == len(digests)


def test_two_names_that_become_one_are_refused():
    with pytest.raises(WeightsError, match="same canonical name"):
        digest({"model.a": TENSORS["scalar"], "a": TENSORS["scalar"]})


def test_file(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"abc" * 1000)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(b"abc" * 1000).hexdigest()
