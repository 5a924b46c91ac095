"""What the documentation says can be done can be done: commands exist and run, links lead somewhere, the tree is the tree."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import contract
import pytest
import soundfile
import torch
import typer
import yaml
from llms.families import FAMILIES

from stapes import checkpoint, lora, recipe
from stapes.cli.main import app
from stapes.data.manifest import UtteranceLine, read_manifest, write_manifest
from stapes.encoders import ENCODERS
from stapes.recipe import reading
from stapes.tasks import TASKS
from stapes.training import sizes
from stapes.training.stages import train
from stapes.types import Entity, Utterance

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "examples/README.md"]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def blocks(language: str, pages: list[Path] = PAGES) -> list[str]:
    return [text for page in pages for found, text in BLOCK.findall(page.read_text()) if found == language]


def commands(pages: list[Path] = PAGES) -> Iterator[list[str]]:
    """Each command line of the pages' shell blocks, a pipe's parts apart, without what the shell does with its output."""
    for line in "".join(blocks("sh", pages)).splitlines():
        for part in line.partition("#")[0].split("|"):
            if words := shlex.split(part.partition(">")[0]):
                yield words


def the_command(words: list[str]) -> str:
    return " ".join(words)


@pytest.mark.parametrize("words", [words for words in commands() if words[0] == "stapes"], ids=the_command)
def test_a_stapes_command_takes_what_the_page_gives_it(words: list[str]):
    group = typer.main.get_command(app)
    assert words[1] in group.commands  # type: ignore[attr-defined]
    command = group.commands[words[1]]  # type: ignore[attr-defined]
    command.make_parser(command.context_class(command)).parse_args(words[2:])


@pytest.mark.parametrize("words", [words for words in commands() if words[0] != "stapes"], ids=the_command)
def test_any_other_command_is_there(words: list[str]):
    match words:
        case ["make", *targets]:
            known = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
            assert {target for target in targets if "=" not in target} <= set(known)
        case ["python", script, *arguments]:
            known = re.findall(r'"(--[\w-]+)"', (ROOT / script).read_text())
            assert {argument for argument in arguments if argument.startswith("--")} <= set(known)
        case [tool, *_] if tool.startswith(".venv/bin/"):
            development = (ROOT / "pyproject.toml").read_text()
            assert f'"{Path(tool).name}>=' in development
        case _:
            assert words[0] in ("source", "ffmpeg")


def test_links_lead_somewhere():
    broken = [
        (page.name, link)
        for page in PAGES
        for link in LINK.findall(page.read_text())
        if not link.startswith("http") and not (page.parent / link.partition("#")[0]).exists()
    ]
    assert broken == []


@pytest.mark.parametrize("text", blocks("yaml"))
def test_recipes_in_the_text_are_recipes(text: str):
    recipe.parse(yaml.load(text, reading._Loader))


@pytest.mark.parametrize("text", blocks("yaml", [ROOT / "docs/losses.md"]))
def test_recipes_of_losses_train(text: str, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On toys and the tone language: every stage for two steps, each of its losses a number, and what is trained moves."""
    monkeypatch.setenv("STAPES_CACHE", str(tmp_path / "cache"))
    rows = read_manifest(tones / "train.jsonl")
    labelled = [replace(row, entities=(Entity("PERSON", 0, 1, row.text[0]),)) for row in rows]
    write_manifest(tmp_path / "train.jsonl", labelled)
    values = yaml.load(text, reading._Loader)
    values |= {"encoder": {"name": "toy"}, "llm": {"name": "toy"}, "data": {"train": str(tmp_path / "train.jsonl")}}
    for stage in values.get("stages", [values.get("train")]):
        stage.pop("epochs")
        stage["steps"] = 2
    weighed = [set(stage.losses) for stage in recipe.parse(values).resolved_stages for _ in range(2)]
    folder = train(recipe.parse(values), tmp_path / "run", "cpu")
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [set(record) - {"stage", "step", "gradient_norm", "learning_rate"} for record in log] == weighed
    assert all(record["gradient_norm"] > 0 for record in log)


