"""The wheel: whole, small, and working on a machine that has no checkout."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from stapes.data.manifest import read_manifest
from stapes.metrics.wer import wer

ROOT = Path(__file__).parents[1]
MODELS = ROOT / "src/stapes/models"
SHIPPED = sorted({"stapes-base", *(path.parent.name for path in MODELS.glob("*/stapes.json"))})
FILES_OF_A_MODEL = {"model.safetensors", "stapes.json", "recipe.yaml", "metrics.jsonl", "README.md"}
BYTES = 45_000_000  # a model may have 20 MB, and the code next to nothing
WORST_WER = 40.0  # of the five easy example sentences


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(scope="module")
def stapes(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """stapes(arguments...): standard output of the installed command, run in an empty folder.

    The wheel lies in a folder of its own in front of everything else; its dependencies are those of the running Python.
    """
    site, folder = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("elsewhere")
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", site, wheel]
    subprocess.run(install, check=True, capture_output=True)

    def run(*arguments: object) -> str:
        environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "2"}
        command = [site / "bin" / "stapes", *map(str, arguments)]
        result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout

    where = subprocess.run(
        [sys.executable, "-c", "import stapes; print(stapes.__file__)"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(site)
    return run


def test_it_holds_the_package_and_nothing_else(names: set[str], wheel: Path):
    assert all(name.startswith("stapes/") or ".dist-info/" in name for name in names)
    sources = {f"stapes/{path.relative_to(ROOT / 'src/stapes')}" for path in (ROOT / "src/stapes").rglob("*.py")}
    assert sources | {"stapes/py.typed", "stapes/hub/packs.toml", "stapes/hub/sizes.toml"} <= names
    assert wheel.stat().st_size < BYTES


def test_recipes_travel_along(names: set[str]):
    recipes = {f"stapes/recipes/{path.relative_to(ROOT / 'recipes')}" for path in (ROOT / "recipes").rglob("*.yaml")}
    assert "stapes/recipes/stapes-base.yaml" in recipes
    assert {name for name in names if name.startswith("stapes/recipes/")} == recipes


@pytest.mark.parametrize("model", SHIPPED)
def test_models_travel_along(names: set[str], model: str):
    assert {f"stapes/models/{model}/{file}" for file in FILES_OF_A_MODEL} <= names


def test_it_trains_and_transcribes_outside_the_checkout(stapes: Callable[..., str], examples: Path):
    """With a recipe out of the wheel, and without any weights."""
    stapes("train", "toy", "--set", f"data.train={examples}", "--set", "train.steps=2", "--run", "run")
    sound = read_manifest(examples)[0].audio
    assert json.loads(stapes("transcribe", sound, "--model", "run", "--format", "json"))["file"] == str(sound)


@pytest.mark.weights
@pytest.mark.parametrize("model", SHIPPED)
def test_its_models_transcribe_outside_the_checkout(
    stapes: Callable[..., str], pack: Callable[[str], Path], examples: Path, model: str
):
    description = json.loads((MODELS / model / "stapes.json").read_text())
    for part in ("encoder", "llm"):
        pack(description[part]["sources"][0].removeprefix("pack:"))
    rows = read_manifest(examples)
    found = stapes("transcribe", *(row.audio for row in rows), "--model", model, "--format", "json").splitlines()
    assert wer([row.text for row in rows], [json.loads(line)["text"] for line in found], resamples=0).value < WORST_WER
