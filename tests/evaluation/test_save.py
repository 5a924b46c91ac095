"""Reports beside the predictions, of a model that was run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import stapes
from stapes.data.manifest import read_manifest
from stapes.errors import DataError
from stapes.evaluation.evaluate import Evaluation
from stapes.evaluation.save import folder_name, save_reports


def test_of_a_real_run(tone_run: Path, tones: Path, tmp_path: Path):
    first, *others = read_manifest(tones / "dev.jsonl")
    rows = [replace(first, text=f"{first.text} x"), *others]
    found = stapes.load(tone_run, device="cpu").evaluate(rows)
    assert found.utterances == rows
    save_reports(found, tmp_path / "new/folder", "tones")
    text, html = ((tmp_path / "new/folder" / name).read_text() for name in ("report.md", "report.html"))
    wrong = [each for each in found.predictions if each.errors]
    assert wrong, "a model that gets everything right would tell little"
    assert html.count("<audio ") == html.count("<article ") == len(wrong)
    signatures = found.scores["signatures"].values()
    for value in (f"{found.scores['wer']:.2f}", f"{found.scores['ctc_wer']:.2f}", *signatures, found.scores["provenance"]):
        assert value in text
        assert value in html


def test_without_the_page(made: Callable[..., Evaluation], tmp_path: Path):
    found = made({"name": "asr"}, [{"text": "a b"}], ["a"])
    save_reports(found, tmp_path / "out", "t")
    assert (tmp_path / "out/report.html").is_file()
    save_reports(found, tmp_path / "out", "t", html=False)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.md"], "no page of other predictions is left"


def test_a_folder_that_cannot_be_written(made: Callable[..., Evaluation], tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        save_reports(made({"name": "asr"}, [{"text": "a"}], ["a"]), tmp_path / "file", "t")


@pytest.mark.parametrize(
    ("data", "task", "limit", "name"),
    [
        ("prepared/slue-voxceleb/dev.jsonl", "asr", None, "evaluation-slue-voxceleb-dev-asr"),
        ("prepared/slue-voxpopuli/dev.jsonl", "asr+ner", None, "evaluation-slue-voxpopuli-dev-asr+ner"),
        ("dev.jsonl", "translation.fr", 10, "evaluation-here-dev-translation.fr-limit10"),
        ("../there/v1.5.jsonl", "asr", None, "evaluation-there-v1.5-asr"),
        ("/dev.jsonl", "asr", None, "evaluation-dev-asr"),
    ],
)
def test_folders_are_called_after_corpus_split_and_task(
    data: str, task: str, limit: int | None, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert folder_name(data, task, limit) == name
