"""The hub's client reads its settings when it is imported: each test runs it in a process of its own."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stapes.hub.huggingface import PROBE_SECONDS

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "tokenizer.json": b"[]",
    "merges.txt": b"a b",
    "pytorch_model.bin": b"the same weights again",
    "flax_model.msgpack": b"and again",
    "onnx/model.onnx": b"and again",
    "README.md": b"",
}
RESOLVE = """
import json, sys, time
import huggingface_hub, stapes.hub
from stapes.errors import WeightsError
for name in sys.argv[1:]:
    started = time.monotonic()
    try:
        weights = stapes.hub.resolve(name, progress=False)
        found = {"folder": str(weights.folder), "source": weights.source, "revision": weights.revision}
    except WeightsError as error:
        found = {"error": str(error)}
    print(json.dumps({**found, "seconds": time.monotonic() - started}))
"""


def resolve(name: str, endpoint: str, home: Path, **environment: str) -> dict[str, Any]:
    """What ``stapes.hub.resolve`` gives in a process with this hub."""
    return resolve_all([name], endpoint, home, **environment)[0]


def resolve_all(names: list[str], endpoint: str, home: Path, **environment: str) -> list[dict[str, Any]]:
    """The same for several names, one after the other."""
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **environment}
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    done = subprocess.run(
        [sys.executable, "-c", RESOLVE, *names], env={**kept, **settings}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of a model hub as downloading one model takes."""

    protocol_version = "HTTP/1.1"
    downloaded: list[str]
    files: dict[str, bytes]

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = self.path.split("?")[0]
        if path.startswith("/api/models/owner/name/tree/"):
            self.send_json([self.entry(name) for name in self.files])
        elif path.startswith("/api/models/owner/name"):
            siblings = [{"rfilename": name} for name in self.files]
            self.send_json({"id": "owner/name", "sha": COMMIT, "siblings": siblings, "tags": [], "private": False})
        elif path.startswith("/owner/name/resolve/"):
            name = path.split("/", 5)[5]
            if self.command == "GET":
                self.downloaded.append(name)
            self.send(200, self.files[name], "application/octet-stream")
        else:
            self.send(404, b"{}", "application/json", {"X-Error-Code": "RepoNotFound"})

    def entry(self, name: str) -> dict[str, Any]:
        return {"type": "file", "path": name, "size": len(self.files[name]), "oid": self.etag(self.files[name])}

    @staticmethod
    def etag(data: bytes) -> str:
        return hashlib.sha1(data).hexdigest()

    def send_json(self, value: object) -> None:
        self.send(200, json.dumps(value).encode(), "application/json")

    def send(self, status: int, data: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        facts = {
            "Content-Type": kind,
            "Content-Length": str(len(data)),
            "ETag": f'"{self.etag(data)}"',
            "X-Repo-Commit": COMMIT,
        }
        for name, value in {**facts, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def hub() -> Iterator[tuple[str, type[Hub]]]:
    """The address of a hub with one model, and its handler (``files``, ``downloaded``)."""
    handler = type("OneModel", (Hub,), {"downloaded": [], "files": dict(FILES)})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()


def test_only_what_is_needed_is_downloaded_and_the_cache_serves_later(hub, closed_port: str, tmp_path: Path):
    endpoint, handler = hub
    found = resolve("hf:owner/name", endpoint, tmp_path)
    assert (found.get("source"), found.get("revision")) == ("hf:owner/name", COMMIT), found
    assert sorted(handler.downloaded) == ["config.json", "merges.txt", "model.safetensors", "tokenizer.json"]
    assert sorted(path.name for path in Path(found["folder"]).iterdir()) == sorted(handler.downloaded)
    for again in resolve_all(["owner/name", f"hf:owner/name@{COMMIT}", "hf:owner/name@main"], closed_port, tmp_path):
        assert again.get("folder") == found["folder"], again
        assert again["seconds"] < 1
    assert resolve("owner/name", closed_port, tmp_path, HF_HUB_OFFLINE="1").get("folder") == found["folder"]


def test_a_download_that_broke_off_goes_on(hub, tmp_path: Path):
    endpoint, handler = hub
    folder = Path(resolve("owner/name", endpoint, tmp_path)["folder"])
    (folder / "model.safetensors").unlink()
    handler.downloaded.clear()
    assert resolve("owner/name", endpoint, tmp_path)["folder"] == str(folder)
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert "tokenizer.json" not in handler.downloaded


def test_torch_files_are_taken_where_there_is_nothing_better(hub, tmp_path: Path):
    endpoint, handler = hub
    del handler.files["model.safetensors"]
    resolve("owner/name", endpoint, tmp_path)
    assert "pytorch_model.bin" in handler.downloaded
    del handler.files["pytorch_model.bin"]
    assert "no weights at its top" in resolve("owner/name", endpoint, tmp_path / "other")["error"]


def test_an_unknown_model_is_named(hub, tmp_path: Path):
    assert "hf:owner/other: the hub has no such model; check the name" in resolve("hf:owner/other", hub[0], tmp_path)["error"]


def test_a_hub_that_never_answers_costs_seconds(silent_server: str, tmp_path: Path):
    found = resolve("hf:owner/name", silent_server, tmp_path)
    assert found["error"].startswith(f"hf:owner/name: the model hub {silent_server} does not answer; check the network")
    assert found["seconds"] < PROBE_SECONDS + 3


def test_no_network_and_offline_mode_are_said_at_once(closed_port: str, tmp_path: Path):
    found = resolve("hf:owner/name", closed_port, tmp_path)
    assert "does not answer" in found["error"]
    assert found["seconds"] < 3
    offline = resolve("hf:owner/name", closed_port, tmp_path, HF_HUB_OFFLINE="1")
    assert "not in the local cache, and HF_HUB_OFFLINE is set" in offline["error"]


def test_a_name_that_is_none(closed_port: str, tmp_path: Path):
    assert "not a name of a model" in resolve("hf:a/b/c", closed_port, tmp_path)["error"]
