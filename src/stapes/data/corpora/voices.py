"""The voices of free speech synthesisers: which ones this machine has, and how to have one say a text.

    flite:slt                           CMU Flite: statistical voices and diphones, English
    festival:cmu_us_slt_arctic_hts      Festival: diphones and HMM voices, English
    espeak-ng:en-us+f3                  eSpeak NG: formants, many languages; after the + a variant of the voice

None of them is a dependency; they are looked for when they are asked for.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from stapes.audio.read import read
from stapes.data.corpora.base import language_code
from stapes.errors import AudioError, MissingDependency, RecipeError
from stapes.registry import nearest
from stapes.types import SAMPLE_RATE_HZ

TIMEOUT_SECONDS = 120.0
SHORTEST_SECONDS = 0.1
"""A voice that knows no word of a text makes a click, or nothing."""

DEFAULT_VOICES = (
    ("flite:slt", "flite:rms", "flite:awb", "festival:cmu_us_slt_arctic_hts", "festival:kal_diphone"),
    ("espeak-ng:en-us", "espeak-ng:en-us+f3", "espeak-ng:en-gb"),
)
"""Our choice among English voices; of the first group of which some are installed, those are used.

What is made of recordings comes before formants, of which ``stapes-base`` gets twice as many words wrong.
"""

INSTALL = "apt install flite festival festvox-kallpc16k festvox-us-slt-hts espeak-ng"


class Unspeakable(Exception):
    """A text that a voice did not say, and why."""


@dataclass(frozen=True)
class Voice:
    """A voice of a synthesiser; ``str`` of it is its name in manifests and on the command line."""

    program: str
    name: str

    def __str__(self) -> str:
        return f"{self.program}:{self.name}"

    @property
    def language(self) -> str:
        """What it speaks; Flite's and Festival's voices all speak English here."""
        return language_code(self.name.partition("+")[0]) if self.program == "espeak-ng" else "en"


@dataclass(frozen=True)
class _Program:
    """A synthesiser.

    Attributes:
        package: of Debian.
        needs: the executables.
        voices: what is installed.
        command: (name of a voice, text file, sound file) -> the words of the command.
        ascii: whether it takes no other letters.
    """

    package: str
    needs: tuple[str, ...]
    voices: Callable[[], frozenset[str]]
    command: Callable[[str, str, str], list[str]]
    ascii: bool


def choose(names: Sequence[str] = ()) -> tuple[Voice, ...]:
    """The voices called ``names``, or those of ``DEFAULT_VOICES`` that are installed.

    Raises:
        RecipeError: a name is not PROGRAM:VOICE, or there is no such voice.
        MissingDependency: the program of a voice is not installed; or none is, where no names are given.
    """
    if not names:
        for group in DEFAULT_VOICES:
            voices = [Voice(*name.split(":")) for name in group]
            if there := tuple(voice for voice in voices if _is_there(voice.program) and _missing(voice) is None):
                return there
        raise MissingDependency("spoken-text", install=INSTALL)
    return tuple(_checked(name) for name in dict.fromkeys(names))


def say(voice: Voice, text: str) -> np.ndarray:
    """Have ``voice`` say ``text``.

    Returns:
        (N,) float32 at 16 kHz.

    Raises:
        Unspeakable: the program failed, took too long, or made no sound to speak of.
    """
    program = PROGRAMS[voice.program]
    words = _plain(text) if program.ascii else " ".join(text.split())
    if not any(letter.isalnum() for letter in words):
        raise Unspeakable("no letter that it knows")
    with tempfile.TemporaryDirectory(prefix="stapes-") as folder:
        written, sound = Path(folder, "text"), Path(folder, "sound.wav")
        written.write_text(f"{words}\n", encoding="utf-8")
        try:
            run = _run(program.command(voice.name, str(written), str(sound)))
        except subprocess.TimeoutExpired:
            raise Unspeakable(f"not done after {TIMEOUT_SECONDS:g} s") from None
        try:
            samples = read(sound)
        except AudioError as error:
            complaint = run.stderr.strip().splitlines() or [error.found]
            raise Unspeakable(complaint[-1][:200]) from None
    if len(samples) < SHORTEST_SECONDS * SAMPLE_RATE_HZ:
        raise Unspeakable("no sound to speak of")
    return samples


def _plain(text: str) -> str:
    """The text in ASCII: accents dropped, typographic quotes and dashes made plain, other letters left out."""
    quotes = str.maketrans("\u2018\u2019\u201c\u201d\u2013\u2014", "''\"\"--")
    plain = unicodedata.normalize("NFKD", text.translate(quotes)).encode("ascii", "ignore").decode()
    return " ".join(plain.split())


def _checked(written: str) -> Voice:
    program, _, name = written.partition(":")
    if program not in PROGRAMS:
        raise RecipeError("--voices", f"'{written}'", "PROGRAM:VOICE, such as flite:slt", nearest(program, PROGRAMS))
    if not _is_there(program):
        raise MissingDependency(f"voice {written}", install=f"apt install {PROGRAMS[program].package}")
    if missing := _missing(voice := Voice(program, name)):
        part, known = missing
        raise RecipeError("--voices", f"{program} has no voice '{part}'", fix=nearest(part, known))
    return voice


def _missing(voice: Voice) -> tuple[str, frozenset[str]] | None:
    """The part of a voice's name that its program does not know, and what it knows instead.

    It has to be asked: Flite takes another voice where it does not know one, and eSpeak NG ignores an unknown variant.
    """
    base, _, variant = voice.name.partition("+") if voice.program == "espeak-ng" else (voice.name, "", "")
    voices = PROGRAMS[voice.program].voices()
    if base not in voices:
        return base, voices
    if variant and variant not in _espeak_variants():
        return variant, _espeak_variants()
    return None


def _is_there(program: str) -> bool:
    return all(shutil.which(executable) for executable in PROGRAMS[program].needs)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a program. Whether it did what it should shows in what it made: Festival exits with 0 whatever happened."""
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


@cache
def _flite_voices() -> frozenset[str]:
    return frozenset(_run(["flite", "-lv"]).stdout.partition(":")[2].split())


@cache
def _festival_voices() -> frozenset[str]:
    return frozenset(re.findall(r"[\w-]+", _run(["festival", "--batch", "(print (voice.list))"]).stdout))


@cache
def _espeak_voices() -> frozenset[str]:
    """Languages, without the voices of MBROLA (mb/), whose data are not part of it, and the variants (!v/)."""
    rows = [line.split() for line in _run(["espeak-ng", "--voices"]).stdout.splitlines()[1:]]
    return frozenset(row[1] for row in rows if len(row) > 4 and not row[4].startswith(("mb/", "!v/")))


@cache
def _espeak_variants() -> frozenset[str]:
    return frozenset(re.findall(r"!v/(\S+)", _run(["espeak-ng", "--voices=variant"]).stdout))


PROGRAMS: Mapping[str, _Program] = {
    "flite": _Program(
        "flite", ("flite",), _flite_voices, lambda voice, text, sound: ["flite", "-voice", voice, "-f", text, "-o", sound], True
    ),
    "festival": _Program(
        "festival festvox-kallpc16k festvox-us-slt-hts",
        ("festival", "text2wave"),
        _festival_voices,
        lambda voice, text, sound: ["text2wave", "-eval", f"(voice_{voice})", "-o", sound, text],
        True,
    ),
    "espeak-ng": _Program(
        "espeak-ng",
        ("espeak-ng",),
        _espeak_voices,
        lambda voice, text, sound: ["espeak-ng", "-v", voice, "-f", text, "-w", sound],
        False,
    ),
}
