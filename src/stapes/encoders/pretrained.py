"""What the encoders of pretrained checkpoints share: strict loading, and which hidden layer the frames are.

Hidden states are counted as transformers counts them: 0 is what the first Transformer layer reads, i is what layer i gives, and
the last is the encoder's own output, its final norm included. ``layer: 9`` or ``layer: -4`` takes one of them (what lies behind
it is not computed); ``layer: weighted`` takes a mixture of all of them (ELMo, arXiv 1802.05365, eq. 1 without its scale; for
speech SUPERB, arXiv 2105.01051):

    frames = sum_i softmax(w)_i h_i,   w (1 + layers,), zeros at first

| paper            | here            | shape            |
|------------------|-----------------|------------------|
| s_j, softmaxed w | layer_weights   | (1 + layers,)    |
| h_{k,j}          | hidden states   | (B, T, E) each   |

w is trained where a stage names ``encoder.layers``, and is part of the checkpoint.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from stapes import hub
from stapes.encoders.base import LAYER_WEIGHTS, Encoder
from stapes.errors import RecipeError, WeightsError
from stapes.hub.layout import save_tensors

Layer = int | Literal["weighted"] | None
# Weight norm, as older versions of PyTorch named it.
RENAMED = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}


class PretrainedEncoder(Encoder):
    """An encoder of transformers' with the tensors of a checkpoint.

    A subclass says what a folder's configuration describes (``set_up``) and how waveforms go through it (``encode``).

    Args:
        weights: sources tried in order (``hf:owner/name``, ``path:...``, ``pack:...``).
        layer: which hidden state the frames are, "weighted" for a learned mixture of all, None for the encoder's own output.

    Attributes:
        encoder: transformers' module.
        config: transformers' configuration of the checkpoint.
        features: transformers' feature extractor of the checkpoint, or one of the settings that are used here.
        config_files: what ``outline`` reads of a checkpoint.
        prefixes: of the encoder's names in a checkpoint, the first that occurs counts; the last is that of transformers' bare
            model, the one without a head.
        unused: beginnings of names, without the prefix, of what is not needed for frames.
        depth: how many Transformer layers are computed.
        layer_weights: (1 + layers,) logits of the mixture; None unless there is one.
    """

    config_files: Sequence[str] = ("config.json",)
    prefixes: Sequence[str] = ("",)
    unused: Sequence[str] = ()
    encoder: Any
    config: Any
    features: Any
    layer: Layer
    depth: int
    layer_weights: nn.Parameter | None

    def __init__(self, weights: str | Sequence[str], **options: Any) -> None:
        super().__init__()
        found = hub.resolve(weights)
        self.source = found.source
        self.set_up(found.folder, **options)
        self.load(found)
        self.eval()
        self.digest = hub.digest(self.encoder.state_dict())

    @abstractmethod
    def set_up(self, folder: Path, *args: Any, **kwargs: Any) -> None:
        """Make ``encoder`` from the configuration in ``folder``, without its weights, and set what describes it.

        Raises:
            WeightsError: it describes another kind of model.
            RecipeError: an option is wrong.
        """

    @classmethod
    def outline(cls, folder: Path, **options: Any) -> Self:
        """The encoder that the ``config_files`` in ``folder`` describe, on the meta device: its sizes, without weights."""
        found = cls.__new__(cls)
        Encoder.__init__(found)
        with torch.device("meta"):
            found.set_up(folder, **options)
        return found.eval()

    def load(self, found: hub.Weights) -> None:
        """Copy the checkpoint's tensors into ``encoder``.

        Raises:
            WeightsError: a tensor is missing, extra or of another shape.
        """
        state = _read(found.folder, self.prefixes, self.unused)
        own = self.encoder.state_dict()
        wrong = sorted(own.keys() ^ state.keys())
        both = sorted(own.keys() & state.keys())
        wrong += [f"{name} {tuple(state[name].shape)}" for name in both if state[name].shape != own[name].shape]
        if wrong:
            kind = type(self).__name__.removesuffix("Encoder")
            raise WeightsError(found.source, f"encoder tensors that do not fit: {', '.join(wrong[:5])}", f"a {kind} checkpoint")
        self.encoder.load_state_dict(state)

    def save(self, folder: Path) -> None:
        """See ``Encoder.save``: in transformers' layout, named as in a whole model of the kind, which other tools can open."""
        folder.mkdir(parents=True)
        save_tensors(folder, {self.prefixes[-1] + name: tensor for name, tensor in self.encoder.state_dict().items()})
        self.config.dtype = next(self.encoder.parameters()).dtype
        self.config.save_pretrained(folder)
        self.features.save_pretrained(folder)

    # -- layers --------------------------------------------------------------------------------------------------------

    def choose_layer(self, layer: Layer, layers: int) -> None:
        """Take a hidden state of an encoder of ``layers`` Transformer layers, or a mixture of all.

        Raises:
            RecipeError: there is no such layer.
        """
        is_index = isinstance(layer, int) and not isinstance(layer, bool) and -layers - 1 <= layer <= layers
        if not (is_index or layer is None or layer == "weighted"):
            raise RecipeError("encoder.layer", repr(layer), f"{-layers - 1} to {layers}, or weighted")
        self.layer = layer
        self.depth = int(layer) % (layers + 1) if is_index else layers  # type: ignore[arg-type]
        mixture = nn.Parameter(torch.zeros(layers + 1, device=self.device)) if layer == "weighted" else None
        self.register_parameter(LAYER_WEIGHTS, mixture)

    def through_layers(
        self, hidden: Tensor, layers: nn.ModuleList, step: Callable[[Any, Tensor], Tensor], norm: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Hidden states through Transformer layers, as far as ``layer`` asks.

        Args:
            hidden: (B, T, E) that the first layer reads.
            layers: in order.
            step: a layer and its input -> its output.
            norm: what stands behind the last layer.

        Returns:
            The hidden state (B, T, E) of ``layer``, or the mixture.
        """
        states = [hidden]
        for number, layer in enumerate(layers[: self.depth], 1):
            hidden = step(layer, hidden)
            if number == len(layers):
                hidden = norm(hidden)
            if self.layer_weights is not None:
                states.append(hidden)
        return hidden if self.layer_weights is None else self.mix(states)

    def mix(self, states: Sequence[Tensor]) -> Tensor:
        """The mixture (B, T, E) of all hidden states, each (B, T, E)."""
        assert self.layer_weights is not None and len(states) == len(self.layer_weights)
        mixed = torch.zeros_like(states[0])
        for share, state in zip(self.layer_weights.softmax(0), states, strict=True):
            mixed = mixed + share * state
        return mixed

    @property
    def layer_digest(self) -> str:
        """See ``Encoder``; of a mixture, the digest of its weights."""
        if self.layer_weights is not None:
            return f"/layers {hub.digest({LAYER_WEIGHTS: self.layer_weights})}"
        return "" if self.layer is None else f"/layer {self.depth}"


def configuration(folder: Path, *kinds: str) -> Any:
    """transformers' configuration in a folder.

    Raises:
        WeightsError: it is unreadable, or of none of the ``kinds`` (``model_type``) where some are given.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise WeightsError(folder, f"not a configuration that transformers knows ({reason})") from error
    if kinds and config.model_type not in kinds:
        known = f"{', '.join(kinds)}" if len(kinds) == 1 else f"one of {', '.join(kinds)}"
        raise WeightsError(folder, f"a model of type {config.model_type}", known, "use `encoder: {name: auto}` for other kinds")
    return config


def _read(folder: Path, prefixes: Sequence[str], unused: Sequence[str]) -> dict[str, Tensor]:
    """The encoder's tensors of a checkpoint folder, float32, without their prefix; others are not read."""
    tensors = _tensors(folder)
    prefix = next((prefix for prefix in prefixes if any(name.startswith(prefix) for name in tensors)), prefixes[-1])
    state: dict[str, Tensor] = {}
    for name, get in tensors.items():
        own = name.removeprefix(prefix)
        if name.startswith(prefix) and not any(own.startswith(part) for part in unused):
            before, dot, last = own.rpartition(".")
            tensor = get()
            state[before + dot + RENAMED.get(last, last)] = tensor.float() if tensor.is_floating_point() else tensor
    return state


def _tensors(folder: Path) -> dict[str, Callable[[], Tensor]]:
    """The names in a checkpoint, each with what reads its tensor."""
    from safetensors import safe_open

    found: dict[str, Callable[[], Tensor]] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        opened = safe_open(file, framework="pt")
        found |= {name: partial(opened.get_tensor, name) for name in opened.keys()}  # noqa: SIM118 (the handle is no mapping)
    for file in [] if found else sorted(folder.glob("pytorch_model*.bin")):
        state = torch.load(file, map_location="cpu", weights_only=True)
        found |= {name: partial(torch.as_tensor, tensor) for name, tensor in state.items()}
    return found
