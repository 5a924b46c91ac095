"""`stapes export`: a folder that every other command takes as a model, and one line where it cannot be written."""

from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

Run = Callable[..., Result]


def test_what_is_exported_transcribes(stapes: Run, tone_run: Path, tones: Path, tmp_path: Path):
    result = stapes("export", tone_run, tmp_path / "out", "--dtype", "bfloat16")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{tmp_path / 'out'}\n"
    sound = tones / "dev-00.wav"
    wanted = stapes("transcribe", sound, "--model", tone_run).stdout
    assert wanted.strip()
    assert stapes("transcribe", sound, "--model", tmp_path / "out").stdout == wanted
    fetched = stapes("fetch", tmp_path / "out").stdout
    assert str(tmp_path / "out" / "llm") in fetched


def test_lora_may_be_kept_apart(stapes: Run, tone_run: Path, tmp_path: Path):
    assert stapes("export", tone_run, tmp_path / "apart", "--no-merge").exit_code == 0
    assert stapes("export", tone_run, tmp_path / "merged").exit_code == 0
    apart, merged = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("apart", "merged"))
    assert apart > merged


def test_what_is_wrong_is_one_line(stapes: Run, one_line: Callable[[Result], str], tone_run: Path, tmp_path: Path):
    assert "is there already" in one_line(stapes("export", tone_run, tmp_path))
    assert "nowhere: no such model" in one_line(stapes("export", "nowhere", tmp_path / "out"))
    assert "unknown dtype 'float8'" in one_line(stapes("export", tone_run, tmp_path / "out", "--dtype", "float8"))
    assert not (tmp_path / "out").exists()
