"""`stapes transcribe`: what it reads, what it writes and where, and what it says of what it cannot read."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import Result

import stapes as package
from stapes.api import Stapes
from stapes.cli.transcribe import expand
from stapes.decoding.formats import render
from stapes.decoding.longform import Transcript
from stapes.errors import AudioError

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def model(tone_run: Path) -> Stapes:
    return package.load(tone_run, device="cpu")


@pytest.fixture
def files(tones: Path) -> list[Path]:
    return sorted(tones.glob("train-*.wav"))[:3]


@pytest.fixture
def heard(model: Stapes, files: list[Path]) -> list[Transcript]:
    return model.transcribe(files)


def test_one_file_prints_its_text_and_nothing_else(stapes: Run, tone_run: Path, files: list[Path], heard: list[Transcript]):
    result = stapes("transcribe", files[0], "--model", tone_run, "--device", "cpu")
    assert heard[0].text
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{heard[0].text}\n", "")


def test_several_files_are_named_in_their_order(stapes: Run, tone_run: Path, files: list[Path], heard: list[Transcript]):
    result = stapes("transcribe", files[2], files[0], "-m", tone_run, "--batch-seconds", "1")
    assert result.exit_code == 0
    assert result.stdout == f"{files[2]}: {heard[2].text}\n{files[0]}: {heard[0].text}\n"


def test_a_bad_file_among_good_ones(stapes: Run, tone_run: Path, files: list[Path], heard: list[Transcript], tmp_path: Path):
    text = tmp_path / "notes.txt"
    text.write_text("not a sound")
    result = stapes("transcribe", files[0], tmp_path / "nope.wav", text, files[1], "-m", tone_run)
    assert result.exit_code == 2
    assert result.stdout == f"{files[0]}: {heard[0].text}\n{files[1]}: {heard[1].text}\n"
    nope, unreadable = result.stderr.splitlines()
    assert nope == f"error: {tmp_path / 'nope.wav'}: no such file, expected a sound file"
    assert unreadable.startswith(f"error: {text}: ")


def test_only_bad_files_need_no_model(stapes: Run, one_line: Callable[[Result], str]):
    assert one_line(stapes("transcribe", "nope.wav", "-m", "no-such-model")) == "nope.wav: no such file, expected a sound file"


def test_json_is_one_object_a_line(stapes: Run, tone_run: Path, files: list[Path], heard: list[Transcript]):
    result = stapes("transcribe", *files[:2], "-m", tone_run, "-f", "json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["file"] for line in lines] == [str(file) for file in files[:2]]
    assert [line["text"] for line in lines] == [transcript.text for transcript in heard[:2]]
    assert lines[0]["segments"][0]["end"] == pytest.approx(heard[0].segments[0].end, abs=1e-3)


def test_standard_input(stapes: Run, tone_run: Path, files: list[Path], heard: list[Transcript]):
    sound = files[1].read_bytes()
    assert stapes("transcribe", "-", "-m", tone_run, stdin=sound).stdout == f"{heard[1].text}\n"
    both = stapes("transcribe", "-", files[0], "-m", tone_run, stdin=sound)
    assert both.stdout == f"-: {heard[1].text}\n{files[0]}: {heard[0].text}\n"
    empty = stapes("transcribe", "-", "-m", tone_run, stdin=b"")
    assert (empty.exit_code, empty.stdout) == (2, "")
    assert "no bytes, expected a sound file" in empty.stderr


def test_subtitles_of_one_file(stapes: Run, tone_run: Path, files: list[Path], heard: list[Transcript]):
    assert stapes("transcribe", files[0], "-m", tone_run, "-f", "srt").stdout.startswith("1\n00:00:00,000 --> 00:00:01,")
    shown = stapes("transcribe", files[0], "-m", tone_run, "-f", "vtt").stdout
    assert shown.startswith("WEBVTT\n\n00:00:00.000 --> ")
    assert shown.endswith(f"\n{heard[0].text}\n")


def test_a_file_for_everything(stapes: Run, tone_run: Path, files: list[Path], heard: list[Transcript], tmp_path: Path):
    result = stapes("transcribe", *files[:2], "-m", tone_run, "-o", tmp_path / "new/all.txt")
    assert (result.exit_code, result.stdout) == (0, "")
    assert (tmp_path / "new/all.txt").read_text() == "".join(
        f"{file}: {transcript.text}\n" for file, transcript in zip(files[:2], heard[:2], strict=True)
    )


@pytest.mark.parametrize("slash", [True, False])
def test_a_file_each_in_a_folder(
    stapes: Run, tone_run: Path, files: list[Path], heard: list[Transcript], tmp_path: Path, slash: bool
):
    folder = tmp_path / "texts"
    if not slash:
        folder.mkdir()
    result = stapes(
        "transcribe", *files[:2], "-", "-m", tone_run, "-o", f"{folder}/" if slash else folder, stdin=files[2].read_bytes()
    )
    assert (result.exit_code, result.stdout) == (0, "")
    found = {path.name: path.read_text() for path in folder.iterdir()}
    assert found == {
        "train-00.txt": f"{heard[0].text}\n",
        "train-01.txt": f"{heard[1].text}\n",
        "stdin.txt": f"{heard[2].text}\n",
    }
    assert stapes("transcribe", *files[:2], "-m", tone_run, "-o", folder, "-f", "vtt").exit_code == 0
    assert (folder / "train-01.vtt").read_text().startswith("WEBVTT\n")


def test_outputs_that_cannot_be(stapes: Run, one_line: Callable[[Result], str], files: list[Path], tmp_path: Path):
    assert "--format: srt for 2 files, expected one file; write each to its own: -o FOLDER/" in one_line(
        stapes("transcribe", *files[:2], "-f", "srt")
    )
    assert "--format: 'txt'; did you mean 'text'?" in one_line(stapes("transcribe", files[0], "-f", "txt"))
    (tmp_path / "other").mkdir()
    same = shutil.copy(files[0], tmp_path / "other")
    assert f"{files[0]} and {same} would both be written to" in one_line(
        stapes("transcribe", files[0], same, "-o", f"{tmp_path}/t/")
    )
    (tmp_path / "file").write_text("")
    assert "--output" in one_line(stapes("transcribe", files[0], "-o", tmp_path / "file/below.txt"))
    assert "--output" in one_line(stapes("transcribe", files[0], "-o", f"{tmp_path / 'file'}/"))


def test_a_text_that_was_cut_off_is_reported(stapes: Run, toy_run: Path, examples: Path):
    sound = next((examples.parent / "audio").glob("*0880.flac"))
    result = stapes("transcribe", sound, "-m", toy_run)
    assert result.exit_code == 0
    assert result.stderr.startswith(f"warning: {sound}: ")
    assert "cut off" in result.stderr


@pytest.mark.weights
def test_the_shipped_model_says_nothing_but_the_text(pack: Callable[[str], Path], examples: Path):
    """In a process of its own, as libraries speak up there: not a word on stderr."""
    for name in ("whisper-base", "smollm2-135m-instruct"):
        pack(name)
    sound = next((examples.parent / "audio").glob("*0930.flac"))
    command = [sys.executable, "-m", "stapes.cli.main", "transcribe", str(sound), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "might even have been made" in done.stdout


def test_options_reach_the_model(
    stapes: Run, one_line: Callable[[Result], str], tone_run: Path, model: Stapes, files: list[Path]
):
    wanted = model.transcribe(files[0], ctc_weight=0.0, beams=3)
    result = stapes("transcribe", files[0], "-m", tone_run, "--ctc-weight", "0", "--beams", "3")
    assert result.stdout == f"{wanted.text}\n"
    assert wanted.text != model.transcribe(files[0]).text
    assert "dtype: unknown dtype 'half'" in one_line(stapes("transcribe", files[0], "-m", tone_run, "--dtype", "half"))
    assert "device: unknown device 'gpu'" in one_line(stapes("transcribe", files[0], "-m", tone_run, "--device", "gpu"))
    assert "task: unknown task 'asrs'; did you mean 'asr'?" in one_line(
        stapes("transcribe", files[0], "-m", tone_run, "--task", "asrs")
    )
    assert "no-such: no such model" in one_line(stapes("transcribe", files[0], "-m", "no-such"))


def test_patterns_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.wav", "a.wav", "a[1].wav", "notes.txt", "sub/c.flac", "sub/.hidden.wav"):
        Path(name).parent.mkdir(exist_ok=True)
        soundfile.write(name, np.zeros(10), 16_000, format="WAV")

    def names(*files: str) -> list[str]:
        return [name for name, _ in expand(list(files))]

    assert names("*.wav", "-") == ["a.wav", "a[1].wav", "b.wav", "-"]
    assert names("b.wav", "a.wav") == ["b.wav", "a.wav"]
    assert names("a[1].wav") == ["a[1].wav"]
    assert names("**/*.flac") == ["sub/c.flac"]
    assert names("sub") == ["sub/c.flac"]
    assert names(str(tmp_path / "*.txt")) == [str(tmp_path / "notes.txt")]
    assert names("*.mp3") == ["*.mp3"]
    assert expand([str(tmp_path / "sub"), "sub/c.flac", "-"]) == [
        (str(tmp_path / "sub/c.flac"), Path("c.flac")),
        ("sub/c.flac", Path("c.flac")),
        ("-", Path("stdin")),
    ]
    assert ("sub/c.flac", Path("sub/c.flac")) in expand(["."])
    (tmp_path / "empty").mkdir()
    with pytest.raises(AudioError, match="empty: no sound file in this folder"):
        expand(["empty"])


def test_a_folder_of_folders_is_written_as_it_is(
    stapes: Run, tone_run: Path, files: list[Path], heard: list[Transcript], tmp_path: Path
):
    """Files of one name in two folders stay two."""
    for folder, file in zip(("a", "b/c"), files, strict=False):
        (tmp_path / "talks" / folder).mkdir(parents=True)
        shutil.copy(file, tmp_path / "talks" / folder / "1.wav")
    result = stapes("transcribe", tmp_path / "talks", files[2], "-m", tone_run, "-o", f"{tmp_path}/texts/")
    assert (result.exit_code, result.stdout) == (0, ""), result.stderr
    written = {str(path.relative_to(tmp_path / "texts")): path.read_text() for path in tmp_path.glob("texts/**/*.txt")}
    assert written == {
        "a/1.txt": f"{heard[0].text}\n",
        "b/c/1.txt": f"{heard[1].text}\n",
        f"{files[2].stem}.txt": f"{heard[2].text}\n",
    }


def test_each_task_by_its_options(stapes: Run, one_line: Callable[[Result], str], task_run: Path, files: list[Path]):
    several = package.load(task_run, device="cpu")

    def printed(*options: str) -> str:
        result = stapes("transcribe", files[0], "-m", task_run, *options)
        assert result.exit_code == 0, result.stderr
        return result.stdout.removesuffix("\n")

    asked = {
        (): {},
        ("--style", "written"): {"style": "written"},
        ("--task", "ner"): {"task": "ner"},
        ("--task", "sentiment"): {"task": "sentiment"},
        ("--to", "fr"): {"to": "fr"},
        ("--task", "translation", "--to", "fr"): {"to": "fr"},
    }
    found = {options: printed(*options) for options in asked}
    assert found == {options: render(several.transcribe(files[0], **asked[options]), "text") for options in asked}
    assert len(set(found.values())) == 5, found
    assert found["--style", "written"].isupper()
    assert found["--task", "ner"].startswith("[PERSON ")
    assert found["--task", "sentiment"] in ("Negative", "Neutral", "Positive")
    line = json.loads(printed("--task", "ner", "--format", "json"))
    assert line["entities"][0]["label"] == "PERSON"
    assert (
        "task: 'ner.written', expected what run was trained for: asr, asr.written, ner, sentiment, translation.fr"
        in one_line(stapes("transcribe", files[0], "-m", task_run, "--task", "ner", "--style", "written"))
    )
    assert "'translation.de'" in one_line(stapes("transcribe", files[0], "-m", task_run, "--to", "de"))
    subtitles = stapes("transcribe", files[0], "-m", task_run, "--task", "sentiment", "--format", "srt")
    assert one_line(subtitles) == "--format: srt for 'sentiment', whose answers have no words, expected text or json"
    assert stapes("transcribe", files[0], "-m", task_run, "--to", "fr", "--format", "vtt").stdout.startswith("WEBVTT\n\n00:")


def test_entities_are_coloured_on_a_terminal_alone(
    stapes: Run, task_run: Path, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    found = package.load(task_run, device="cpu").transcribe(files[0], task="ner")
    first = found.entities[0]
    bracketed = render(found, "text")
    assert (first.start, first.label) == (0, "PERSON")
    command = ("transcribe", files[0], "-m", task_run, "--task", "ner")
    assert stapes(*command).stdout == f"{bracketed}\n"
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    shown = stapes(*command, "--quiet").stdout
    assert shown.startswith(f"\x1b[1;32m{first.phrase}\x1b[0m\x1b[2;32m PERSON\x1b[0m"), "bold green, and the tag dim"
    assert "[PERSON" not in shown
    two = stapes("transcribe", *files[:2], "-m", task_run, "--task", "ner", "--quiet").stdout.splitlines()
    assert two[0].startswith(f"{files[0]}: \x1b[1;32m{first.phrase}")
    assert stapes(*command, "-o", tmp_path / "all.txt", "--quiet").exit_code == 0
    assert (tmp_path / "all.txt").read_text() == f"{bracketed}\n", "a file has no colours"
    monkeypatch.setenv("NO_COLOR", "1")
    assert stapes(*command, "--quiet").stdout == f"{bracketed}\n", "without colours a tag could be a word"


def test_on_a_terminal_progress_is_shown_and_results_stay_apart(
    stapes: Run, tone_run: Path, files: list[Path], heard: list[Transcript], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    result = stapes("transcribe", files[0], "nope.wav", "-m", tone_run)
    assert result.stdout == f"{files[0]}: {heard[0].text}\n"
    assert "transcribing" in result.stderr
    assert "error: nope.wav: no such file" in result.stderr
    assert "transcribing" not in stapes("transcribe", files[0], "-m", tone_run, "--quiet").stderr
