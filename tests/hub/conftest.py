"""A cache of its own for each test, and small packs in packages that pip serves from a folder: no network is used."""

import hashlib
import io
import socket
import struct
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stapes.hub.digest import digest
from stapes.hub.table import Copy, Pack, Package
from stapes.hub.whisper import read_openai

DIM, VOCABULARY = 64, 51_865
WEIGHTS = "toy_weights/model.pt"


@pytest.fixture(autouse=True)
def _own_cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, but for tests of the real packs, which are fetched once for all."""
    if request.node.get_closest_marker("weights") is None:
        monkeypatch.setenv("STAPES_CACHE", str(tmp_path / "cache"))


def openai_state(seed: int = 0) -> dict[str, torch.Tensor]:
    """A Whisper of one layer under OpenAI's names, float16."""
    generator = torch.Generator().manual_seed(seed)
    state = {}

    def add(name: str, *shape: int) -> None:
        state[name] = torch.randn(shape, generator=generator).half()

    def linear(name: str, rows: int, columns: int, bias: bool = True) -> None:
        add(f"{name}.weight", rows, columns)
        if bias:
            add(f"{name}.bias", rows)

    for side, attentions in (("encoder", ["attn"]), ("decoder", ["attn", "cross_attn"])):
        for attention in attentions:
            for part in ("query", "key", "value", "out"):
                linear(f"{side}.blocks.0.{attention}.{part}", DIM, DIM, bias=part != "key")
        for norm in [f"blocks.0.{attention}_ln" for attention in attentions] + ["blocks.0.mlp_ln"]:
            add(f"{side}.{norm}.weight", DIM)
            add(f"{side}.{norm}.bias", DIM)
        linear(f"{side}.blocks.0.mlp.0", 4 * DIM, DIM)
        linear(f"{side}.blocks.0.mlp.2", DIM, 4 * DIM)
        norm = "ln_post" if side == "encoder" else "ln"
        add(f"{side}.{norm}.weight", DIM)
        add(f"{side}.{norm}.bias", DIM)
    for layer, channels in (("conv1", 80), ("conv2", DIM)):
        add(f"encoder.{layer}.weight", DIM, channels, 3)
        add(f"encoder.{layer}.bias", DIM)
    add("encoder.positional_embedding", 20, DIM)
    add("decoder.positional_embedding", 8, DIM)
    state["decoder.token_embedding.weight"] = torch.zeros(VOCABULARY, DIM).half()
    return state


def save_bytes(value: Any) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def write_wheel(folder: Path, name: str, members: dict[str, bytes], version: str = "1.0", requires: str = "") -> Path:
    """A wheel that pip can download; ``requires`` is the Python that it asks for."""
    stem = f"{name.replace('-', '_')}-{version}"
    path = folder / f"{stem}-py3-none-any.whl"
    python = f"Requires-Python: {requires}\n" if requires else ""
    about = {
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{python}".encode(),
        f"{stem}.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{stem}.dist-info/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in {**members, **about}.items():
            archive.writestr(member, data)
    return path


@dataclass
class Registry:
    """A folder of wheels that pip takes for its index."""

    folder: Path

    def package(self, name: str, members: dict[str, bytes], requires: str = "") -> Package:
        """Publish a wheel; returns its pins."""
        data = write_wheel(self.folder, name, members, requires=requires).read_bytes()
        return Package(name, "1.0", len(data), hashlib.sha256(data).hexdigest())

    def copy(self, name: str, weights: bytes, **changes: Any) -> Copy:
        """Publish weights in a package of their own; returns the pinned copy."""
        facts = {
            "format": "openai",
            "packages": (self.package(name, {WEIGHTS: weights}),),
            "file": (f"{name}/{WEIGHTS}",),
            "sha256": hashlib.sha256(weights).hexdigest(),
            "extras": {},
        }
        return Copy(**{**facts, **changes})


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    folder = tmp_path / "registry"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return Registry(folder)


@pytest.fixture(scope="session")
def toy_weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, str]:
    """A checkpoint in OpenAI's form, and the digest of its tensors once converted."""
    path = tmp_path_factory.mktemp("toy") / "toy.pt"
    path.write_bytes(save_bytes({"dims": {"n_mels": 80}, "model_state_dict": openai_state()}))
    return path.read_bytes(), digest(read_openai(path))


@pytest.fixture
def toy_pack(toy_weights: tuple[bytes, str]) -> Callable[..., Pack]:
    """Makes a pack of the toy from copies."""

    def make(*copies: Copy, tensors: str = toy_weights[1]) -> Pack:
        return Pack("toy", "a toy", "MIT", "whisper", tensors, 0, copies)

    return make


@pytest.fixture(scope="session")
def model_bin() -> Callable[..., bytes]:
    """Makes the bytes of a CTranslate2 file."""
    codes = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}

    def string(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    def make(variables: dict[str, np.ndarray], specification: str = "WhisperSpec", version: int = 6) -> bytes:
        data = struct.pack("<I", version) + string(specification) + struct.pack("<II", 3, len(variables))
        for name, values in variables.items():
            code = codes[values.dtype.name]
            data += string(name) + struct.pack(f"<B{values.ndim}IBI", values.ndim, *values.shape, code, values.nbytes)
            data += values.tobytes()
        return data + struct.pack("<I", 1) + string("alias") + string("tied")

    return make


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The address of a server that takes every connection and never says anything."""
    listener = socket.create_server(("127.0.0.1", 0))
    held = []

    def accept() -> None:
        while True:
            try:
                held.append(listener.accept()[0])
            except OSError:
                return

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    for connection in held:
        connection.close()


@pytest.fixture
def closed_port() -> str:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"
