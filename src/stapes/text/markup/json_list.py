"""Entities alone, as a JSON list in order of appearance: ``[{"tag": "PERSON", "text": "jane doe"}]``. The form is ours."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import ClassVar

from stapes.text.markup.base import Marked, Markup
from stapes.text.tags import COMBINED
from stapes.types import Entity

LETTER = r'[^\s"\\]'
# A pair of an object, be its string closed or not.
PAIR = re.compile(r'"(tag|text)"\s*:\s*"((?:[^"\\]|\\.)*)', re.IGNORECASE)


class JSONList(Markup):
    r"""A list of entities without the words around them. Offsets are -1: where a phrase stands, the answer does not say.

    A quotation mark in a phrase is written as an apostrophe, a backslash as a slash, a control character as a space, so that no
    string has escapes. Nested entities are all written.

    A malformed answer is searched for objects with "tag" and "text", be there other text around them, be the last one cut off,
    be the keys in another order; what has no phrase, or no tag that can be made out, is dropped.
    """

    name = "json"
    scores_sound = False
    replaced: ClassVar[dict[str, str]] = {'"': "'", "\\": "/"} | {chr(code): " " for code in range(32)}

    def __init__(self, tags: Sequence[str] = tuple(COMBINED)) -> None:
        super().__init__(tags)
        self._well_formed = re.compile(self.grammar(LETTER))
        self._object = re.compile(self._object_grammar(LETTER))

    def write(self, text: str, entities: Sequence[Entity]) -> str:
        """The list of the entities' tags and phrases."""
        _, entities = self._prepared(text, entities)
        ordered = sorted(entities, key=lambda each: (each.start, -each.end))
        return json.dumps([{"tag": each.label, "text": each.phrase} for each in ordered], ensure_ascii=False)

    def grammar(self, words: str, within_words: bool = True) -> str:
        """JSON with exactly these keys in this order, and the spaces that ``write`` puts."""
        entity = self._object_grammar(words)
        return rf"\[(?:{entity}(?:, {entity})*)?\]"

    def listen(self, state: str, letters: str) -> tuple[str, str]:
        """Nothing: the words said are not in the answer."""
        return "", ""

    def read(self, answer: str) -> Marked:
        """The entities; the text is empty."""
        answer = " ".join(answer.split())
        if self._well_formed.fullmatch(answer):
            return Marked("", tuple(_entity(each["tag"], each["text"]) for each in json.loads(answer, strict=False)), 0)
        entities, repairs = [], 0
        for part in answer.split("{")[1:]:
            repairs += self._object.match("{" + part) is None
            pairs = {key.lower(): " ".join(_unescaped(value).split()) for key, value in PAIR.findall(part)}
            tag = self._meant(pairs.get("tag", ""))
            if tag is not None and pairs.get("text"):
                entities.append(_entity(tag, pairs["text"]))
        return Marked("", tuple(entities), max(repairs, 1))

    def _object_grammar(self, words: str) -> str:
        tags = "|".join(map(re.escape, self.tags))
        return rf'\{{"tag": "(?:{tags})", "text": "{words}+(?: {words}+)*"\}}'


def _entity(tag: str, phrase: str) -> Entity:
    return Entity(tag, -1, -1, phrase)


def _unescaped(string: str) -> str:
    """The inside of a JSON string; as it stands, where its escapes are broken."""
    try:
        text: str = json.loads(f'"{string}"', strict=False)
    except ValueError:
        return string
    return text
