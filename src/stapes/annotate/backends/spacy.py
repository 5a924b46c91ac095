"""spaCy's English pipeline, an annotator that needs no LLM and no network.

Its 18 tags are those of OntoNotes, as SLUE's are, but where phrases begin differs: OntoNotes has "the European Union" and
"Europe's", SLUE "european union" and "europe". So leading articles go, but where SLUE keeps them ("the last year"), and so
does a possessive ending. Ours, after the labels of SLUE-VoxPopuli.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any

from stapes import hub
from stapes.annotate.backends.base import Answer, Backend, Question
from stapes.errors import MissingDependency

PACK = "pack:en-core-web-md"
KEEP_THEIR_ARTICLE = frozenset({"DATE", "TIME", "MONEY", "QUANTITY", "PERCENT", "CARDINAL", "ORDINAL"})
_ARTICLE = re.compile(r"(?:the|an?)\s+", flags=re.IGNORECASE)
_POSSESSIVE = re.compile(r"(?:['\u2019]s|['\u2019])$", flags=re.IGNORECASE)


class SpacyBackend(Backend):
    """Named entities by en_core_web_md.

    Args:
        progress: show on stderr what is downloaded.

    Raises:
        MissingDependency: spaCy is not installed.
        WeightsError: the pack cannot be had.
    """

    name = "spacy"

    def __init__(self, progress: bool = True) -> None:
        if find_spec("spacy") is None:
            raise MissingDependency("--spacy", "annotate")
        import spacy

        weights = hub.resolve(PACK, progress=progress, library="spacy")
        self._revision = weights.revision
        # The entity recogniser has its own encoder; the other components would only take time.
        self._pipeline = spacy.load(weights.folder, exclude=["tagger", "parser", "attribute_ruler", "lemmatizer"])

    @property
    def settings(self) -> dict[str, Any]:
        """The digest of its weights."""
        return {"backend": self.name, "model": PACK, "revision": self._revision}

    async def ask(self, question: Question) -> Answer:
        """The entities of a text, each with its offset."""
        found = []
        for span in self._pipeline(question.text).ents:
            start, phrase = trimmed(span.label_, span.start_char, span.text)
            if phrase:
                found.append({"tag": span.label_, "phrase": phrase, "start": start})
        return Answer({"entities": found})


def trimmed(tag: str, start: int, phrase: str) -> tuple[int, str]:
    """A phrase of OntoNotes as SLUE would have it, and where it starts."""
    phrase = _POSSESSIVE.sub("", phrase)
    if tag not in KEEP_THEIR_ARTICLE and (article := _ARTICLE.match(phrase)):
        return start + article.end(), phrase[article.end() :]
    return start, phrase
