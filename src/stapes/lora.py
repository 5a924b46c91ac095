"""Low-rank adaptation (LoRA, arXiv 2106.09685) through ``peft``, and the table of what is trainable.

LoRA layers are put into the model in place: names and classes of everything else stay as they are, and switching them off
(``disabled``) gives the base model back exactly.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from torch import nn

from stapes import hub
from stapes.encoders.base import LAYER_WEIGHTS
from stapes.errors import RecipeError

MARK = ".lora_"  # part of the name of every LoRA tensor


def add(
    module: nn.Module,
    rank: int = 16,
    alpha: float | None = None,
    dropout: float = 0.0,
    targets: Sequence[str] = ("q_proj", "k_proj", "v_proj", "o_proj"),
) -> None:
    """Put LoRA layers into ``module``; they start as the identity.

    Args:
        module: a transformers model.
        rank: r.
        alpha: the update is scaled by alpha / r; 2 r if not given (ours).
        dropout: on the input of the low-rank branch.
        targets: endings of the names of the linear layers.

    Raises:
        RecipeError: a target matches no linear layer.
    """
    from peft import LoraConfig, inject_adapter_in_model

    linear = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in linear):
            endings = sorted({name.rpartition(".")[2] for name in linear})
            raise RecipeError("lora.targets", f"no linear layer is called '{target}'", f"some of {', '.join(endings)}")
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank if alpha is None else alpha, lora_dropout=dropout, target_modules=list(targets)
    )
    inject_adapter_in_model(config, module)


def merge(module: nn.Module) -> None:
    """Add every LoRA update to the weights it belongs to, for inference: the same function, without the detour.

    The low-rank tensors stay where they are, so that the model can still be saved, and ``disabled`` subtracts them again.
    """
    from peft.tuners.lora import LoraLayer

    for part in module.modules():
        if isinstance(part, LoraLayer) and not part.merged:
            part.merge()  # type: ignore[operator]


@contextlib.contextmanager
def disabled(module: nn.Module) -> Iterator[None]:
    """The base model, while the context lasts."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [part for part in module.modules() if isinstance(part, BaseTunerLayer)]
    trainable = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for parameter, wanted in trainable:  # peft makes what it switches on trainable
            parameter.requires_grad_(wanted)


def set_trainable(module: nn.Module, names: Sequence[str]) -> None:
    """Make exactly the named parts of a model trainable.

    Args:
        module: a ``SpeechLLM``.
        names: of its children ("adapter", "ctc"), "llm.lora" / "encoder.lora" for the LoRA layers in one, or "encoder.layers"
            for the mixture of an encoder's hidden layers.
    """
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(any(_part(name) == wanted for wanted in names))


def _part(name: str) -> str:
    child = name.split(".", 1)[0]
    if name == f"encoder.{LAYER_WEIGHTS}":
        return "encoder.layers"
    return f"{child}.lora" if MARK in name else child


def digest(module: nn.Module) -> str:
    """The identity of what LoRA adds to a module; "" where that is nothing: no layers, or fresh ones."""
    state = {name: parameter for name, parameter in module.named_parameters() if MARK in name}
    return hub.digest(state) if any(bool(tensor.any()) for name, tensor in state.items() if "lora_B" in name) else ""


def parameter_counts(module: nn.Module) -> dict[str, tuple[int, int]]:
    """Part -> (trainable, all) numbers of parameters, parts as in ``set_trainable``."""
    counts: dict[str, tuple[int, int]] = {}
    for name, parameter in module.named_parameters():
        trainable, total = counts.get(_part(name), (0, 0))
        counts[_part(name)] = (trainable + parameter.numel() * parameter.requires_grad, total + parameter.numel())
    return counts
