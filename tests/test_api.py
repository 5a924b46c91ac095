"""What a user of Python gets: load, transcribe, run, evaluate, save, push to a hub."""

import base64
import hashlib
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

import stapes
from stapes import checkpoint, lora
from stapes.api import Stapes
from stapes.data.manifest import read_manifest
from stapes.errors import AudioError, CheckpointError, DataError, RecipeError
from stapes.llms import LLMS
from stapes.metrics.wer import wer

QUICK = """
import sys, stapes
assert "torch" not in sys.modules and "numpy" not in sys.modules, "imported with stapes"
assert {"load", "Stapes", "__version__"} <= set(dir(stapes))
assert not hasattr(stapes, "lode")
from stapes import errors, registry
assert "torch" not in sys.modules
assert stapes.load.__module__ == stapes.Stapes.__module__ == "stapes.api"
"""


@pytest.fixture(scope="module")
def model(tone_run: Path) -> Stapes:
    return stapes.load(tone_run, device="cpu")


@pytest.fixture
def sound(tones: Path) -> Path:
    return tones / "train-00.wav"


def test_importing_stapes_is_quick_and_load_is_there():
    done = subprocess.run([sys.executable, "-c", QUICK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -- transcribe and run ------------------------------------------------------------------------------------------------


def test_a_trained_model_writes_what_is_said(model: Stapes, tones: Path):
    rows = read_manifest(tones / "train.jsonl")
    found = model.transcribe([row.audio for row in rows])
    assert wer([row.text for row in rows], [transcript.text for transcript in found]).value < 40
    assert not any(transcript.capped for transcript in found)


def test_every_kind_of_sound_gives_the_same(model: Stapes, sound: Path):
    wanted = model.transcribe(sound)
    samples, rate = soundfile.read(sound, dtype="float32")
    assert wanted.text
    assert wanted.segments[0].end == pytest.approx(len(samples) / rate)
    for source in (str(sound), sound.read_bytes(), io.BytesIO(sound.read_bytes()), samples, torch.from_numpy(samples)):
        assert model.transcribe(source) == wanted
    assert model.run(sound) == model.run(sound, task="asr") == wanted
    assert model.transcribe(np.repeat(samples, 2), sample_rate=2 * rate).segments[0].end == pytest.approx(
        wanted.segments[0].end
    )


def test_a_list_gives_a_list_in_its_order(model: Stapes, tones: Path):
    files = sorted(tones.glob("*.wav"))[:5]
    together = model.transcribe(files)
    assert together == [model.transcribe(file) for file in files]
    assert model.transcribe(tuple(files), batch_seconds=1.0) == together
    assert model.transcribe([]) == []
    samples, _ = soundfile.read(files[0], dtype="float32")
    assert model.transcribe([files[1], samples], sample_rate=16_000) == [together[1], together[0]]


def test_long_sound_is_cut_and_joined(model: Stapes, examples: Path):
    sound = np.concatenate([soundfile.read(row.audio, dtype="float32")[0] for row in read_manifest(examples)] * 2)
    done: list[float] = []
    found = model.transcribe(sound, on_progress=done.append)
    assert len(found.segments) > 1
    assert all(0 < part.end - part.start <= 25.001 for part in found.segments)
    assert all(part.end <= after.start for part, after in zip(found.segments, found.segments[1:], strict=False))
    assert found.text == " ".join(part.text for part in found.segments if part.text)
    assert sum(done) == pytest.approx(sum(part.end - part.start for part in found.segments))


def test_unreadable_sound_is_named(model: Stapes, tmp_path: Path):
    with pytest.raises(AudioError, match=r"nope\.wav: no such file"):
        model.transcribe(tmp_path / "nope.wav")


def test_tasks_that_it_does_not_know(model: Stapes, sound: Path):
    with pytest.raises(RecipeError, match=r"task: unknown task 'asrr'; did you mean 'asr'\?"):
        model.run(sound, task="asrr")


# -- options -----------------------------------------------------------------------------------------------------------


def test_decoding_options_for_a_call_and_for_good(tone_run: Path, model: Stapes, sound: Path):
    assert model.recipe.decoding.ctc_weight == 0.5
    loaded = stapes.load(tone_run, device="cpu", ctc_weight=0.9, tokens_per_second=0.1, tokens_spare=1)
    short = loaded.transcribe(sound)
    assert short.capped
    assert short == model.transcribe(sound, ctc_weight=0.9, tokens_per_second=0.1, tokens_spare=1)
    assert loaded.transcribe(sound, ctc_weight=0.5, tokens_per_second=8.0, tokens_spare=10) == model.transcribe(sound)
    assert model.transcribe(sound, beams=None) == model.transcribe(sound)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"beems": 2}, r"beems: unknown option; did you mean 'beams'\?"),
        ({"beams": 0}, r"decoding\.beams: 0, expected .*greater than 0"),
        ({"ctc_weight": 1.5}, r"decoding\.ctc_weight: 1\.5, expected .*less than or equal to 1"),
    ],
)
def test_decoding_options_that_are_wrong(tone_run: Path, model: Stapes, sound: Path, option: dict[str, Any], message: str):
    with pytest.raises(RecipeError, match=message):
        stapes.load(tone_run, **option)
    with pytest.raises(RecipeError, match=message):
        model.transcribe(sound, **option)


