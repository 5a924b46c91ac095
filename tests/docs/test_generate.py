"""The pages made by docs/generate.py are those that are there, and what papers.toml names exists."""

import ast
import fnmatch
import re
import runpy
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from stapes import recipe
from stapes.adapters import ADAPTERS, DERIVED
from stapes.encoders import ENCODERS
from stapes.llms import LLMS
from stapes.recipe import reading, sections
from stapes.registry import Table

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src/stapes").rglob("*.py"))
PAPERS = tomllib.loads((ROOT / "docs/papers.toml").read_text())["paper"]
MECHANISMS = [(paper, entry) for paper in PAPERS for entry in paper["mechanism"]]
FILES = {file for _, entry in MECHANISMS for file in entry.get("files", [])}
OPTIONS = [option for _, entry in MECHANISMS for option in entry.get("options", [])]
GENERATE = runpy.run_path(str(ROOT / "docs/generate.py"))


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    """Each page as `make docs` would write it now."""
    pages: dict[str, Callable[[], str]] = GENERATE["PAGES"]
    return {name: make() for name, make in pages.items()}


@pytest.mark.parametrize("page", ["adapters.md", "papers.md", "recipes.md"])
def test_a_page_is_what_make_docs_writes(made: dict[str, str], page: str):
    assert (ROOT / "docs" / page).read_text() == made[page], f"docs/{page} is not up to date; run `make docs`"


# -- adapters.md -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "embeddings", "parameters", "lengths", "losses"),
    [
        ("linear", "12.5", 4 * 512 * 576 + 576, "exact", ""),
        ("stack_mlp", "10", 5 * 512 * 2048 + 2048 + 2048 * 576 + 576, "exact", ""),
        ("pool_linear", "8.33", 2 * 512 + 512 * 576 + 576, "exact", ""),
        ("posterior", "12.5", 49_153 * (4 * 512 + 1), "exact; with `compress: true` by content", "`token_ctc`"),
        ("cif", "at most 50", None, "by content", "`quantity`"),
        ("q_former", "80 for an utterance", None, "exact", ""),
        ("segment_q_former", "80 for each 30 s", None, "exact", ""),
        ("wlq_former", "2.94", None, "exact", ""),
    ],
)
def test_the_overview(made: dict[str, str], name: str, embeddings: str, parameters: int | None, lengths: str, losses: str):
    (row,) = re.findall(rf"^\| \[{name}\]\(#{name}\) \| (.*) \|$", made["adapters.md"], flags=re.MULTILINE)
    *_, found_embeddings, found_parameters, found_lengths, found_losses = row.split(" | ")
    assert (found_embeddings, found_lengths, found_losses.strip()) == (embeddings, lengths, losses)
    assert parameters is None or int(found_parameters.replace(",", "")) == parameters


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_section_explains_every_option(made: dict[str, str], name: str):
    section = made["adapters.md"].partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| \S.* \|$", section.partition("| option |")[2], flags=re.MULTILINE)
    defaults = {key: option.default for key, option in ADAPTERS.options(name, DERIVED).items()}
    assert [key for key, _ in rows] == list(defaults)
    for key, written in rows:
        value = defaults[key]
        assert yaml.safe_load(written) == (pytest.approx(value, rel=1e-3) if isinstance(value, float) else value), key


def test_equations_stay_as_they_are_and_text_becomes_markdown():
    text = "See ``conv``, T* of arXiv 2409.17044: ``a*b``.\n\n    x* = ``y`` (arXiv 2409.17044)"
    assert GENERATE["markdown"](text) == (
        r"See `conv`, T\* of [arXiv 2409.17044](https://arxiv.org/abs/2409.17044): `a*b`." "\n\n    x* = y (arXiv 2409.17044)"
    )
    assert GENERATE["markdown"]("as in ``conv``, see ``attention``") == "as in [`conv`](#conv), see `attention`"


def test_a_pattern_of_recipes_leads_to_their_folder():
    row = GENERATE["mechanism"]({"what": "a", "recipes": ["toy", "papers/connect_*"]})
    assert row[2] == "[recipes/toy.yaml](../recipes/toy.yaml), [recipes/papers/connect_*.yaml](../recipes/papers)"


