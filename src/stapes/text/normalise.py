"""Text normalisers, by name: what is done to a reference and a hypothesis before they are compared.

A word error rate means nothing without its normaliser's name, so each carries a version for the score's signature (`version`).
Every normaliser collapses white space and strips the ends; `none` and `slue` change nothing when applied a second time.

    none           white space collapsed, nothing else
    slue           lower-case; every character but letters, digits and apostrophes becomes a space; the default
    bare           lower-case, punctuation removed and nothing put in its place, as the code of arXiv 2409.17044 does
    whisper-en     Whisper's English normaliser, without its British-to-American spelling list
    whisper-basic  Whisper's normaliser for every other language
"""

from __future__ import annotations

import importlib.metadata
import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

from stapes.errors import RecipeError
from stapes.registry import nearest

Normaliser = Callable[[str], str]

_APOSTROPHES = str.maketrans(dict.fromkeys("\u2019\u02bc\uff07", "'"))
_NEITHER_WORD_NOR_APOSTROPHE = re.compile(r"[^a-z0-9']")


def none(text: str) -> str:
    """Collapse white space; the words stay as the corpus or the model wrote them."""
    return " ".join(text.split())


def slue(text: str) -> str:
    """Lower-case a text and turn every character but letters, digits and apostrophes into a space.

    - Letters and digits are those of Unicode, in composed form (NFC), so accents and other scripts survive; a combining mark
      without a composed form, such as a vowel sign of Devanagari, stays with the letter that it follows.
    - The typographic apostrophes U+2019, U+02BC and U+FF07 become "'". Apostrophes stay wherever they are: at the start of a
      word ("'em"), at its end ("citizens'"), around it as quotation marks, or alone: a few of SLUE-VoxPopuli's references have
      one that stands alone, and the official score counts it. U+2018, an opening quotation mark, becomes a space.
    - Nothing is expanded: "10%" becomes "10", "e.g." becomes "e g".
    """
    text = text.translate(_APOSTROPHES)
    if text.isascii():
        return " ".join(_NEITHER_WORD_NOR_APOSTROPHE.sub(" ", text.lower()).split())
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())
    kept: list[str] = []
    in_letter = False
    for character in text:
        in_letter = character.isalpha() or (in_letter and unicodedata.category(character) in ("Mn", "Mc"))
        kept.append(character if in_letter or character.isalnum() or character == "'" else " ")
    return " ".join("".join(kept).split())


def bare(text: str) -> str:
    """Lower-case a text and remove its punctuation: "e.g." becomes "eg", "don't" "dont". The rules are jiwer's."""
    return none(_bare()(text))


def whisper_en(text: str) -> str:
    """Whisper's English normaliser: numbers to digits, contractions and titles spelt out, fillers and brackets dropped.

    The code is transformers'. Its list of British and American spellings is not part of transformers but of each checkpoint's
    tokenizer files, and this normaliser does without it, so that a score never depends on which files happen to be there:
    "colour" and "color" count as different words, and the signature says "no-spelling-map".
    """
    return none(_whisper_english()(text))


def whisper_basic(text: str) -> str:
    """Whisper's normaliser for languages other than English: lower-case, no symbols, no text in brackets (NFKC)."""
    return none(_whisper_basic()(text))


@lru_cache(maxsize=1)
def _bare() -> Normaliser:
    import jiwer

    rules: Normaliser = jiwer.Compose([jiwer.ToLowerCase(), jiwer.RemovePunctuation()])
    return rules


@lru_cache(maxsize=1)
def _whisper_english() -> Normaliser:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    return EnglishTextNormalizer({})


@lru_cache(maxsize=1)
def _whisper_basic() -> Normaliser:
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer

    return BasicTextNormalizer()


NORMALISERS: dict[str, Normaliser] = {
    "none": none,
    "slue": slue,
    "bare": bare,
    "whisper-en": whisper_en,
    "whisper-basic": whisper_basic,
}


def get(name: str) -> Normaliser:
    """The normaliser called ``name``.

    Raises:
        RecipeError: there is none of that name; the message offers the nearest.
    """
    if name not in NORMALISERS:
        raise RecipeError("normaliser", f"unknown normaliser '{name}'", fix=nearest(name, NORMALISERS))
    return NORMALISERS[name]


def version(name: str) -> str:
    """What stands behind the normaliser's name in a signature; it changes whenever the normaliser's output may.

    Raises:
        RecipeError: there is no normaliser of that name.
    """
    get(name)
    if name in ("none", "slue"):
        return "v1"
    if name == "bare":
        return f"v1(jiwer-{importlib.metadata.version('jiwer')})"
    library = f"transformers-{importlib.metadata.version('transformers')}"
    return f"v1({library},no-spelling-map)" if name == "whisper-en" else f"v1({library})"
