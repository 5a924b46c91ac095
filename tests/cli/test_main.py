"""How the command line begins and ends: quick help, one line for a user's error, and the exit status."""

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

import stapes as package
from stapes.errors import AudioError

COMMANDS = ("transcribe", "evaluate", "compare", "slue", "train", "check", "prepare", "annotate", "fetch", "ls")
Run = Callable[..., Result]


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "stapes.cli.main", *arguments], capture_output=True, text=True, check=False)


def test_starting_up_imports_nothing_heavy():
    heavy = ("torch", "numpy", "transformers", "pydantic", "yaml", "huggingface_hub")
    code = f"import sys, stapes.cli.main; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_process_of_its_own(tmp_path: Path):
    shown = process("--version")
    assert (shown.returncode, shown.stdout) == (0, f"stapes {package.__version__}\n")
    failed = process("transcribe", str(tmp_path / "nope.wav"))
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr == f"error: {tmp_path / 'nope.wav'}: no such file, expected a sound file\n"


def test_help_names_every_command_and_each_has_examples(stapes: Run):
    shown = stapes("--help")
    assert shown.exit_code == 0
    assert [command for command in COMMANDS if not re.search(rf"^  {command} +\w", shown.stdout, re.MULTILINE)] == []
    for command in COMMANDS:
        text = stapes(command, "-h").stdout
        assert "Examples:" in text, command
        said, _, examples = text.partition("Examples:")
        assert f"stapes {command} " in examples or command == "ls"
        assert not re.search(r"\S {3,}\S", said), f"{command}: paragraphs flow"
        assert not re.search(r"{[a-z]", said), f"{command}: arguments are called as its text calls them"


def test_nothing_asked_shows_what_there_is(stapes: Run):
    shown = stapes()
    assert shown.exit_code == 2
    assert "transcribe" in shown.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["transscribe", "a.wav"], "No such command 'transscribe'"),
        (["transcribe"], "Missing argument 'FILE...'"),
        (["evaluate", "stapes-base"], "Missing option '--data'"),
        (["transcribe", "a.wav", "--beams", "0"], "Invalid value for '--beams'"),
        (["train", "toy", "--steps", "3"], "No such option '--steps'"),
    ],
)
def test_a_command_line_that_is_wrong(stapes: Run, arguments: list[str], message: str):
    result = stapes(*arguments)
    assert result.exit_code == 2
    assert re.sub(r"\W+", " ", message.replace("...", "")).strip() in re.sub(r"\W+", " ", result.stderr.replace("...", ""))


@pytest.mark.parametrize(
    ("raised", "status", "stderr"),
    [
        (AudioError("a.wav", "silent"), 2, "error: a.wav: silent\n"),
        (KeyboardInterrupt(), 130, ""),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: writing: No space left on device\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "error: /x: Permission denied\n"),
    ],
)
def test_how_it_ends(stapes: Run, monkeypatch: pytest.MonkeyPatch, raised: BaseException, status: int, stderr: str):
    def fail(files: list[str]) -> None:
        raise raised

    monkeypatch.setattr("stapes.cli.transcribe.expand", fail)
    result = stapes("transcribe", "a.wav")
    assert (result.exit_code, result.stdout, result.stderr) == (status, "", stderr)


@pytest.mark.parametrize("mistake", [ValueError("ours"), FileNotFoundError(errno.ENOENT, "ours")])
def test_a_mistake_of_ours_keeps_its_traceback(stapes: Run, monkeypatch: pytest.MonkeyPatch, mistake: Exception):
    def fail(files: list[str]) -> None:
        raise mistake

    monkeypatch.setattr("stapes.cli.transcribe.expand", fail)
    assert stapes("transcribe", "a.wav").exception is mistake


def test_a_reader_that_goes_away(tmp_path: Path):
    """`stapes ls --json | head -c 0`: no traceback."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "stapes.cli.main", "ls", "--json"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