def test_the_table_of_losses_is_the_table():
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/losses.md").read_text(), flags=re.MULTILINE)
    assert sorted(rows) == sorted(get_args(recipe.LossName))


def test_the_table_of_tasks_says_what_they_write():
    """Each row, built as its recipe would build it, on the utterance of its heading."""
    text = (ROOT / "docs/tasks.md").read_text()
    said, meant = "jane doe met ten people in brussels", "Jane Doe met 10 people in Brussels."
    assert said in text
    spans = [("PERSON", "jane doe"), ("CARDINAL", "ten"), ("GPE", "brussels")]
    entities = tuple(Entity(label, said.index(phrase), said.index(phrase) + len(phrase), phrase) for label, phrase in spans)
    translations = {"fr": "Jane Doe a rencontré dix personnes à Bruxelles."}
    row = Utterance(
        id="u",
        audio=Path("u.wav"),
        text=said,
        duration=1.0,
        entities=entities,
        raw_text=meant,
        translations=translations,
        sentiment="Neutral",
    )
    rows = re.findall(r"^\| `(.+?)`(?:, `(.+?)`)? \| `(.+?)` \| `(.+)` \|$", text, flags=re.MULTILINE)
    for name, option, key, answer in rows:
        task = TASKS.build(yaml.safe_load(f"{{name: {name}, {option}}}"))
        assert task.key == key
        assert task.target(row).startswith(answer.removesuffix(", …]"))
    assert {name for name, *_ in rows} == {"asr", "ner", "sentiment", "translation"}


def test_the_recipe_that_extends_another_is_one(tmp_path: Path):
    (text,) = (text for text in blocks("") if text.startswith("extends:"))
    (tmp_path / "mine.yaml").write_text(text)
    found = recipe.load(tmp_path / "mine.yaml")
    assert found.adapter == {"name": "wlq_former", "queries": 2}
    assert found.encoder == recipe.load("papers/connect_base_whisper_mistral").encoder


def test_the_manifest_line_in_the_text_is_one():
    lines = "".join(blocks("json")).splitlines()
    assert lines
    for line in lines:
        UtteranceLine.model_validate_json(line)


def test_the_tree_in_the_text_is_the_tree():
    """Every module of src/stapes is named in the line of its folder, and no folder or top module that is not there."""
    page = (ROOT / "docs/architecture.md").read_text()
    tree = next(text for _, text in BLOCK.findall(page) if text.startswith("src/stapes/\n")).partition("\nrecipes/")[0]
    entries = re.findall(r"^ {2,4}([\w.]+/?) +((?:.*\n(?: {17,}.*\n)*))", tree + "\n", flags=re.MULTILINE)
    described = {name.rstrip("/"): re.sub(r"\([^)]*\)", "", text) for name, text in entries}
    package = ROOT / "src/stapes"
    folders = {path.parent for path in package.glob("*/**/*.py")}
    for folder in sorted(folders):
        for module in folder.glob("*.py"):
            if module.stem != "__init__":
                assert re.search(rf"\b{module.stem}\b", described[folder.name]), module
    modules = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    assert set(described) == modules | {folder.name for folder in folders} | {"models"}


