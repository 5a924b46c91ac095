import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from stapes.cli.fetch import fetch
from stapes.errors import CheckpointError, WeightsError

app = typer.Typer()
app.command()(fetch)
RUNNER = CliRunner()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def run_folder(path: Path, description: object) -> Path:
    path.mkdir()
    (path / "stapes.json").write_text(json.dumps(description))
    return path


def test_sources_are_printed_with_where_they_lie(base: Path):
    done = RUNNER.invoke(app, [f"path:{base}"])
    assert (done.exit_code, done.stdout) == (0, f"path:{base}\tpath:{base}\t{base}\n")


def test_a_checkpoint_brings_its_encoder_and_llm(base: Path, tmp_path: Path):
    sources = {"sources": ["path:/nowhere", f"path:{base}"]}
    run = run_folder(tmp_path / "run", {"encoder": {"name": "whisper", **sources}, "llm": sources})
    done = RUNNER.invoke(app, ["--quiet", str(run)])
    assert done.exit_code == 0
    assert done.stdout == f"run encoder\tpath:{base}\t{base}\nrun llm\tpath:{base}\t{base}\n"


def test_a_shipped_model_is_found_by_name(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run_folder(tmp_path / "stapes-toy", {"encoder": {"name": "toy"}, "llm": {"sources": [f"path:{base}"]}})
    monkeypatch.setattr("stapes.cli.fetch._MODELS", tmp_path)
    assert RUNNER.invoke(app, ["stapes-toy"]).stdout == f"stapes-toy llm\tpath:{base}\t{base}\n"


def test_unknown_names_list_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run_folder(tmp_path / "stapes-toy", {})
    monkeypatch.setattr("stapes.cli.fetch._MODELS", tmp_path)
    error = RUNNER.invoke(app, ["stapes-tiy"]).exception
    assert isinstance(error, WeightsError)
    assert "known: stapes-toy, whisper-tiny.en, whisper-base, smollm2-135m-instruct, en-core-web-md" in str(error)


@pytest.mark.parametrize("description", [[], {"encoder": {}}, {"encoder": 1, "llm": 2}])
def test_a_damaged_description_is_one_clear_error(description: object, tmp_path: Path):
    error = RUNNER.invoke(app, [str(run_folder(tmp_path / "run", description))]).exception
    assert isinstance(error, CheckpointError)
    assert "expected a JSON object with an encoder and an llm" in str(error)


def test_help_has_examples():
    done = RUNNER.invoke(app, ["--help"])
    assert "stapes fetch whisper-base smollm2-135m-instruct" in " ".join(done.stdout.split())
