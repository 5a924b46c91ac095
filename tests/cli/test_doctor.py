"""`stapes doctor`: a line for each check, one JSON object, and an exit status that says whether something is wrong."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a language model whose context is too short for 30 s of speech."""
    from stapes.llms.toy import ToyLLM

    folder, toy = tmp_path_factory.mktemp("narrow"), ToyLLM(dim=16)
    toy.model.config.max_position_embeddings = 64
    toy.model.save_pretrained(folder)
    toy.tokenizer.save_pretrained(folder)
    return folder


def test_a_sound_pair(stapes: Run, examples: Path):
    sound = next(examples.parent.glob("audio/*.flac"))
    result = stapes("doctor", "toy", "toy", "{name: stack_mlp, hidden_dim: 16}", "--audio", sound, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["wrong"] == 0
    assert facts["recipe"]["adapter"] == {"name": "stack_mlp", "hidden_dim": 16}
    assert {row["check"] for row in facts["findings"]} >= {
        "encoder",
        "llm",
        "adapter",
        "logits",
        "memory of a step",
        "decoding",
    }


def test_something_wrong(stapes: Run, tiny_whisper: Path, narrow: Path):
    result = stapes("doctor", f"path:{tiny_whisper}", f"path:{narrow}", "{name: linear, stride: 50}")
    assert result.exit_code == 1
    lines = {line[9:27].rstrip(): line for line in result.stdout.splitlines()}
    assert lines["encoder"].startswith(f"ok       encoder            path:{tiny_whisper}: 32 wide")
    assert lines["llm"].startswith("wrong")
    assert lines["llm"].endswith("positions, it has 64")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("toi", "toy"), "encoder: unknown encoder 'toi'; did you mean 'toy'?"),
        (("toy", "toy", "stack_mpl"), "adapter: unknown adapter 'stack_mpl'; did you mean 'stack_mlp'?"),
        (("toy", "toy", "owner/name"), "adapter: 'owner/name', expected a name or a section"),
        (("{name: toy", "toy"), "encoder: '{name: toy' is not YAML"),
        (("{name: toy, dims: 3}", "toy"), "encoder.dims: 'toy' has no such option; did you mean 'dim'?"),
        (("toy", "toy", "--audio", "nowhere.wav"), "nowhere.wav"),
    ],
)
def test_what_cannot_be_examined_is_one_line(
    stapes: Run, one_line: Callable[[Result], str], arguments: tuple[str, ...], message: str
):
    assert message in one_line(stapes("doctor", *arguments))


def test_an_encoder_that_only_auto_takes(stapes: Run, tiny_encoder: Callable[[str], Path]):
    result = stapes("doctor", f"path:{tiny_encoder('w2v-bert')}", "toy", "{name: stack_mlp, hidden_dim: 16}", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["recipe"]["encoder"]["name"] == "auto"
    (padding,) = (row for row in facts["findings"] if row["check"] == "encoder's padding")
    assert (padding["verdict"], "is given one length at a time" in padding["found"]) == ("ok", True)


def test_an_encoder_of_a_kind_that_is_not_taken(stapes: Run, one_line: Callable[[Result], str], narrow: Path):
    assert f"{narrow}: no speech encoder that `auto` can use (" in one_line(stapes("doctor", f"path:{narrow}", "toy"))
