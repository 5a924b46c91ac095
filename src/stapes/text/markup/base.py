"""What every markup promises."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from stapes.errors import DataError, RecipeError
from stapes.registry import nearest
from stapes.text.markup.spans import normalise_marked
from stapes.text.tags import COMBINED, RAW, combined
from stapes.types import Entity

CLOSE_ENOUGH = 0.75  # of difflib's ratio, for a tag that is misspelt (ours)


@dataclass(frozen=True)
class Marked:
    """What could be read from an answer.

    Attributes:
        text: the words without markup, one space between them; empty where the markup holds no text (json).
        entities: in order of appearance, none within another. Offsets are into ``text``; where the markup holds no text they
            are -1, and phrases are all there is.
        repairs: how many places were malformed and mended; 0 exactly where the answer, its white space collapsed, matches the
            markup's grammar.
    """

    text: str
    entities: tuple[Entity, ...]
    repairs: int


class Markup(ABC):
    """A way of writing entities into a text.

    Args:
        tags: the inventory: SLUE's 7 combined tags, its 18 raw ones, or some of them.

    Attributes:
        name: as in the table.
        tags: the inventory.
        scores_sound: whether the answer holds the words said, in order.
        replaced: characters that belong to the markup -> what is written in their place where a text has them, one for one.

    Raises:
        RecipeError: a tag that is not SLUE's, one twice, or none.
    """

    name: str
    scores_sound: bool
    replaced: ClassVar[dict[str, str]]

    def __init__(self, tags: Sequence[str] = tuple(COMBINED)) -> None:
        known = {*COMBINED, *RAW}
        for tag in tags:
            if tag not in known:
                raise RecipeError("markup.tags", f"'{tag}'", "a tag of SLUE", nearest(tag, known))
        if not tags or len(set(tags)) < len(tags):
            raise RecipeError("markup.tags", f"{list(tags)}", "one tag or more, each once")
        self.tags = tuple(tags)
        self._replaced = str.maketrans(self.replaced)

    @property
    def reserved(self) -> str:
        """The characters that belong to the markup, which no text in an answer may hold."""
        return "".join(self.replaced)

    @abstractmethod
    def write(self, text: str, entities: Sequence[Entity]) -> str:
        """The answer that says ``text`` with its ``entities``.

        White space is collapsed, and characters of the markup are replaced (``replaced``); apart from that the words stay as
        they are. Labels that the inventory lacks are combined as SLUE does it; what then is not in it is left out.

        Args:
            text: normalised or not.
            entities: spans of it; of nested ones, markup among words has the outer, a list all.

        Raises:
            DataError: a label that is not SLUE's.
        """

    @abstractmethod
    def read(self, answer: str) -> Marked:
        """What an answer says: everything that can be saved of it, whatever it is; never raises.

        A tag in lower case counts, and so does a misspelt one if a single tag of the inventory is close to it. The entity of
        any other is dropped. White space is collapsed first.
        """

    @abstractmethod
    def grammar(self, words: str, within_words: bool = True) -> str:
        r"""A regular expression of all well-formed answers, the empty text's included.

        Args:
            words: the character class of words, in its brackets (``[a-z0-9']``), without white space and without ``reserved``.
            within_words: whether an entity may begin within a word, as behind a quotation mark; else it begins where a word
                does, so that the space before it cannot get lost.

        Returns:
            In the syntax that Rust's ``regex`` and Python's ``re`` have in common, if ``words`` is.
        """

    @abstractmethod
    def listen(self, state: str, letters: str) -> tuple[str, str]:
        """Follow an answer as it is written.

        Args:
            state: what the last call returned, "" at the beginning.
            letters: the next letters of the answer, any number.

        Returns:
            The new state, and what of the letters are spoken words, with a space before each word but where the answer begins
            without one. What may be markup waits in the state. All of it together is ``read(answer).text``.
        """

    def _prepared(self, text: str, entities: Sequence[Entity]) -> tuple[str, list[Entity]]:
        """Text and entities as they can be written: white space, characters and labels are the markup's."""
        text, entities = normalise_marked(text.translate(self._replaced), entities, "none")
        named = [(self._label(entity.label), entity) for entity in entities]
        return text, [Entity(label, each.start, each.end, each.phrase) for label, each in named if label is not None]

    def _label(self, label: str) -> str | None:
        """The tag of the inventory for a label; None where there is none."""
        if label in self.tags:
            return label
        found = combined(label)
        return found if found in self.tags else None

    def _meant(self, name: str) -> str | None:
        """The tag of the inventory that an LLM means by a name; None where that is not clear."""
        name = name.upper()
        try:
            found = self._label(name)
        except DataError:
            found = None
        if found is None:
            close = difflib.get_close_matches(name, self.tags, n=2, cutoff=CLOSE_ENOUGH)
            found = close[0] if len(close) == 1 else None
        return found
