"""Every adapter's module has a paper card, and what the card names is there."""

import inspect
import re
import sys

import contract
import pytest

from stapes.adapters import ADAPTERS, DERIVED, Adapter

ROW = re.compile(r"^\| (.*) \| (.*) \| (.*)\|$", flags=re.MULTILINE)


@pytest.fixture(params=list(ADAPTERS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def card(name: str) -> str:
    return inspect.getdoc(sys.modules[ADAPTERS[name].__module__]) or ""


def test_it_says_what_it_does_and_where_it_is_from(card: str, name: str):
    first = card.partition("\n\n")[0]
    assert re.fullmatch(rf"``{name}``: [^.]+\. .*(arXiv \d{{4}}\.\d{{5}}|\(github\.com/[\w./-]+\))\.", first), first


def test_it_has_an_equation(card: str):
    assert re.search(r"^    \S.* = ", card, flags=re.MULTILINE)


def test_it_says_what_differs(card: str):
    source = "paper" if "arXiv" in card.partition("\n\n")[0] else "code"
    assert re.search(rf"^Differs from the {source}: \S", card, flags=re.MULTILINE)


def test_its_table_names_what_is_there(card: str, name: str):
    """Of each name in the column ``here``: an option, a part of the adapter, something in its module, or another adapter."""
    assert re.search(r"^\| \w+ \| here \| shape \|\n\|---\|---\|---\|\n\| ", card, flags=re.MULTILINE)
    _, *rows = ROW.findall(card)
    names = {found for _, cell, _ in rows for found in re.findall(r"``(\w+)", cell)}
    assert len(rows) >= 2 and names
    module, adapter = (
        sys.modules[ADAPTERS[name].__module__],
        contract.build_adapter({"name": name} | contract.VARIANTS[name][0]),
    )
    known = {"frames", *ADAPTERS, *inspect.signature(ADAPTERS[name]).parameters}
    assert {found for found in names - known if not hasattr(adapter, found) and not hasattr(module, found)} == set()


def test_its_options_are_explained(name: str):
    kinds = [kind for kind in ADAPTERS[name].__mro__ if issubclass(kind, Adapter)]
    explained = "\n".join(inspect.getdoc(kind) or "" for kind in kinds)
    missing = [
        key for key in ADAPTERS.options(name, DERIVED) if not re.search(rf"^    {key}: \S", explained, flags=re.MULTILINE)
    ]
    assert missing == []
