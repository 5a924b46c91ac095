"""What tests of corpora build their small trees with, and how they prepare them."""

from pathlib import Path

import numpy as np
import soundfile

from stapes.data.corpora.prepare import Prepared, prepare
from stapes.data.manifest import read_manifest
from stapes.types import Utterance


def sound(path: Path, seconds: float = 0.5, rate: int = 16_000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.sin(np.arange(int(seconds * rate)) / 20), rate, format=path.suffix[1:].upper())
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def run(corpus: str, source: Path, **options) -> tuple[dict[str, list[Utterance]], Prepared]:
    """Prepare beside the source, and read back what was written."""
    destination = source.parent / "prepared"
    written = prepare(corpus, source, destination, **options)
    return {path.stem: read_manifest(path) for path in destination.glob("*.jsonl") if path.stem != "dropped"}, written
