"""The Makefile: what it does on a machine where nothing is installed, and what it leaves alone the second time."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAMPS = (".runtime", ".development")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What `make setup` reads of a clone."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("FILE", "PYTHON", "MAKEFLAGS", "MODEL")}
    return subprocess.run(["make", "-C", folder, *arguments], capture_output=True, text=True, env=environment, check=False)


def python(folder: Path, script: str) -> Path:
    """A stand-in for a machine's Python."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_an_old_python_is_named(clone: Path):
    pretends = "import sys; sys.version_info = (3, 9, 2); exec(sys.argv[1])"
    old = python(clone, f"""[ "$1" = -V ] && echo Python 3.9.2 || exec {sys.executable} -c '{pretends}' "$2" """)
    result = make(clone, "setup", f"PYTHON={old}")
    assert result.returncode == 2
    assert f"{old} is Python 3.9.2, expected Python 3.11 or newer; add PYTHON=" in result.stderr
    assert not (clone / ".venv").exists()


def test_no_python_is_said(clone: Path):
    result = make(clone, "setup", "PYTHON=/nowhere/python")
    assert result.returncode == 2
    assert "no /nowhere/python on this machine, expected Python 3.11 or newer" in result.stderr


def test_a_python_without_venv_is_said(clone: Path):
    """Debian's python3 without python3-venv."""
    bare = python(clone, f'case "$2" in *ensurepip*) exit 1;; *) exec {sys.executable} "$@";; esac')
    result = make(clone, "setup", f"PYTHON={bare}")
    assert result.returncode == 2
    assert "apt install python3-venv" in result.stderr


def test_a_virtual_environment_comes_first_and_the_pinned_torch_with_it(clone: Path):
    lines = make(clone, "-n", "setup").stdout.splitlines()
    made = next(number for number, line in enumerate(lines) if "-m venv .venv" in line)
    installed = next(number for number, line in enumerate(lines) if "pip install" in line)
    assert made < installed
    assert "-c constraints.txt" in lines[installed] and '-e ".[annotate,dev]"' in lines[installed]


def test_what_is_installed_stays_until_its_pins_change(clone: Path):
    (clone / ".venv/bin").mkdir(parents=True)
    (clone / ".venv/bin/pip").touch()
    later = time.time() + 10
    for stamp in STAMPS:
        (clone / ".venv" / stamp).touch()
        os.utime(clone / ".venv" / stamp, (later, later))
    assert "pip install" not in make(clone, "-n", "setup", "demo", "test", "check").stdout
    os.utime(clone / "constraints.txt", (later + 10, later + 10))
    assert "pip install" in make(clone, "-n", "setup").stdout
    assert "pip install" in make(clone, "-n", "demo").stdout


def test_a_file_of_ones_own_is_transcribed(clone: Path):
    assert 'stapes transcribe "my talk.wav"' in make(clone, "-n", "demo", "FILE=my talk.wav").stdout
    assert "examples/transcribe.py" in make(clone, "-n", "demo").stdout


def test_documentation_is_made_by_the_script_beside_it(clone: Path):
    (clone / "docs").mkdir()
    assert ".venv/bin/python docs/generate.py" in make(clone, "-n", "docs").stdout.splitlines()
    assert "make docs" in make(clone, "help").stdout