# -- recipes.md --------------------------------------------------------------------------------------------------------


def test_every_key_of_a_recipe_is_explained_with_its_default(made: dict[str, str]):
    known = {kind for kind in vars(sections).values() if isinstance(kind, type) and issubclass(kind, sections.Section)}
    named: dict[str, type[sections.Section]] = GENERATE["RECIPE_SECTIONS"]
    assert set(named.values()) == known - {sections.Section, sections.Losses}
    page = made["recipes.md"]
    for title, kind in named.items():
        section = page.partition(f"\n## {title[:1].upper()}{title[1:]}\n")[2].partition("\n## ")[0]
        rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \| \S.* \|$", section, flags=re.MULTILINE))
        expected = {"name", "mixture"} if kind is sections.Stage else kind.model_fields.keys()
        assert rows.keys() == expected, title
        for key, written in rows.items():
            default = kind.model_fields[key].default
            if written.startswith("`"):
                default = list(default) if isinstance(default, tuple) else default
                assert yaml.load(written.strip("`"), reading._Loader) == default, f"{title}.{key}"


# -- papers.toml and papers.md -----------------------------------------------------------------------------------------


def test_entries_have_known_keys():
    assert {key for paper in PAPERS for key in paper} == {"id", "name", "about", "mechanism"}
    assert {key for _, entry in MECHANISMS for key in entry} <= {"what", "files", "options", "recipes", "note"}
    unbuilt = [entry["what"] for _, entry in MECHANISMS if not entry.get("files") and {"options", "recipes"} & set(entry)]
    assert not unbuilt, "an option or a recipe of what is not there"


def test_files_exist():
    assert FILES
    assert {file for file in FILES if not (ROOT / file).is_file()} == set()


def test_recipes_exist():
    named = {name for _, entry in MECHANISMS for name in entry.get("recipes", [])}
    assert named
    assert {name for name in named if not fnmatch.filter(recipe.shipped(), name)} == set()


@pytest.mark.parametrize("option", sorted(set(OPTIONS)))
def test_an_option_is_part_of_a_recipe(option: str):
    toy = yaml.load((ROOT / "recipes/toy.yaml").read_text(), reading._Loader)
    recipe.parse(toy | yaml.load(option, reading._Loader))


@pytest.mark.parametrize("table", [ADAPTERS, ENCODERS, LLMS], ids=lambda table: table.kind)
def test_every_member_of_a_table_is_named(table: Table):
    missing = {name: file for name in table if (file := source(table, name)) not in FILES}
    assert missing == {}
    chosen = [yaml.load(option, reading._Loader).get(table.kind, {}).get("name") for option in OPTIONS]
    assert set(table) <= set(chosen)


def source(table: Table, name: str) -> str:
    """The file of a table's member, from the root of the checkout."""
    return Path(sys.modules[table[name].__module__].__file__ or "").relative_to(ROOT).as_posix()


def test_every_loss_is_named():
    modules = {f"src/stapes/losses/{path.name}" for path in (ROOT / "src/stapes/losses").glob("*.py")}
    assert modules - {"src/stapes/losses/__init__.py", "src/stapes/losses/base.py"} <= FILES
    weighed = {loss for option in OPTIONS for loss in yaml.load(option, reading._Loader).get("train", {}).get("losses", {})}
    assert weighed == set(losses_of_a_stage())


def losses_of_a_stage() -> tuple[str, ...]:
    """The names that ``train.losses`` takes."""
    mapping: Any = recipe.Train.model_fields["losses"].annotation
    names: tuple[str, ...] = mapping.__args__[0].__args__
    return names


def cited() -> Iterator[tuple[str, str]]:
    """(file, arXiv id) for each paper that a docstring of the package names."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                for found in GENERATE["ARXIV"].findall(ast.get_docstring(node) or ""):
                    yield path.relative_to(ROOT).as_posix(), found


def test_every_paper_of_a_docstring_is_on_the_page(made: dict[str, str]):
    papers = list(cited())
    assert ("src/stapes/adapters/stack_mlp.py", "2402.08846") in papers
    assert [(file, paper) for file, paper in papers if f"https://arxiv.org/abs/{paper})" not in made["papers.md"]] == []
