"""Markup that stands between the words said: the scanner that reads it letter by letter.

An entity is an opening, its words and a closing, and taking these out leaves the text as it was: each opening takes the space
behind it with it, so that an entity may begin and end within a word ("[PLACE iceland]'s"). A space is held back until the next
letter is known, and so is an opening until it is over; what is held back is the scanner's whole state.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from stapes.text.markup.base import Marked, Markup
from stapes.text.markup.spans import outermost
from stapes.types import Entity

CLOSING = "]"


@dataclass(frozen=True)
class Mark:
    """An opening or a closing in an answer.

    Attributes:
        opens: which of the two.
        well_formed: whether it stands there as the grammar has it.
        tag: of an opening; None where it has none that is known.
    """

    opens: bool
    well_formed: bool
    tag: str | None = None


@dataclass
class _Span:
    """What stands between an opening, the answer's mark number ``mark``, and its closing."""

    mark: int
    tag: str | None
    start: int
    end: int | None = None


class Inline(Markup):
    """Markup within the text, with "]" as the end of an entity.

    An answer that is malformed is read so: an entity never closed reaches to the next mark or the end; a closing too many, an
    empty entity and one within another are dropped; an opening that breaks off at the end of the answer is dropped with the
    letters of its tag that are there. Words are kept in every other case.

    Attributes:
        openings: the characters that begin an opening.
        space_before_closing: whether a space belongs before "]".
    """

    scores_sound = True
    openings: str
    space_before_closing: bool

    @abstractmethod
    def _opening(self, tag: str) -> str:
        """The opening of a tag, without the space behind it."""

    @abstractmethod
    def _is_over(self, opening: str, letter: str) -> bool:
        """Whether ``letter`` comes behind ``opening``, which has been held back so far, and is no part of it."""

    @abstractmethod
    def _opened(self, opening: str) -> tuple[Mark, str]:
        """The mark that a complete opening is, and the letters in it that turn out to be words."""

    @abstractmethod
    def _opening_grammar(self) -> str:
        """A regular expression of all openings, without the space behind them."""

    def write(self, text: str, entities: Sequence[Entity]) -> str:
        """The text with its outermost entities marked."""
        text, entities = self._prepared(text, entities)
        parts, done = [], 0
        for entity in outermost(entities):
            parts += [text[done : entity.start], self._opening(entity.label), " ", entity.phrase]
            parts += [" " if self.space_before_closing else "", CLOSING]
            done = entity.end
        return "".join([*parts, text[done:]])

    def grammar(self, words: str, within_words: bool = True) -> str:
        """Words, one space between them, in which entities may stand anywhere, or begin where words begin."""
        closing = (" " if self.space_before_closing else "") + r"\]"
        entity = f"{self._opening_grammar()}(?: {words}+)+{closing}"
        word = f"(?:{words}|{entity})+" if within_words else f"(?:{entity}{words}*|{words}+)"
        return f"(?:{word}(?: {word})*)?"

    def listen(self, state: str, letters: str) -> tuple[str, str]:
        """Words as soon as they are known to be words; the state is what is held back."""
        state, found = self._scan(state, letters)
        return state, "".join(part for part in found if isinstance(part, str))

    def read(self, answer: str) -> Marked:
        """The words, and the entities between matching marks."""
        held, found = self._scan("", " ".join(answer.split()))
        letters: list[str] = []
        spans: list[_Span] = []
        unclosed: list[_Span] = []
        offsets: list[int] = []  # of each mark
        malformed: set[int] = set()  # numbers of marks; of a pair, the opening's
        length = 0
        for part in found:
            if isinstance(part, str):
                letters.append(part if length else part.lstrip())
                length += len(letters[-1])
                continue
            mark = len(offsets)
            offsets.append(length)
            if part.opens:
                spans.append(_Span(mark, part.tag, length))
                unclosed.append(spans[-1])
            elif unclosed:
                span = unclosed.pop()
                span.end, mark = length, span.mark
            else:
                malformed.add(mark)
            if not part.well_formed:
                malformed.add(mark)
        offsets.append(length)
        text = "".join(letters)
        entities: list[Entity] = []
        for span in spans:
            if span.end is None:
                malformed.add(span.mark)
                span.end = offsets[span.mark + 1]
            phrase = text[span.start : span.end].lstrip()
            if not phrase or (entities and span.start < entities[-1].end):
                malformed.add(span.mark)
            elif span.tag is not None:
                entities.append(Entity(span.tag, span.end - len(phrase), span.end, phrase))
        return Marked(text, tuple(entities), len(malformed) + bool(held.strip()))

    def _scan(self, held: str, letters: str) -> tuple[str, list[str | Mark]]:
        """Words and marks in the next letters of an answer, and what is then held back: a space, an opening, or both."""
        found: list[str | Mark] = []
        for letter in letters:
            letter = " " if letter.isspace() else letter
            opening = held.lstrip()
            if opening and not self._is_over(opening, letter):
                held += letter
                continue
            if opening:
                held = held[: -len(opening)]
                mark, words = self._opened(opening)
                found.append(mark)
                if words:
                    found.append(words if words.startswith(" ") else held + words)
                    held = " " if opening.endswith(" ") else ""
            if letter == " ":
                held = " "
            elif letter in self.openings:
                held += letter
            elif letter == CLOSING:
                found.append(Mark(opens=False, well_formed=bool(held) == self.space_before_closing))
                held = "" if self.space_before_closing else held
            else:
                found.append(held + letter)
                held = ""
        return held, found
