"""Low-rank adaptation (LoRA, arXiv 2106.09685) through ``peft``, and the table of what is trainable.

LoRA layers are put into the model in place: names and classes of everything else stay as they are, and switching them off
(``disabled``) gives the base model back exactly. Once an update was merged into the weights it belongs to, it can only be
subtracted again: what comes back is the base up to rounding in the precision of the weights, and exactly by loading it anew.

Which layers get one, where a recipe does not say (``targets: auto``), follows from where they stand: in the LLM, the linear
layers of every attention (q, k, v, o with r = 16 are the 16 million parameters that arXiv 2406.17272 counts); in a speech
encoder, whose layers are to hear something new, all linear layers of its blocks (ours).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from torch import nn

from stapes import hub, packed
from stapes.encoders.base import LAYER_WEIGHTS
from stapes.errors import RecipeError

MARK = ".lora_"  # part of the name of every LoRA tensor
BLOCK = re.compile(r"(^|\.)\d+\.")  # in the name of whatever stands in one of the repeated blocks
ATTENTION = re.compile(r"att(ention|n)[^.]*\.")  # self_attn, attention, linear_attn, norm_attn_norm.attn, ...
# Modules that read the weights of linear layers in them and do not call these: LoRA there would be passed by, unless an encoder
# whose forward pass is its own says that it does (``calls_projections_of``).
PASSED_BY = {"MultiheadAttention": r".*", "WavLMAttention": r".*", "MambaMixer": r"(dt|out)_proj"}
Targets = Literal["auto"] | Sequence[str]


def add(
    module: nn.Module,
    rank: int = 16,
    alpha: float | None = None,
    dropout: float = 0.0,
    targets: Targets = "auto",
    side: Literal["llm", "encoder"] = "llm",
) -> None:
    """Put LoRA layers into ``module``; they start as the identity.

    Args:
        module: a transformers model.
        rank: r.
        alpha: the update is scaled by alpha / r; 2 r if not given (ours).
        dropout: on the input of the low-rank branch.
        targets: endings of the names of the linear layers; "auto" finds them (``find_targets``).
        side: what the module is, which decides what "auto" finds.

    Raises:
        RecipeError: a target matches no linear layer, or there is none to be found.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from transformers.pytorch_utils import Conv1D

    linear = _linear(module)
    where = "lora.targets" if side == "llm" else "encoder_lora.targets"
    chosen = find_targets(module, side) if targets == "auto" else list(targets)
    for target in chosen:
        if not any(_matches(name, target) for name in linear):
            endings = sorted({name.rpartition(".")[2] for name in linear})
            raise RecipeError(where, f"no linear layer is called '{target}'", f"some of {', '.join(endings)}")
    if not chosen:
        raise RecipeError(where, f"the {side} has no linear layers in repeated blocks", "names of layers that it has")
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules=chosen,
        fan_in_fan_out=any(isinstance(part, Conv1D) for part in linear.values()),  # as GPT-2 keeps its weights
    )
    try:
        inject_adapter_in_model(config, module)
    except ValueError as error:  # peft knows layers that must not have one
        raise RecipeError(where, str(error)) from error


def find_targets(module: nn.Module, side: Literal["llm", "encoder"]) -> list[str]:
    """The linear layers that LoRA belongs on, as endings of their names.

    Those of every attention in an LLM, or, where it has none (Mamba), all in its blocks; all in the blocks of an encoder.
    """
    linear = _linear(module)
    called: Sequence[str] = getattr(module, "calls_projections_of", ())
    kinds = {name: type(part).__name__ for name, part in module.named_modules() if type(part).__name__ not in called}
    passed_by = [
        re.compile(rf"{re.escape(name)}\.{PASSED_BY[kind]}") for name, kind in kinds.items() if name and kind in PASSED_BY
    ]
    inside = [name for name in linear if BLOCK.search(name) and not any(each.fullmatch(name) for each in passed_by)]
    attention = [name for name in inside if ATTENTION.search(name)]
    wanted = (attention or inside) if side == "llm" else inside
    return _endings(wanted, linear.keys() - set(wanted))


