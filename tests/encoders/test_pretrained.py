"""Strict loading, and which hidden layer the frames are: chosen, mixed, trained, saved, cached."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import contract
import pytest
import torch
from safetensors.torch import load_file, save_file

from stapes import checkpoint, lora
from stapes.data.cache import FeatureCache
from stapes.device import place
from stapes.encoders import ENCODERS
from stapes.encoders.pretrained import PretrainedEncoder
from stapes.errors import CheckpointError, RecipeError, WeightsError
from stapes.model import SpeechLLM
from stapes.recipe import parse
from stapes.training.optim import optimizer
from stapes.training.stages import validate
from stapes.types import Audio

Folder = Callable[[str], Path]
FAMILIES = [("whisper", "whisper"), ("ssl", "wavlm-base"), ("ssl", "hubert-large"), ("seamless", "seamless")]
FAMILIES += [("moonshine", "moonshine"), ("auto", "w2v-bert")]


def make(name: str, folder: Path, **options: object) -> PretrainedEncoder:
    return ENCODERS.build({"name": name, "weights": f"path:{folder}", **options})


@pytest.fixture
def audio() -> Audio:
    return Audio.from_arrays(contract.sounds([0.7, 1.1]))


# -- layers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), FAMILIES)
@torch.no_grad()
def test_layers_are_counted_from_either_end_and_differ(tiny_encoder: Folder, audio: Audio, name: str, kind: str):
    states = [make(name, tiny_encoder(kind), layer=layer)(audio).values for layer in (0, 1, 2)]
    assert all(not torch.allclose(one, other, atol=1e-2) for one, other in itertools.pairwise(states))
    for layer, state in zip((-3, -2, -1), states, strict=True):
        assert torch.equal(make(name, tiny_encoder(kind), layer=layer)(audio).values, state)
    own = make(name, tiny_encoder(kind))(audio).values
    assert torch.equal(own, states[-1]) or name == "seamless", "Seamless has a length adaptor behind its layers"


@pytest.mark.parametrize(("name", "kind"), FAMILIES)
@torch.no_grad()
def test_the_mixture_is_a_softmax_over_all_layers(tiny_encoder: Folder, audio: Audio, name: str, kind: str):
    mixed = make(name, tiny_encoder(kind), layer="weighted")
    states = torch.stack([make(name, tiny_encoder(kind), layer=layer)(audio).values for layer in (0, 1, 2)])
    torch.testing.assert_close(mixed(audio).values, states.mean(0))
    mixed.layer_weights.copy_(torch.tensor([0.1, 0.5, 0.2]).log() + 3)
    wanted = torch.einsum("l,lbte->bte", torch.tensor([0.125, 0.625, 0.25]), states)
    torch.testing.assert_close(mixed(audio).values, wanted)


@pytest.mark.parametrize("layer", [3, -4, "all", 1.5, True])
def test_a_layer_that_is_not_there(tiny_whisper: Path, layer: object):
    with pytest.raises(RecipeError, match=r"encoder\.layer: .*, expected -3 to 2, or weighted"):
        make("whisper", tiny_whisper, layer=layer)


@pytest.fixture
def model(tiny_encoder: Folder, toy_model: Callable[..., SpeechLLM]) -> SpeechLLM:
    """Toys behind a random WavLM whose layers are mixed."""
    return toy_model(encoder={"name": "ssl", "weights": f"path:{tiny_encoder('wavlm-large')}", "layer": "weighted"})


def test_the_mixture_is_a_part_of_its_own_with_the_rate_of_the_adapter(model: SpeechLLM, audio: Audio):
    lora.set_trainable(model, ["encoder.layers", "llm.lora"])
    assert lora.parameter_counts(model)["encoder.layers"] == (3, 3)
    assert lora.parameter_counts(model)["encoder"][0] == 0
    stage = parse(sections()).train.model_copy(update={"learning_rate": 0.5, "lora_learning_rate": 0.1})
    rates = {id(tensor): group["lr"] for group in optimizer(model, stage).param_groups for tensor in group["params"]}
    assert rates[id(model.encoder.layer_weights)] == 0.5
    embeddings = model.speech(model.encode(audio)).embeddings.values
    embeddings.square().sum().backward()
    assert model.encoder.layer_weights.grad.abs().min() > 0


def test_the_mixture_is_in_the_checkpoint(model: SpeechLLM):
    with torch.no_grad():
        model.encoder.layer_weights.copy_(torch.tensor([1.0, -2.0, 0.5]))
    state = {name: tensor.clone() for name, tensor in checkpoint.trained_state(model).items()}
    with torch.no_grad():
        model.encoder.layer_weights.zero_()
    checkpoint.load_trained(model, state, "here")
    assert model.encoder.layer_weights.tolist() == [1.0, -2.0, 0.5]
    del state["encoder.layer_weights"]
    with pytest.raises(CheckpointError, match=r"missing encoder\.layer_weights"):
        checkpoint.load_trained(model, state, "here")


def test_the_mixture_stays_in_float32(model: SpeechLLM, audio: Audio):
    place(model, torch.device("cpu"), torch.bfloat16)
    assert model.encoder.layer_weights.dtype == torch.float32
    assert {tensor.dtype for tensor in model.encoder.encoder.parameters()} == {torch.bfloat16}
    assert model.encode(audio).values.isfinite().all()


def test_cached_frames_are_of_one_layer_or_mixture(tiny_encoder: Folder, tmp_path: Path):
    def cache(**options: object) -> FeatureCache:
        return FeatureCache(make("ssl", tiny_encoder("hubert-base"), **options).requires_grad_(False), tmp_path)

    folders = [cache(**options).folder for options in ({}, {"layer": 0}, {"layer": 1}, {"layer": "weighted"})]
    assert len(set(folders)) == 4
    assert cache(layer=-2).folder == folders[2]
    mixed = make("ssl", tiny_encoder("hubert-base"), layer="weighted").requires_grad_(False)
    mixed.layer_weights += 1.0 * torch.arange(3)
    assert FeatureCache(mixed, tmp_path).folder not in folders
    mixed.layer_weights.requires_grad_(True)
    with pytest.raises(RecipeError, match="the encoder is trainable, cached features would go stale"):
        FeatureCache(mixed, tmp_path)


def sections(**changes: object) -> dict[str, object]:
    toys = {"encoder": {"name": "toy"}, "adapter": {"name": "stack_mlp"}, "llm": {"name": "toy"}}
    return toys | {"train": {"trainable": ["adapter", "encoder.layers"], "steps": 1}} | changes


def test_a_stage_can_train_a_mixture_only_where_there_is_one_and_no_cache():
    with pytest.raises(RecipeError, match=r"encoder\.layers, expected an encoder that mixes its layers; add `layer: weighted`"):
        validate(parse(sections()))
    encoder = {"name": "whisper", "layer": "weighted"}
    with pytest.raises(RecipeError, match=r"stages\.0\.cache: the encoder is trained"):
        validate(parse(sections(encoder=encoder)))
    validate(parse(sections(encoder=encoder, train={"trainable": ["encoder.layers"], "cache": False, "steps": 1})))


# -- loading -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), FAMILIES)
def test_the_outline_has_the_sizes_of_the_encoder(tiny_encoder: Folder, name: str, kind: str):
    real = make(name, tiny_encoder(kind), layer="weighted" if name != "seamless" else None)
    found = type(real).outline(tiny_encoder(kind), layer=real.layer)
    assert (found.dim, found.seconds_per_frame) == (real.dim, real.seconds_per_frame)
    assert all(parameter.is_meta for parameter in found.parameters())
    shapes = [{key: tuple(value.shape) for key, value in each.named_parameters()} for each in (real, found)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(("name", "kind"), FAMILIES)
def test_the_digest_is_of_the_encoder_alone(tiny_encoder: Folder, tmp_path: Path, name: str, kind: str):
    """Whatever file it came from, and changed with any of its tensors."""
    folder = shutil.copytree(tiny_encoder(kind), tmp_path / "copy")
    digest = make(name, folder).digest
    assert digest == make(name, tiny_encoder(kind), layer=1).digest
    state = load_file(folder / "model.safetensors")
    if name != "auto":
        (folder / "model.safetensors").unlink()
        torch.save(state, folder / "pytorch_model.bin")
        assert make(name, folder).digest == digest
    changed = (
        next(key for key in state if key.endswith("layers.1.final_layer_norm.weight") and "decoder" not in key)
        if name != "moonshine"
        else "model.encoder.layers.1.input_layernorm.weight"
    )
    save_file(state | {changed: state[changed] + 1}, folder / "model.safetensors", metadata={"format": "pt"})
    assert make(name, folder).digest != digest


@pytest.mark.parametrize(("name", "kind"), FAMILIES)
def test_a_checkpoint_that_does_not_fit_is_refused(tiny_encoder: Folder, tmp_path: Path, name: str, kind: str):
    folder = shutil.copytree(tiny_encoder(kind), tmp_path / "copy")
    state = load_file(folder / "model.safetensors")
    lost = next(key for key in state if "layers.1." in key and "decoder" not in key and "text_" not in key)
    kept = {key: tensor for key, tensor in state.items() if key != lost}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"encoder tensors that do not fit: .*layers\.1\."):
        make(name, folder)
    save_file(kept | {lost: torch.zeros(3)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"encoder tensors that do not fit: .*layers\.1\."):
        make(name, folder)


@pytest.mark.parametrize(("name", "kind"), [("whisper", "moonshine"), ("ssl", "whisper"), ("seamless", "w2v-bert")])
def test_another_kind_of_model_is_refused(tiny_encoder: Folder, name: str, kind: str):
    with pytest.raises(WeightsError, match=r"a model of type .*, expected .*; use `encoder: {name: auto}` for other kinds"):
        make(name, tiny_encoder(kind))