def test_a_ctc_weight_without_a_ctc_head(toy_model, tmp_path: Path):
    from stapes.recipe import parse

    sections = {
        "encoder": {"name": "toy"},
        "adapter": {"name": "stack_mlp", "stride": 3, "hidden_dim": 32},
        "llm": {"name": "toy"},
    }
    module = toy_model(ctc=None, llm_lora=None)
    checkpoint.save(module, tmp_path / "run", parse(sections), checkpoint.trained_state(module))
    plain = stapes.load(tmp_path / "run")
    assert plain.transcribe(np.full(16_000, 0.1, dtype=np.float32)).ctc_text is None
    with pytest.raises(RecipeError, match=r"decoding\.ctc_weight: 0\.3, expected 0 for a model without a CTC head"):
        stapes.load(tmp_path / "run", ctc_weight=0.3)


def test_half_precision_hears_the_same(tone_run: Path, model: Stapes, tones: Path):
    files = sorted(tones.glob("train-*.wav"))
    half = stapes.load(tone_run, device="cpu", dtype="bfloat16")
    assert half.dtype == torch.bfloat16
    assert half.digest == model.digest
    texts = [[transcript.text for transcript in each.transcribe(files)] for each in (model, half)]
    assert wer(*texts).value < 10


# -- evaluate ----------------------------------------------------------------------------------------------------------


def test_evaluation_of_a_manifest(model: Stapes, tones: Path):
    found = model.evaluate(tones / "dev.jsonl", limit=4)
    rows = read_manifest(tones / "dev.jsonl")[:4]
    assert [prediction.id for prediction in found.predictions] == [row.id for row in rows]
    assert found.scores["utterances"] == 4
    assert found.scores == model.evaluate(rows).scores
    assert f"|model:run@{model.digest[:12]}|" in found.scores["provenance"]
    other = model.evaluate(rows, ctc_weight=0.9).scores["provenance"]
    assert "|ctc_weight:0.9|" in other
    assert [model.provenance(), model.provenance("asr", ctc_weight=0.9)] == [found.scores["provenance"], other]
    with pytest.raises(DataError, match="limit: 0, expected at least 1"):
        model.evaluate(rows, limit=0)


# -- save and load -----------------------------------------------------------------------------------------------------


def test_what_is_saved_is_what_was_loaded(model: Stapes, tone_run: Path, sound: Path, tmp_path: Path):
    model.save_pretrained(tmp_path / "copy")
    again = Stapes.from_pretrained(tmp_path / "copy", device="cpu", token="unused", local_files_only=True)
    assert again.transcribe(sound) == model.transcribe(sound)
    assert (again.digest, again.recipe) == (model.digest, model.recipe)
    tensors, wanted = load_file(tmp_path / "copy/model.safetensors"), load_file(tone_run / "model.safetensors")
    assert all(torch.equal(tensors[name], tensor) for name, tensor in wanted.items())
    assert (tmp_path / "copy/metrics.jsonl").read_bytes() == (tone_run / "metrics.jsonl").read_bytes()
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == sorted(
        [*checkpoint.FILES, "README.md", "metrics.jsonl"]
    )
    card = (tmp_path / "copy/README.md").read_text()
    assert "pipeline_tag: automatic-speech-recognition" in card
    assert "- adapter: `{'name': 'stack_mlp', 'stride': 3, 'hidden_dim': 64}`" in card


def test_without_merging_the_base_models_are_there_exactly(model: Stapes, tone_run: Path, sound: Path):
    apart = stapes.load(tone_run, device="cpu", merge=False)
    assert apart.transcribe(sound).text == model.transcribe(sound).text
    embeddings = torch.randn(1, 5, apart.module.llm.dim, generator=torch.Generator().manual_seed(0))
    mask, wanted = torch.ones(1, 5, dtype=torch.bool), torch.ones(1, 5, dtype=torch.bool)
    llms = (LLMS.build(apart.recipe.llm), apart.module.llm, model.module.llm)
    with torch.inference_mode(), lora.disabled(apart.module), lora.disabled(model.module):
        base, exact, rounded = (llm.eval()(embeddings, mask, wanted) for llm in llms)
    assert torch.equal(exact, base)
    assert not torch.equal(rounded, base)
    torch.testing.assert_close(rounded, base)