def targets(module: nn.Module) -> list[str]:
    """The layers that have LoRA, as endings of their names that no other linear layer has."""
    from peft.tuners.lora import LoraLayer

    chosen = [name for name, part in module.named_modules() if isinstance(part, LoraLayer)]
    return _endings(chosen, [name for name in _linear(module) if not name.startswith(tuple(f"{each}." for each in chosen))])


def _linear(module: nn.Module) -> dict[str, nn.Module]:
    from transformers.pytorch_utils import Conv1D

    return {name: part for name, part in module.named_modules() if isinstance(part, (nn.Linear, Conv1D))}


def _matches(name: str, ending: str) -> bool:
    return name == ending or name.endswith(f".{ending}")


def _endings(wanted: Iterable[str], others: Iterable[str]) -> list[str]:
    """The shortest endings that some names have and ``others`` do not, in the order of the names."""
    others, found = list(others), dict[str, None]()
    for name in wanted:
        parts = name.split(".")
        endings = [".".join(parts[-length:]) for length in range(1, len(parts) + 1)]
        found[next((each for each in endings if not any(_matches(other, each) for other in others)), name)] = None
    return list(found)


def merge(module: nn.Module) -> None:
    """Add every LoRA update to the weights it belongs to, for inference: the same function, without the detour.

    The low-rank tensors stay where they are, so that the model can still be saved, and ``disabled`` subtracts them again, which
    leaves the base up to rounding, and the updates beside it as they were before they were merged. Layers of 4 or 8 bits
    stay as they are, their update beside them: rounded into so few bits, it would be lost or worse.
    """
    from peft.tuners.lora import LoraLayer

    packed.forget(module)
    for part in module.modules():
        if isinstance(part, LoraLayer) and not part.merged and part.get_base_layer().weight.is_floating_point():
            part.merge()  # type: ignore[operator]


def remove(module: nn.Module) -> None:
    """Take all LoRA layers out again: what is left are the weights as they stand, with every update that was merged."""
    from peft.tuners.lora import LoraLayer

    for name, part in list(module.named_modules()):
        if isinstance(part, LoraLayer):
            parent, _, own = name.rpartition(".")
            setattr(module.get_submodule(parent), own, part.get_base_layer())
    for part in module.modules():
        if hasattr(part, "peft_config"):
            del part.peft_config


@contextlib.contextmanager
def disabled(module: nn.Module) -> Iterator[None]:
    """The base model, while the context lasts."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    packed.forget(module)
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
        names: of its children ("adapter", "ctc", "losses"; "llm" and "encoder" for all their own weights), "llm.lora" /
            "encoder.lora" for the LoRA layers in one, or "encoder.layers" for the mixture of an encoder's hidden layers.
    """
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(part_of(name) in names)


def part_of(name: str) -> str:
    """The part of a model that one of its parameters belongs to, as ``set_trainable`` names it."""
    child = name.split(".", 1)[0]
    if name == f"encoder.{LAYER_WEIGHTS}":
        return "encoder.layers"
    return f"{child}.lora" if MARK in name else child


def digest(module: nn.Module) -> str:
    """The identity of what training made of a module; "" where that is nothing.

    That is its LoRA, unless there is none or it is fresh, and its own weights, where those were trained (``base_digest`` set)
    and are no longer what they were.
    """
    state = {name: parameter for name, parameter in module.named_parameters() if MARK in name}
    found = hub.digest(state) if any(bool(tensor.any()) for name, tensor in state.items() if "lora_B" in name) else ""
    start = getattr(module, "base_digest", "")
    own = base_digest(module) if start else ""
    return found + (own if own != start else "")


def base_digest(module: nn.Module) -> str:
    """The identity of a module's own weights as they are now."""
    return hub.digest({name: parameter for name, parameter in module.named_parameters() if MARK not in name})


def parameter_counts(module: nn.Module) -> dict[str, tuple[int, int]]:
    """Part -> (trainable, all) numbers of parameters, parts as in ``set_trainable``."""
    counts: dict[str, tuple[int, int]] = {}
    for name, parameter in module.named_parameters():
        trainable, total = counts.get(part_of(name), (0, 0))
        counts[part_of(name)] = (trainable + parameter.numel() * parameter.requires_grad, total + parameter.numel())
    return counts
