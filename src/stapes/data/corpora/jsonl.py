"""Manifests in our own format, each a split of its name: checked, and written anew with paths that hold where they go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stapes.data.corpora.base import Row, require
from stapes.data.manifest import read_manifest

DROPPED_NAME = "dropped.jsonl"
"""Where ``prepare`` lists what it dropped: not a manifest."""


def jsonl(source: Path) -> Iterator[Row]:
    """Read a manifest, or all manifests of a folder.

    Raises:
        DataError: there is none, or one has a bad line (a missing sound file included).
    """
    paths = sorted(source.glob("*.jsonl")) if source.is_dir() else [source]
    paths = [path for path in paths if path.name != DROPPED_NAME]
    require(bool(paths), source, "a manifest, or a folder with SPLIT.jsonl in it")
    for path in paths:
        for utterance in read_manifest(path):
            yield Row(path.stem, utterance)