def test_half_precision_files_stay_so_and_a_card_is_kept(tone_run: Path, tmp_path: Path):
    folder = shutil.copytree(tone_run, tmp_path / "shipped")
    halves = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(halves, folder / "model.safetensors")
    (folder / "README.md").write_text("the card")
    stapes.load(folder, device="cpu").save_pretrained(tmp_path / "copy")
    saved = load_file(tmp_path / "copy/model.safetensors")
    assert all(saved[name].dtype == torch.float16 and torch.equal(saved[name], tensor) for name, tensor in halves.items())
    assert (tmp_path / "copy/README.md").read_text() == "the card"
    stapes.load(tmp_path / "copy", device="cpu").save_pretrained(tmp_path / "copy")
    assert (tmp_path / "copy/README.md").read_text() == "the card"


def test_a_model_that_was_cast_is_saved_as_it_was(tone_run: Path, tmp_path: Path):
    stapes.load(tone_run, device="cpu", dtype="bfloat16").save_pretrained(tmp_path / "copy")
    tensors, wanted = load_file(tmp_path / "copy/model.safetensors"), load_file(tone_run / "model.safetensors")
    assert tensors.keys() == wanted.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in wanted.items())


def test_a_model_that_is_none():
    with pytest.raises(CheckpointError, match="stapes-bse: no such model, expected a run folder, a hub id"):
        stapes.load("stapes-bse")


# -- a hub -------------------------------------------------------------------------------------------------------------

ROUND_TRIP = """
import sys, stapes
from stapes.errors import StapesError
run, sound = sys.argv[1:]
model = stapes.load(run, device="cpu")
model.push_to_hub("owner/name", token="hf_secret", private=True)
again = stapes.load("owner/name", device="cpu")
assert again.transcribe(sound) == model.transcribe(sound)
assert (again.name, again.digest) == ("owner/name", model.digest)
assert stapes.load("owner/name@main", device="cpu").digest == model.digest
for options in ({"revision": "main"}, {"token": "hf_secret"}, {"local_files_only": True}):
    assert stapes.Stapes.from_pretrained("owner/name", device="cpu", **options).folder == again.folder, options
try:
    stapes.load("owner/empty")
except StapesError as error:
    print(error)
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of a model hub as one repository takes, to be written and read."""

    protocol_version = "HTTP/1.1"
    files: dict[str, bytes]
    commit: str

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            self.send_json({"url": f"http://{self.headers['Host']}/owner/name"})
        elif self.path == "/api/validate-yaml":
            self.send_json({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            paths = [file["path"] for file in json.loads(body)["files"]]
            self.send_json({"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.send_json(
                {"commitOid": self.commit, "commitUrl": f"http://{self.headers['Host']}/owner/name/commit/{self.commit}"}
            )
        else:
            self.send(404, b"{}")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path.startswith("/api/models/owner/name/tree/"):
            entries = [{"type": "file", "path": name, "size": len(data), "oid": "0"} for name, data in self.files.items()]
            self.send_json(entries)
        elif path.startswith(("/api/models/owner/name", "/api/models/owner/empty")):
            siblings = [{"rfilename": name} for name in self.files] if "name" in path else []
            self.send_json({"id": "owner/name", "sha": self.commit, "siblings": siblings, "tags": [], "private": False})
        elif path.startswith("/owner/name/resolve/") and path.split("/", 5)[5] in self.files:
            self.send(200, self.files[path.split("/", 5)[5]])
        else:
            self.send(404, b"{}")

    def send_json(self, value: object) -> None:
        self.send(200, json.dumps(value).encode())

    def send(self, status: int, data: bytes) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            "ETag": f'"{hashlib.sha1(data).hexdigest()}"',
            "X-Repo-Commit": self.commit,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def hub() -> Iterator[tuple[str, dict[str, bytes]]]:
    """The address of a hub, and the files of its repository."""
    handler = type("OneRepository", (Hub,), {"files": {}, "commit": "0123456789abcdef0123456789abcdef01234567"})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler.files
    server.shutdown()
    server.server_close()


def test_to_a_hub_and_back(hub: tuple[str, dict[str, bytes]], tone_run: Path, sound: Path, tmp_path: Path):
    """In a process of its own: the hub's client reads its settings when it is imported."""
    address, files = hub
    settings = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    command = [sys.executable, "-c", ROUND_TRIP, str(tone_run), str(sound)]
    done = subprocess.run(command, env={**kept, **settings}, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert {*checkpoint.FILES, "README.md"} <= set(files)
    assert files["model.safetensors"] == (tone_run / "model.safetensors").read_bytes()
    missing = "the repository has no model.safetensors, stapes.json, recipe.yaml"
    assert f"owner/empty: no such folder, and as a hub id: {missing}" in done.stdout
