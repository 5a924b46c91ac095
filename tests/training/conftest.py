"""Small runs on the tone language, in this process and in others."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from stapes import recipe
from stapes.recipe import Recipe
from stapes.training.loop import Loop
from stapes.training.stages import train

PROGRAM = """
import sys
from pathlib import Path
from stapes import recipe
from stapes.training.stages import train
train(recipe.load(sys.argv[1]), Path(sys.argv[2]), "cpu")
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STAPES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of other processes, so that two of them share the cores


@pytest.fixture
def sections(tones: Path) -> Callable[..., dict[str, Any]]:
    """sections(train=..., data=..., ...): a recipe of toys on the tone language; these two are added to, others replaced."""

    def make(**changes: Any) -> dict[str, Any]:
        data = {"train": str(tones / "train.jsonl")} | changes.pop("data", {})
        train = {"steps": 3, "batch_seconds": 8, "trainable": ["adapter", "ctc"], "losses": {"next_token": 1.0, "ctc": 0.3}}
        return {
            "encoder": {"name": "toy"},
            "adapter": {"name": "stack_mlp", "stride": 3, "hidden_dim": 32},
            "llm": {"name": "toy"},
            "ctc": {"merges": 1000, "compress": False},
            "data": data,
            "train": train | changes.pop("train", {}),
        } | changes

    return make


@pytest.fixture
def toy_recipe(sections: Callable[..., dict[str, Any]]) -> Callable[..., Recipe]:
    """toy_recipe(train=..., ...): such a recipe."""
    return lambda **changes: recipe.parse(sections(**changes))


@pytest.fixture
def run(toy_recipe: Callable[..., Recipe], tmp_path: Path) -> Callable[..., Path]:
    """run(name, train=..., ...): train such a recipe in this process, into a folder of that name."""
    return lambda name, **changes: train(toy_recipe(**changes), tmp_path / name, "cpu")


@pytest.fixture
def broken_off(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AbstractContextManager[None]]:
    """broken_off(stage, after): a run in this context ends, as by Ctrl-C, when that stage has made so many steps."""

    @contextmanager
    def context(stage: str, after: int) -> Iterator[None]:
        step = Loop._step

        def stop(self: Loop, *arguments: Any) -> dict[str, float]:
            if (self.stage.name, self.schedule.last_epoch) == (stage, after):
                raise KeyboardInterrupt
            return step(self, *arguments)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Loop, "_step", stop)
            yield

    return context


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen]:
    """start(recipe, folder, launcher): train in another process, which the test ends or waits for."""
    running: list[subprocess.Popen] = []

    def begin(values: dict[str, Any], folder: Path, launcher: Sequence[str] = ()) -> subprocess.Popen:
        file, program = tmp_path / f"{folder.name}.yaml", tmp_path / "program.py"
        file.write_text(json.dumps(values))  # which is YAML
        program.write_text(PROGRAM)
        command = [sys.executable, *launcher, str(program), str(file), str(folder)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def log_of(folder: Path) -> list[dict[str, Any]]:
    """The records of a run or stage."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def log() -> Callable[[Path], list[dict[str, Any]]]:
    """log(folder): the records of a run or stage."""
    return log_of


@pytest.fixture(scope="session")
def saved_llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small Llama, as ``causal`` reads it."""
    from stapes.llms.toy import ToyLLM

    folder, toy = tmp_path_factory.mktemp("llm"), ToyLLM(dim=16)
    toy.model.save_pretrained(folder)
    toy.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def resolved(tiny_whisper: Path, saved_llm: Path) -> recipe.Recipe:
    """A small Whisper and a small Llama on disk, an adapter, a CTC head and LoRA."""
    return recipe.parse(
        {
            "encoder": {"name": "whisper", "weights": ["path:/nowhere", f"path:{tiny_whisper}"]},
            "adapter": {"name": "conv1d_transformer", "dim": 32, "heads": 2, "layers": 1, "ffn_dim": 32},
            "llm": {"name": "causal", "weights": f"path:{saved_llm}"},
            "ctc": {"merges": 6},
            "lora": {"rank": 2},
            "losses": {"classifier": {"channels": [2, 3, 4]}},
            "stages": [
                {"name": "align", "trainable": ["adapter", "ctc"], "losses": {"ctc": 1.0}},
                {"name": "listen", "average_decay": 0.9, "losses": {"next_token": 0.8, "classifier": 0.2}},
            ],
        }
    )
