"""The folder where weights lie, and how several processes share it.

    <cache>/weights/<pack>-<digest>/    converted weights, in the layout of their library, with a marker file written last
    <cache>/downloads/<package>/        packages that are complete but not converted yet; gone once they are
    <cache>/locks/                      one lock file a pack

A folder under ``weights`` is either whole or not there: it is written to a temporary sibling and renamed.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stapes.errors import WeightsError

MARKER = "stapes-weights.json"


def cache_folder() -> Path:
    """The cache: ``$STAPES_CACHE``, else the platform's usual place (``~/.cache/stapes``, ``$XDG_CACHE_HOME`` respected)."""
    if chosen := os.environ.get("STAPES_CACHE"):
        return Path(chosen).expanduser().absolute()
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        return Path(chosen).expanduser() / "stapes"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "stapes" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "stapes"
    return Path.home() / ".cache" / "stapes"


def is_whole(folder: Path) -> bool:
    """Whether ``folder`` has a marker and every file that it lists, at its size."""
    try:
        sizes = json.loads((folder / MARKER).read_text(encoding="utf-8"))["files"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def write_marker(folder: Path, facts: dict[str, Any]) -> None:
    """Write ``facts`` and the sizes of the files in ``folder`` to its marker: the last file of a folder that is whole."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    (folder / MARKER).write_text(json.dumps({**facts, "files": sizes}, indent=2) + "\n", encoding="utf-8")


@contextmanager
def locked(name: str, waiting: str = "") -> Iterator[None]:
    """Hold the lock called ``name``: one process at a time; a killed one lets go of it.

    Args:
        name: the name of the lock file.
        waiting: printed to stderr once if another process holds it.

    Raises:
        WeightsError: the cache cannot be written.
    """
    from filelock import FileLock, Timeout

    folder = cache_folder() / "locks"
    with explained():
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{name}.lock")
        try:
            lock.acquire(timeout=0.2)
        except Timeout:
            if waiting:
                print(waiting, file=sys.stderr, flush=True)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A fresh folder beside ``target``, which takes its place when the block ends without an error, else is removed.

    To be used under a lock: what an interrupted run left behind is removed first.
    """
    prefix = f".{target.name}."
    with explained():
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(f"{prefix}*"):
            shutil.rmtree(left)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
        try:
            yield folder
            if target.exists():
                shutil.rmtree(target)
            folder.chmod(0o755)
            folder.rename(target)
        finally:
            if folder.exists():
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def explained() -> Iterator[None]:
    """Turn what the operating system says of the cache (full, read-only) into a WeightsError."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # raised by a library, not by the operating system
            raise
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
        found = "the disk is full" if full else f"cannot be used ({error.strerror})"
        fix = "free some space or set STAPES_CACHE to a folder elsewhere" if full else "set STAPES_CACHE to a folder of yours"
        raise WeightsError(cache_folder(), found, fix=fix) from error
