"""`stapes ls`: what there is, and that it can be used under the names that it lists."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from stapes import checkpoint, hub, recipe
from stapes.adapters import ADAPTERS
from stapes.errors import RecipeError

Run = Callable[..., Result]


def test_json(stapes: Run):
    facts = json.loads(stapes("ls", "--json").stdout)
    assert list(facts) == ["models", "recipes", "packs", "components"]
    assert {row["name"] for row in facts["recipes"]} >= {"toy", "stapes-base"}
    assert all(recipe.find(row["name"]) == Path(row["file"]) for row in facts["recipes"])
    assert all(row["what"] and not row["what"].startswith("#") for row in facts["recipes"])
    assert [row["name"] for row in facts["packs"]] == list(hub.packs())
    assert {row["folder"] for row in facts["packs"]} == {None}, "nothing is in this test's cache"
    assert set(facts["components"]) == {"encoder", "adapter", "llm", "task"}
    assert set(facts["components"]["adapter"]) == set(ADAPTERS)
    assert all(what for members in facts["components"].values() for what in members.values())
    assert [row["name"] for row in facts["models"]] == sorted(
        path.parent.name for path in checkpoint.MODELS.glob("*/stapes.json")
    )


def test_shipped_models(stapes: Run, toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = shutil.copytree(toy_run, tmp_path / "models/stapes-toy")
    monkeypatch.setattr(checkpoint, "MODELS", tmp_path / "models")
    (found,) = json.loads(stapes("ls", "--json").stdout)["models"]
    assert found == {
        "name": "stapes-toy",
        "encoder": "toy",
        "adapter": "stack_mlp",
        "llm": "toy",
        "tasks": "asr",
        "weights": {"encoder": None, "llm": None},
        "bytes": (folder / "model.safetensors").stat().st_size,
        "folder": str(folder),
    }
    assert checkpoint.find(found["name"]) == folder
    assert "stapes-toy" in stapes("ls").stdout


def test_tables_for_people(stapes: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkpoint, "MODELS", tmp_path)
    shown = stapes("ls").stdout
    assert "no model is shipped with this installation" in shown
    for name in ("toy", "whisper-base", "conv1d_transformer", "causal", "asr", "Apache-2.0"):
        assert name in shown


def test_recipes_are_found_by_name_and_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shipped = recipe.find("toy")
    assert recipe.find("toy.yaml") == shipped
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy").write_text("")
    assert recipe.find("toy") == Path("toy"), "a file of the user's comes first"
    with pytest.raises(RecipeError, match=r"toi\.yaml: no such recipe, .*; did you mean 'toy'\?"):
        recipe.find("toi.yaml")
