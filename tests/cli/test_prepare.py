"""`stapes prepare` as a user types it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from stapes.cli.prepare import prepare
from stapes.data.corpora import CORPORA
from stapes.data.manifest import read_manifest
from stapes.errors import RecipeError

app = typer.Typer()
app.command()(prepare)


def run(*arguments: str | Path):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


@pytest.fixture
def recordings(tmp_path):
    folder = tmp_path / "recordings"
    folder.mkdir()
    for index in range(20):
        soundfile.write(folder / f"note_{index:02}.wav", np.full(16_000, 0.1), 16_000)
        (folder / f"note_{index:02}.txt").write_text(f"number {index}")
    return folder


def test_own_recordings_with_a_dev_set(recordings, tmp_path):
    (recordings / "note_03.txt").unlink()
    result = run("folder", recordings, tmp_path / "my", "--hold-out", "dev=0.1")
    assert result.exit_code == 0, result.output
    assert [line.partition("my/")[2] for line in result.stdout.splitlines()] == [
        "train.jsonl: 17 utterances, 0.00 h",
        "dev.jsonl: 2 utterances, 0.00 h",
        "dropped.jsonl",
    ]
    assert "dropped 1 (1 no transcript note_03.txt beside it), listed in" in result.stdout
    assert len(read_manifest(tmp_path / "my/dev.jsonl")) == 2


def test_renaming_and_several_hold_outs(recordings, tmp_path):
    options = ["--rename", "train=all", "--hold-out", "dev=3", "--hold-out", "tune=2", "--hold-out-from", "all", "--copy"]
    assert run("folder", recordings, tmp_path / "my", *options).exit_code == 0
    sizes = {name: len(read_manifest(tmp_path / f"my/{name}.jsonl")) for name in ("all", "dev", "tune")}
    assert sizes == {"all": 15, "dev": 3, "tune": 2}
    assert (tmp_path / "my/audio/note_00.wav").is_file()


def test_underscores_in_a_corpus_name(tmp_path):
    assert "slue-voxpopuli_fine-tune.tsv" in str(run("slue_voxpopuli", tmp_path, tmp_path / "my").exception)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hold-out", "dev"], "--hold-out: 'dev', expected NAME=VALUE"),
        (["--hold-out", "../dev=3"], "--hold-out: '../dev=3', expected NAME=VALUE"),
        (["--hold-out", "dev=some"], "--hold-out: 'dev=some', expected a number of utterances, or a share between 0 and 1"),
        (["--hold-out", "dev=0"], "--hold-out: 'dev=0', expected a number of utterances, or a share between 0 and 1"),
        (["--hold-out", "dev=2.5"], "--hold-out: 'dev=2.5', expected a number of utterances, or a share between 0 and 1"),
        (["--hold-out-by", "speakers"], "--hold-out-by: 'speakers'; did you mean 'speaker'?"),
        (["--rename", "train"], "--rename: 'train', expected NAME=VALUE"),
        (["--voices", "flite:slt"], "--voices: given with 'folder', expected spoken-text, which alone is said by voices"),
        (["--jobs", "2"], "--jobs: given with 'folder', expected spoken-text, which alone is said by voices"),
    ],
)
def test_options_that_are_wrong(recordings, tmp_path, options, message):
    error = run("folder", recordings, tmp_path / "my", *options).exception
    assert isinstance(error, RecipeError)
    assert str(error) == message


@pytest.mark.skipif(not shutil.which("espeak-ng"), reason="espeak-ng not installed")
def test_text_is_spoken_by_the_voices_that_are_named(tmp_path):
    (tmp_path / "dev.jsonl").write_text('{"id": "a", "text": "good morning"}\n')
    options = ["--voices", "espeak-ng:en-us, espeak-ng:en-gb", "--voices-per-text", "2", "--jobs", "1"]
    result = run("spoken_text", tmp_path / "dev.jsonl", tmp_path / "my", *options)
    assert result.exit_code == 0, result.output
    assert "dev.jsonl: 2 utterances" in result.stdout
    found = read_manifest(tmp_path / "my/dev.jsonl")
    assert {utterance.speaker for utterance in found} == {"espeak-ng:en-us", "espeak-ng:en-gb"}
    assert all(utterance.synthetic for utterance in found)


def test_help_names_every_corpus_and_shows_examples():
    shown = run("--help").output
    assert not [name for name in CORPORA if name not in shown]
    assert "stapes prepare folder recordings my --hold-out dev=0.1" in shown
