"""docs/add-an-adapter.md, to the letter: its files and lines, written into a copy of the project, pass what it says is run."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/add-an-adapter.md").read_text()
STEP = re.compile(r"^`([\w./-]+)`(?:[^\n]+\n)+\n```\w+\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the page's adapter in it."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("src", "tests", "docs", "recipes", "examples"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "models"))
    for name in ("pyproject.toml", "README.md", "CONTRIBUTING.md", "Makefile", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    steps = dict(STEP.findall(PAGE))
    assert len(steps) == 5, list(steps)
    for path, text in steps.items():
        file = folder / path
        match path:
            case "src/stapes/adapters/__init__.py":
                insert(file, "    },\n", text)
            case "tests/contract.py":
                insert(file, "}\n", text)
            case "docs/papers.toml":
                file.write_text(f"{file.read_text()}\n{text}")
            case _:
                assert not file.exists()
                file.write_text(text)
    tree = folder / "docs/architecture.md"
    (name,) = re.findall(r"the module's name, `(\w+)`", PAGE)
    tree.write_text(re.sub(r"^( {2}adapters/ +)", rf"\1{name}, ", tree.read_text(), flags=re.MULTILINE))
    return folder


def insert(file: Path, end: str, line: str) -> None:
    """Put a line before the first line that is ``end``."""
    lines = file.read_text().splitlines(keepends=True)
    lines.insert(lines.index(end), line)
    file.write_text("".join(lines))


def run(folder: Path, *words: str) -> str:
    """Run a Python program in the copy, on the copy's package; its standard output."""
    settings = os.environ | {"PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, *words], cwd=folder, env=settings, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def commands() -> list[list[str]]:
    (script,) = re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    return [shlex.split(line, comments=True) for line in script.splitlines()]


def test_its_tests_pass(copy: Path, commands: list[list[str]]):
    program, *arguments = commands[0]
    assert program == ".venv/bin/pytest"
    assert run(copy, "-c", "import stapes; print(stapes.__file__)").startswith(str(copy))
    told = run(copy, "-m", "pytest", "-p", "no:cacheprovider", "-vv", *arguments)
    for part in ("test_mean_linear.py", "adapters/test_contract.py", "adapters/test_cards.py", "encoders/test_contract.py"):
        assert re.search(rf"{part}::.* PASSED", told), part
    assert re.search(r"test_adapter\[mean_linear stride=3-every_frame_is_heard\] PASSED", told)


def test_its_documentation_is_made_and_consistent(copy: Path, commands: list[list[str]]):
    assert commands[1:] == [["make", "docs"], ["make", "check", "test"]]
    run(copy, "docs/generate.py")
    assert "## mean_linear\n\nAverage k frames, then one linear layer. Qwen2-Audio" in (copy / "docs/adapters.md").read_text()
    assert "## Qwen2-Audio" in (copy / "docs/papers.md").read_text()
    chosen = ["tests/docs/test_generate.py", "tests/test_docs.py::test_the_tree_in_the_text_is_the_tree"]
    run(copy, "-m", "pytest", "-p", "no:cacheprovider", *chosen)


def test_its_code_is_clean(copy: Path):
    files = ["src/stapes/adapters/mean_linear.py", "src/stapes/adapters/__init__.py", "tests/adapters/test_mean_linear.py"]
    run(copy, "-m", "ruff", "check", "--no-cache", *files)
    run(copy, "-m", "ruff", "format", "--no-cache", "--check", *files)
