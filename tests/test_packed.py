"""Packed linear layers: the same function in inference, the layer itself everywhere else, and never old weights."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stapes import lora, packed
from stapes.packed import PackedLinear

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture
def layer() -> PackedLinear:
    """A packed layer of 256 x 256, the only child of its parent."""
    torch.manual_seed(0)
    parent = nn.Sequential(nn.Linear(256, 256))
    if not packed.pack(parent, without="nothing"):
        pytest.skip("this machine's PyTorch has no oneDNN to pack for")
    found = parent[0]
    assert isinstance(found, PackedLinear)
    return found


def inferred(module: nn.Module, values: Tensor) -> Tensor:
    with torch.inference_mode():
        return module(values).clone()


@pytest.mark.parametrize("shape", [(256,), (1, 256), (3, 17, 256), (2, 0, 256), (1, 500, 256)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_the_same_function(layer: PackedLinear, shape: tuple[int, ...], dtype: torch.dtype):
    plain = nn.Sequential(nn.Linear(256, 256)).to(dtype)
    with torch.no_grad():
        plain[0].weight.copy_(layer.weight)
        plain[0].bias.copy_(layer.bias)
    changed = copy.deepcopy(plain)
    packed.pack(changed, without="nothing")
    values = torch.randn(shape).to(dtype)
    wanted = F.linear(values.double(), plain[0].weight.double(), plain[0].bias.double())
    found = inferred(changed, values)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), wanted, **(CLOSE if dtype == torch.float32 else {"rtol": 0.02, "atol": 0.02}))


def test_the_copy_is_what_is_multiplied_in_inference_alone(layer: PackedLinear):
    values = torch.randn(4, 256)
    wanted = F.linear(values, layer.weight, layer.bias)
    layer._packed = torch.ops.mkldnn._reorder_linear_weight(torch.zeros(256, 256), 16)
    torch.testing.assert_close(inferred(layer, values), layer.bias.detach().expand(4, -1), **CLOSE)
    assert torch.equal(layer(values), wanted)
    with torch.no_grad():
        assert torch.equal(layer(values), wanted)
    layer(values).sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.any()


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: torch.optim.SGD(layer.parameters(), lr=1.0).step(),
        lambda layer: layer.load_state_dict({name: 2 * value for name, value in layer.state_dict().items()}),
        lambda layer: setattr(layer.weight, "data", layer.weight.data + 1),
        lambda layer: layer.to(torch.bfloat16),
        lambda layer: layer.double(),
    ],
    ids=["step", "load_state_dict", "data", "bfloat16", "float64"],
)
def test_old_weights_are_never_used(layer: PackedLinear, change: Callable[[PackedLinear], object]):
    values = torch.randn(4, 256)
    layer(values).sum().backward()
    change(layer)
    values = values.to(layer.weight.dtype)
    assert torch.equal(inferred(layer, values), F.linear(values, layer.weight, layer.bias))


def test_merged_lora_goes_off(layer: PackedLinear):
    """peft changes merged weights where no version counts it."""
    torch.manual_seed(1)
    model = nn.ModuleDict({"q_proj": nn.Linear(256, 256)})
    values = torch.randn(4, 256)
    base = model["q_proj"](values)
    lora.add(model, rank=4, targets=["q_proj"])
    with torch.no_grad():
        model["q_proj"].lora_B["default"].weight.normal_()  # type: ignore[index, union-attr]
    lora.merge(model)
    assert packed.pack(model, without=lora.MARK) == 1
    merged = inferred(model["q_proj"], values)
    assert (merged - base).abs().max() > 0.1
    with lora.disabled(model):
        torch.testing.assert_close(inferred(model["q_proj"], values), base, **CLOSE)
    torch.testing.assert_close(inferred(model["q_proj"], values), merged, **CLOSE)


def test_what_is_packed(monkeypatch: pytest.MonkeyPatch, layer: PackedLinear):
    def model() -> nn.ModuleDict:
        big = nn.Linear(256, 256)
        parts = {"big": big, "small": nn.Linear(16, 16), "narrow": nn.Linear(256, 256).half(), "other": nn.Linear(256, 256)}
        return nn.ModuleDict(parts)

    found = model()
    weight = found["big"].weight
    assert packed.pack(found, without="other") == 1
    assert isinstance(found["big"], PackedLinear) and found["big"].weight is weight
    assert set(found.state_dict()) == set(model().state_dict())
    assert packed.pack(found, without="other") == 0, "it is packed already"
    monkeypatch.setattr(packed, "MOST_BYTES", 256 * 256 * 4)
    assert packed.pack(model(), without="other") == 1
    assert packed.pack(model(), without="nothing") == 0


def test_it_copies_and_pickles(layer: PackedLinear):
    values = torch.randn(4, 256)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(inferred(other, values), inferred(layer, values), **CLOSE)
        assert other.weight.data_ptr() != layer.weight.data_ptr()
