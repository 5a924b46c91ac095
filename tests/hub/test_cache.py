import errno
import sys
from pathlib import Path

import pytest

from stapes.errors import WeightsError
from stapes.hub import cache_folder
from stapes.hub.cache import explained, is_whole, locked, staged, write_marker


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("STAPES_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "stapes"
    monkeypatch.delenv("XDG_CACHE_HOME")
    if sys.platform == "linux":
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache_folder() == tmp_path / ".cache" / "stapes"


def test_relative_cache_becomes_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STAPES_CACHE", "here")
    assert cache_folder() == tmp_path / "here"


def test_a_folder_is_whole_only_with_marker_and_all_files_at_their_size(tmp_path: Path):
    (tmp_path / "a").write_text("12345")
    assert not is_whole(tmp_path)
    write_marker(tmp_path, {"pack": "x"})
    assert is_whole(tmp_path)
    (tmp_path / "a").write_text("1234")
    assert not is_whole(tmp_path)
    (tmp_path / "a").unlink()
    assert not is_whole(tmp_path)


def test_staged_replaces_the_target_only_on_success(tmp_path: Path):
    target = tmp_path / "target"
    with staged(target) as folder:
        (folder / "new").write_text("1")
        assert not target.exists()
    assert (target / "new").exists()
    with pytest.raises(KeyError), staged(target) as folder:
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert (target / "new").exists()
    with staged(target) as folder:
        (folder / "newer").write_text("2")
    assert [path.name for path in target.iterdir()] == ["newer"]


def test_staged_removes_what_an_interrupted_run_left_and_nothing_else(tmp_path: Path):
    (tmp_path / ".target.abc").mkdir()
    (tmp_path / ".other.abc").mkdir()
    with staged(tmp_path / "target"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.abc", "target"]


def test_full_disk_and_unwritable_cache_are_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    with pytest.raises(WeightsError, match="the disk is full; free some space or set STAPES_CACHE"), explained():
        raise OSError(errno.ENOSPC, "No space left on device")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STAPES_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(WeightsError, match=r"cannot be used .*; set STAPES_CACHE to a folder of yours"), locked("x"):
        pass
