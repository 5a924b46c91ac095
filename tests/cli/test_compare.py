"""`stapes compare`: two evaluations of one model, and what is wrong in one line."""

import json
from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

from stapes.evaluation.compare import compare
from stapes.evaluation.predictions import read_predictions

Run = Callable[..., Result]


def test_two_evaluations_of_a_model(stapes: Run, tone_run: Path, tones: Path, tmp_path: Path):
    data, folders = tones / "dev.jsonl", [tmp_path / "head", tmp_path / "llm"]
    for folder, weight in zip(folders, ("0.9", "0"), strict=True):
        options = ("--data", data, "--output", folder, "--ctc-weight", weight, "--device", "cpu", "--json")
        assert stapes("evaluate", tone_run, *options).exit_code == 0
    result = stapes("compare", *folders, "--json", "--resamples", "100", "--seed", "3")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["run_a"] == str(folders[0])
    written = [json.loads((folder / "scores.json").read_text())["wer"] for folder in folders]
    assert [round(found["scores"]["wer"][run], 3) for run in "ab"] == written
    expected = compare(*map(read_predictions, folders), resamples=100, seed=3)
    assert found["scores"] == json.loads(json.dumps(expected.as_json()["scores"]))
    shown = stapes("compare", *folders)
    assert shown.exit_code == 0
    assert "MAPSSWE on word errors:" in shown.stdout
    assert "(few to go by: it wants some 50)" in " ".join(shown.stdout.split())
    assert f"{folders[0]} (A) and {folders[1]} (B)" in " ".join(shown.stdout.split())
    for run, weight in (("A", "0.9"), ("B", "0.0")):
        (made_by,) = (line for line in shown.stdout.replace("\n", "").split(f"{run}: stapes:")[1:])
        assert "|task:asr|" in made_by and f"|ctc_weight:{weight}|" in made_by.split("B: stapes:")[0]


def test_synthetic_speech_is_called_so(stapes: Run, evaluated: Callable[..., Path]):
    def shown(names: str, **signatures: str) -> str:
        lines = [{"id": "u1", "reference": "a", "hypothesis": "a"}]
        return " ".join(stapes("compare", *(evaluated(name, lines, **signatures) for name in names)).stdout.split())

    assert "synthetic speech" not in shown("ab")
    every = dict.fromkeys(("wer", "wer_sentence_mean", "cer"), "wer|norm:slue.v1|synthetic:yes|n:1")
    assert "(B) (synthetic speech)" in shown("cd", **every)


def test_what_is_wrong(stapes: Run, one_line: Callable[[Result], str], evaluated: Callable[..., Path], tmp_path: Path):
    first = evaluated("a", [{"id": "u1", "reference": "a", "hypothesis": "a"}])
    second = evaluated("b", [{"id": "u2", "reference": "a", "hypothesis": "a"}])
    assert "1 ids only in the first run and 1 only in the second ('u1', 'u2')" in one_line(stapes("compare", first, second))
    missing = one_line(stapes("compare", first, tmp_path / "nope", "--json"))
    assert missing == f"{tmp_path / 'nope/scores.json'}: no such file, expected a folder that `stapes evaluate` wrote"
