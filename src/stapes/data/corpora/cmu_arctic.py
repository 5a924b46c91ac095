"""CMU ARCTIC: the same 1132 sentences read by several voices (festvox.org/cmu_arctic), as its archives unpack.

cmu_us_bdl_arctic/etc/txt.done.data     ( arctic_a0001 "Author of the danger trail, Philip Steels, etc." )
cmu_us_bdl_arctic/wav/arctic_a0001.wav
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from stapes.data.corpora.base import UNMEASURED, Row, audio_named, read_text, require
from stapes.errors import DataError
from stapes.types import Utterance

LINE = re.compile(r'^\(\s*(?P<name>\S+)\s+"(?P<text>.*)"\s*\)$')
VOICE = re.compile(r"^cmu_us_(?P<speaker>[^_]+)_arctic")


def cmu_arctic(source: Path) -> Iterator[Row]:
    """Read all voices under ``source`` (or the one that it is) into one split, ``train``.

    Ids are ``<voice>-<sentence>``, as the sentences' names repeat from voice to voice.

    Raises:
        DataError: there is no etc/txt.done.data under ``source``, or one of its lines is not of the form above.
    """
    prompts = sorted(source.rglob("etc/txt.done.data"))
    require(bool(prompts), source, "cmu_us_VOICE_arctic/etc/txt.done.data under it")
    for path in prompts:
        voice = path.resolve().parents[1]
        match = VOICE.match(voice.name)
        speaker = match["speaker"] if match else voice.name
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            if not line.strip():
                continue
            found = LINE.match(line.strip())
            if not found:
                raise DataError(f"{path}:{number}", repr(line[:60]), '( NAME "TEXT" )')
            utterance = Utterance(
                id=f"{speaker}-{found['name']}",
                audio=audio_named(path.parents[1] / "wav" / found["name"], ".wav"),
                text=found["text"].replace('\\"', '"').strip(),
                duration=UNMEASURED,
                speaker=speaker,
                language="en",
            )
            yield Row("train", utterance)