# -- the examples of the README, on a model that needs no weights ----------------------------------------------------------


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, examples: Path) -> Path:
    """A user's folder: recordings with transcripts beside them, and a small model called stapes-base."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "recordings").mkdir()
    for found in read_manifest(examples):
        samples, rate = soundfile.read(found.audio)
        for half in (0, 1):
            name = folder / "recordings" / f"{found.id}-{half}"
            soundfile.write(name.with_suffix(".wav"), samples[half * len(samples) // 2 :], rate)
            name.with_suffix(".txt").write_text(f"{found.text.capitalize()}.\n")
    for name in ("talk.m4a", "a.wav", "b.mp3"):  # what is inside decides, not the name
        shutil.copy(next((folder / "recordings").glob("*.wav")), folder / name)
    run(folder, ["stapes", "train", "toy", "--set", f"data.train={examples}", "--set", "train.steps=2", "--run", "stapes-base"])
    return folder


def run(folder: Path, words: list[str], **environment: str) -> str:
    """Run a command in ``folder``; its standard output."""
    program = [sys.executable, "-m", "stapes.cli.main", *words[1:]] if words[0] == "stapes" else words
    settings = os.environ | {"STAPES_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"} | environment
    result = subprocess.run(program, cwd=folder, env=settings, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def section() -> Callable[[str], str]:
    """section(heading): that part of the README."""

    def find(heading: str) -> str:
        return (ROOT / "README.md").read_text().partition(f"## {heading}")[2].partition("\n## ")[0]

    return find


@pytest.fixture(scope="module")
def adapted(desk: Path, section: Callable[[str], str]) -> list[str]:
    """The five commands of "your own data", run; with 2 steps in place of 150."""
    text = section("Your own data")
    (written,) = (block for language, block in BLOCK.findall(text) if language == "yaml")
    assert len(written.splitlines()) == 3
    (desk / "my.yaml").write_text(written.replace("steps: 150", "steps: 2"))
    (script,) = (block for language, block in BLOCK.findall(text) if language == "sh")
    lines = [shlex.split(line, comments=True) for line in script.splitlines()]
    assert [words[1] for words in lines] == ["prepare", "evaluate", "train", "evaluate", "compare"]
    return [run(desk, words) for words in lines]


def test_five_commands_adapt_the_model_to_ones_own_data(adapted: list[str], desk: Path):
    prepared, before, _, after, difference = adapted
    assert [line.rpartition(": ")[2].split()[0] for line in prepared.splitlines()] == ["9", "1"]
    assert all("WER" in printed.upper() for printed in (before, after, difference))
    resolved = json.loads((desk / "my/run/stapes.json").read_text())["recipe"]
    assert resolved["encoder"] == {"name": "toy"} and resolved["adapter"]["name"] == "stack_mlp"
    log = [json.loads(line) for line in (desk / "my/run/metrics.jsonl").read_text().splitlines()]
    assert [record["stage"] for record in log] == ["before", "train", "train"]


def test_the_recipe_can_be_checked_first(adapted: list[str], desk: Path):
    assert "my/train.jsonl" in run(desk, ["stapes", "check", "my.yaml", "--json"])


@torch.no_grad()
def test_the_encoder_of_the_text_keeps_the_promises(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The class of docs/encoders.md, put into the table as the page says."""
    page = ROOT / "docs/encoders.md"
    (source,) = blocks("python", [page])
    (name, where) = re.search(r'`"(\w+)": "([\w.:]+)"`', page.read_text()).groups()  # type: ignore[union-attr]
    module = where.partition(":")[0]
    (tmp_path / f"{module.rpartition('.')[2]}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(ENCODERS.members, name, where.removeprefix("stapes.encoders."))
    assert f'`"{name}": {{"name": "{name}"}}`' in page.read_text()
    encoder = ENCODERS.build({"name": name}).eval()
    for check in contract.ENCODER_CHECKS:
        check(encoder)
    contract.pair_is_invariant(encoder, contract.build_adapter({"name": "linear"}, encoder.dim, encoder.seconds_per_frame))


@pytest.mark.parametrize(("number", "kind"), [(0, "w2v-bert"), (1, "wavlm-large")])
def test_the_recipes_of_encoders_train(
    number: int, kind: str, tiny_encoder: Callable[[str], Path], tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As they stand on the page, but with small random models, data of the tests, and two steps."""
    monkeypatch.setenv("STAPES_CACHE", str(tmp_path / "cache"))
    values = yaml.safe_load(blocks("yaml", [ROOT / "docs/encoders.md"])[number])
    values["encoder"]["weights"] = f"path:{tiny_encoder(kind)}"
    values["adapter"] |= {"dim": 16, "heads": 2, "layers": 1, "ffn_dim": 16}
    values |= {"llm": {"name": "toy"}, "data": {"train": str(tones / "train.jsonl"), "dev": str(tones / "dev.jsonl")}}
    values["train"] |= {"steps": 2, "trainable": values["train"].get("trainable", ["adapter"])}
    resolved = recipe.parse(values)
    found = sizes.outline(resolved)
    folder = train(resolved, tmp_path / "run", "cpu")
    model, _, _ = checkpoint.load(folder)
    assert sizes.counts(found.model) == lora.parameter_counts(model)
    assert found.frames_per_second == pytest.approx(1 / model.encoder.seconds_per_frame)
    weights = dict(model.named_parameters()).get("encoder.layer_weights")
    assert (weights is not None and bool(weights.any())) == (values["encoder"].get("layer") == "weighted")


@pytest.mark.parametrize(("number", "family", "prompt"), [(0, "Qwen3", "<|im_start|>system"), (1, "Vicuna 1.5", "USER: ")])
def test_the_recipes_of_llms_train(
    number: int, family: str, prompt: str, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As they stand on the page, but with a small random LLM, the toy encoder, data of the tests, and one step."""
    monkeypatch.setenv("STAPES_CACHE", str(tmp_path / "cache"))
    FAMILIES[family].write(tmp_path / "llm")
    values = yaml.safe_load(blocks("yaml", [ROOT / "docs/llms.md"])[number])
    values["llm"]["weights"] = f"path:{tmp_path / 'llm'}"
    values["adapter"]["hidden_dim"] = 16
    values |= {"encoder": {"name": "toy"}, "data": {"train": str(tones / "train.jsonl")}}
    trainable = ["adapter", "llm.lora"] if "lora" in values else ["adapter"]
    values["train"] = {"steps": 1, "trainable": trainable}
    folder = train(recipe.parse(values), tmp_path / "run", "cpu")
    (record,) = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    assert record["next_token"] > 0 and record["gradient_norm"] > 0
    model, _, _ = checkpoint.load(folder)
    assert prompt in model.llm.tokenizer.decode(model.prompts["asr"][0].before)
    moved = [bool(tensor.any()) for name, tensor in model.named_parameters() if "lora_B" in name]
    assert any(moved) == ("lora" in values)


def test_a_paper_is_checked_and_a_pair_is_examined_as_the_text_has_it(tmp_path: Path):
    """Those of the quickstart's commands that need no weights."""
    words = [
        words for words in commands([ROOT / "docs/quickstart.md"]) if words[:2] in (["stapes", "check"], ["stapes", "doctor"])
    ]
    (check,) = (line for line in words if line[2].startswith("papers/"))
    assert "196,790,784" in run(tmp_path, check, HF_HUB_OFFLINE="1", COLUMNS="120")
    (doctor,) = (line for line in words if line[2:4] == ["toy", "toy"])
    shown = run(tmp_path, doctor)
    assert shown.count("\nok ") > 10
    assert "wrong" not in shown


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md", "docs/metrics.md"])
def test_the_python_of_the_text_runs(page: str, desk: Path, adapted: list[str]):
    (script,) = blocks("python", [ROOT / page])
    assert run(desk, [sys.executable, "-c", script]).strip()


def test_the_probe_of_the_results_runs(desk: Path, adapted: list[str]):
    (script,) = blocks("python", [ROOT / "docs/results.md"])
    script = script.replace("prepared/slue-voxpopuli/tune.jsonl", "my/train.jsonl")
    assert run(desk, [sys.executable, "-c", script]).startswith("Probe(right=")


def test_the_exports_of_the_page_run(desk: Path, adapted: list[str]):
    page = [ROOT / "docs/finetuning.md"]
    for words in commands(page):
        run(desk, words)
    (script,) = blocks("python", page)
    text, parameters = run(desk, [sys.executable, "-c", script]).rsplit("\n", 2)[:2]
    assert text == run(desk, ["stapes", "transcribe", "talk.m4a", "--model", "my/run"]).rstrip("\n")
    assert int(parameters) > 0
