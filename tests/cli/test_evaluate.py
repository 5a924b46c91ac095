"""`stapes evaluate`: one JSON object or a table, results beside the run, and one line for whatever is wrong."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import Result

import stapes as package
from stapes.data.manifest import read_manifest, write_manifest
from stapes.evaluation.markdown import escaped

Run = Callable[..., Result]


@pytest.fixture
def run(tone_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tone_run, tmp_path / "run")


@pytest.fixture
def data(tones: Path) -> Path:
    return tones / "dev.jsonl"


def test_json_is_one_object_and_nothing_else(stapes: Run, run: Path, data: Path):
    result = stapes("evaluate", run, "--data", data, "--task", "asr", "--limit", "3", "--json", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    scores = json.loads(result.stdout)
    assert scores == package.load(run, device="cpu").evaluate(data, limit=3).scores
    assert scores["utterances"] == 3
    assert {"wer", "cer", "substitutions", "deletions", "insertions", "intervals", "signatures", "provenance"} <= set(scores)
    folder = run / f"evaluation-{data.parent.name}-dev-asr-limit3"
    assert json.loads((folder / "scores.json").read_text()) == scores
    assert len((folder / "predictions.jsonl").read_text().splitlines()) == 3
    assert (folder / "report.md").read_text().startswith("# run on ")
    assert f"<h1>run on {data}</h1>" in (folder / "report.html").read_text()
    assert result.stderr == f"predictions, scores and reports: {folder}\n"


def test_a_table_for_people(stapes: Run, run: Path, data: Path, tmp_path: Path):
    folder, plain = tmp_path / "here/it/is", ("--normaliser", "none", "--ctc-weight", "0", "--no-html")
    result = stapes("evaluate", run, "-d", data, "--output", folder, *plain)
    assert result.exit_code == 0, result.stderr
    assert f"run on {data}" in result.stdout.replace("\n", "")
    assert "norm:none.v1" in result.stdout
    assert "ctc_weight:0.0" in result.stdout
    assert "REF: " in result.stdout
    assert (folder / "predictions.jsonl").is_file()
    assert (folder / "report.md").is_file()
    assert not (folder / "report.html").exists()
    assert not list(run.glob("evaluation-*"))


def test_unreadable_sound_is_counted_and_the_status_says_so(stapes: Run, run: Path, data: Path, tmp_path: Path):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    lines = data.read_text().splitlines()
    (tmp_path / "mine.jsonl").write_text(
        "\n".join(line.replace('"dev-', f'"{data.parent}/dev-') for line in lines[:2])
        + "\n"
        + json.dumps({"id": "broken", "audio": str(broken), "text": "a b", "duration": 1.0})
    )
    result = stapes("evaluate", run, "--data", tmp_path / "mine.jsonl", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["unreadable"] == 1
    assert f"error: {tmp_path / 'mine.jsonl'}:3: {broken}: " in result.stderr


def test_every_task_corpus_and_style_has_a_folder_of_its_own(stapes: Run, task_run: Path, labelled_tones: Path, tmp_path: Path):
    run = shutil.copytree(task_run, tmp_path / "run")
    every = labelled_tones / "dev.jsonl"
    asked = {
        "slue-voxpopuli-dev-asr": ("--data", labelled_tones / "slue-voxpopuli/dev.jsonl"),
        "slue-voxceleb-dev-asr": ("--data", labelled_tones / "slue-voxceleb/dev.jsonl"),
        "slue-voxpopuli-dev-ner": ("--data", labelled_tones / "slue-voxpopuli/dev.jsonl", "--task", "ner"),
        "slue-voxceleb-dev-sentiment": ("--data", labelled_tones / "slue-voxceleb/dev.jsonl", "--task", "sentiment"),
        f"{labelled_tones.name}-dev-asr.written": ("--data", every, "--style", "written"),
        f"{labelled_tones.name}-dev-translation.fr": ("--data", every, "--to", "fr"),
    }
    for name, options in asked.items():
        result = stapes("evaluate", run, *options, "--device", "cpu", "--no-html", "--json")
        assert result.exit_code == 0, result.stderr
        scores = json.loads((run / f"evaluation-{name}/scores.json").read_text())
        assert scores == json.loads(result.stdout)
        assert f"|task:{name.rpartition('dev-')[2]}|" in scores["provenance"]
    assert len(list(run.glob("evaluation-*"))) == len(asked)
    measures = {name: set(json.loads((run / f"evaluation-{name}/scores.json").read_text())["intervals"]) for name in asked}
    assert {"ner_f1", "ner_label_f1", "wer"} <= measures["slue-voxpopuli-dev-ner"]
    assert "sentiment_f1" in measures["slue-voxceleb-dev-sentiment"]
    assert {"bleu", "chrf"} <= measures[f"{labelled_tones.name}-dev-translation.fr"]


@pytest.mark.parametrize("count", [2, 6])
def test_synthetic_speech_is_called_so(
    stapes: Run, run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
):
    monkeypatch.chdir(tmp_path)
    rows = read_manifest(data)
    write_manifest(tmp_path / "spoken/dev.jsonl", [replace(row, synthetic=number < count) for number, row in enumerate(rows)])
    command = ("evaluate", run, "--data", "spoken/dev.jsonl")
    shown = stapes(*command)
    assert shown.exit_code == 0, shown.stderr
    part = ": 2 of 6 utterances" if count == 2 else ""
    title = f"run on spoken/dev.jsonl (synthetic speech{part})"
    assert title in " ".join(shown.stdout.split()), "broken where the table ends"
    for name in ("WER", "CER", "WER of the CTC head alone"):
        assert f"{name}, synthetic speech " in shown.stdout
    folder = run / "evaluation-spoken-dev-asr"
    text, page = (folder / "report.md").read_text(), (folder / "report.html").read_text()
    assert text.startswith(f"# {escaped(title)}\n")
    assert "| WER, synthetic speech |" in text
    assert f"| said by a synthesiser | {count} |" in text
    assert f"<title>{title}</title>" in page
    assert f"<h1>{title}</h1>" in page
    assert ">WER, synthetic speech<" in page
    assert json.loads((folder / "scores.json").read_text())["synthetic"] == count
    assert "synthetic speech" not in stapes("evaluate", run, "--data", data, "--no-html").stdout


# -- what is wrong is one line -----------------------------------------------------------------------------------------


def test_a_bad_manifest_line(stapes: Run, one_line: Callable[[Result], str], run: Path, data: Path, tmp_path: Path):
    rows = read_manifest(data)
    write_manifest(tmp_path / "bad.jsonl", rows)
    lines = (tmp_path / "bad.jsonl").read_text().splitlines()
    lines[3] = lines[3].replace('"duration": ', '"duration": -')
    (tmp_path / "bad.jsonl").write_text("\n".join(lines))
    message = one_line(stapes("evaluate", run, "--data", tmp_path / "bad.jsonl", "--json"))
    assert message.startswith(f"{tmp_path / 'bad.jsonl'}:4: 'duration': -")
    assert one_line(stapes("evaluate", run, "--data", tmp_path / "nope.jsonl")).startswith(
        f"{tmp_path / 'nope.jsonl'}: no such file"
    )


def test_an_unknown_model(stapes: Run, one_line: Callable[[Result], str], data: Path, tmp_path: Path):
    message = one_line(stapes("evaluate", "stapes-bass", "--data", data, "--json"))
    assert message.startswith("stapes-bass: no such model, expected a run folder, a hub id (owner/name)")
    assert "no stapes.json in this folder" in one_line(stapes("evaluate", tmp_path, "--data", data))


def test_a_renamed_tensor(stapes: Run, one_line: Callable[[Result], str], run: Path, data: Path):
    tensors = load_file(run / "model.safetensors")
    tensors["adapter.hiden.weight"] = tensors.pop("adapter.hidden.weight")
    save_file(tensors, run / "model.safetensors")
    message = one_line(stapes("evaluate", run, "--data", data, "--json"))
    assert (
        f"{len(tensors) - 1} of {len(tensors)} tensors fit; missing adapter.hidden.weight; unknown adapter.hiden.weight"
        in message
    )


@pytest.mark.parametrize("part", ["encoder", "llm"])
def test_other_base_weights(stapes: Run, one_line: Callable[[Result], str], run: Path, data: Path, part: str):
    description = json.loads((run / "stapes.json").read_text())
    description[part]["digest"] = "0" * 64
    (run / "stapes.json").write_text(json.dumps(description))
    message = one_line(stapes("evaluate", run, "--data", data, "--json"))
    assert f"the {part} loaded from" in message
    assert f"expected {'0' * 12}, the {part} that this model was trained with" in message


def test_options_that_are_wrong(stapes: Run, one_line: Callable[[Result], str], run: Path, data: Path, tmp_path: Path):
    assert "unknown normaliser 'sluu'; did you mean 'slue'?" in one_line(
        stapes("evaluate", run, "--data", data, "--normaliser", "sluu")
    )
    assert "task: unknown task 'ast'" in one_line(stapes("evaluate", run, "--data", data, "--task", "ast"))
    (tmp_path / "file").write_text("")
    assert "comet: the task 'asr', expected a translation" in one_line(stapes("evaluate", run, "--data", data, "--comet", "m"))
    assert "choose another --output" in one_line(stapes("evaluate", run, "--data", data, "-o", tmp_path / "file/below"))
