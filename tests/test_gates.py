"""House rules that no linter knows."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src/stapes").rglob("*.py"))
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
TEXTS = [
    path
    for folder in ("src", "tests", "docs", "recipes", "examples", "benchmarks", ".ci")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".py", ".md", ".yaml", ".toml", ".json", "") and path.is_file() and path != Path(__file__)
] + [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "Makefile", ROOT / "pyproject.toml"]
MODEL_BYTES = 20_000_000


def test_names_say_what_is_inside():
    vague = {"utils", "util", "common", "helpers", "helper", "misc", "manager"}
    assert not [path for path in SOURCES if vague & set(path.with_suffix("").parts)]


def test_recipes_are_short():
    assert {path.name: count for path in RECIPES if (count := len(path.read_text().splitlines())) > 25} == {}


def test_shipped_models_are_small_and_have_a_card():
    for folder in (ROOT / "src/stapes/models").glob("*/"):
        assert (folder / "README.md").is_file(), folder
        assert (folder / "model.safetensors").stat().st_size < MODEL_BYTES, folder


def test_texts_name_no_folder_of_one_machine():
    machine = re.compile(r"(?<![\w.$])/(work|root|home/\w+|Users/\w+)/")
    found = [
        f"{path.relative_to(ROOT)}: {line}" for path in TEXTS for line in path.read_text().splitlines() if machine.search(line)
    ]
    assert found == []


def test_the_pinned_torch_is_within_the_range_that_is_served():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    served = next(each for each in map(Requirement, project["dependencies"]) if each.name == "torch")
    pinned = re.search(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert pinned and Version(pinned[1]) in served.specifier
