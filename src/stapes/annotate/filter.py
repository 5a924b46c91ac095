"""The two filters of SENSE-ASR (arXiv 2509.04473): entities that are not in the transcript, then tags that mean nothing.

**1, not in the transcript.** A phrase is looked for letter by letter; then word by word, whatever case and punctuation; then,
where it occurs in neither way, among windows of as many words, one more and one fewer, of which the likest is taken if
``difflib`` finds it at least ``LIKENESS`` alike ("rohinga" for "rohingya"). Offsets, and the phrase with them, are those of the
transcript. A phrase that is claimed twice takes two occurrences, from left to right; longer phrases choose first, and no
two entities overlap. What was found in another spelling than the transcript's (``reading``) is mapped to it word by word.

**2, meaningless.** Of what is in the transcript: tags that SLUE does not know (case and spaces aside), phrases without a letter
or digit, and phrases of nothing but ``STOP_WORDS``. What is absent is the first filter's, whatever it means. Which of
them the paper means is not known; the rules, the threshold and the list are ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from stapes.annotate.align import Alignment, Span, words
from stapes.annotate.prompt import TAGS, Claim
from stapes.annotate.reading import mapped
from stapes.text import tags
from stapes.types import Entity, Utterance

LIKENESS = 0.9  # "ireland" and "iceland" are 0.86 alike, "barroso" and "baroso" 0.92
SHORTEST_LIKENED = 4  # letters; of shorter phrases too little is left once one letter may differ
KNOWN_TAGS = frozenset(TAGS) | frozenset(tags.COMBINED)

# Not in it: who (World Health Organisation), us (United States), may (the month), it, one, second.
_STOP_WORDS = """
a an the this that these those and or but nor if so as than then of in on at to by for from with into about over under
i you he she we they me him her them my your his its our their mine yours ours theirs myself itself themselves is am are
was were be been being do does did have has had will would shall should can could might must not no yes there here what
which when where why how all any both each some such very just also too s t uh um er
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())


@dataclass(frozen=True)
class Rejection:
    """An entity, or a sentiment, that a filter dropped.

    Attributes:
        id: of the utterance.
        stage: 1 or 2.
        reason: in words that can be counted.
        tag, phrase: as the annotator wrote them.
    """

    id: str
    stage: int
    reason: str
    tag: str
    phrase: str


@dataclass(frozen=True)
class Filtered:
    """What the filters made of one utterance's claims.

    Attributes:
        entities, raw_entities: what is left, as spans of ``text`` and of ``raw_text`` (None without one).
        stages: (tag, phrase) of each entity before the filters, after the first, and after both.
        rejected: what is not.
        repaired: how many phrases were found in other letters than claimed.
        unmapped: how many entities of the text have no place in the raw text.
        is_raw: whether the annotator read the ``raw_text``, in whose spelling claims then are.
    """

    entities: tuple[Entity, ...]
    raw_entities: tuple[Entity, ...] | None
    stages: tuple[list[tuple[str, str]], ...]
    rejected: tuple[Rejection, ...]
    repaired: int
    unmapped: int
    is_raw: bool = False


@dataclass(frozen=True)
class Placed:
    """Where a claim lies in the text that its annotator read, and whether letter by letter; no span where it is nowhere."""

    span: Span | None
    exact: bool = False
    reason: str = ""


def filter_entities(utterance: Utterance, claims: Sequence[Claim], read: str, is_raw: bool) -> Filtered:
    """Both filters.

    Args:
        utterance: whose labels they are.
        claims: what the annotator found, in its order.
        read: what the annotator read.
        is_raw: whether that is the ``raw_text``; else it is the text, case aside.
    """
    text = utterance.text
    alignment = Alignment(read, text) if is_raw else None
    kept: list[tuple[Entity, Span]] = []
    before, first, rejected, repaired = [], [], [], 0
    for claim, placed in zip(claims, locate(claims, read), strict=True):
        span = placed.span if placed.span is None or alignment is None else alignment.map(*placed.span)
        phrase = claim.phrase if span is None else text[span[0] : span[1]]
        before.append((claim.tag, phrase if placed.exact else claim.phrase))
        if span is None:
            reason = placed.reason or "cannot be mapped to the text"
            rejected.append(Rejection(utterance.id, 1, reason, claim.tag, claim.phrase))
            continue
        first.append((claim.tag, phrase))
        if (meaning := meaningless(claim)) is not None:
            rejected.append(Rejection(utterance.id, 2, meaning, claim.tag, claim.phrase))
            continue
        assert placed.span is not None
        repaired += not placed.exact
        kept.append((Entity(known_tag(claim.tag), *span, phrase), placed.span))
    kept = sorted(kept, key=lambda pair: pair[0].start)
    entities = tuple(entity for entity, _ in kept)
    raw: tuple[Entity, ...] | None = None
    if is_raw:
        raw = tuple(Entity(entity.label, *span, read[span[0] : span[1]]) for entity, span in kept)
    elif utterance.raw_text is not None:
        raw = mapped(entities, text, utterance.raw_text)
    after = [(entity.label, entity.phrase) for entity in entities]
    unmapped = 0 if raw is None else len(entities) - len(raw)
    return Filtered(entities, raw, (before, first, after), tuple(rejected), repaired, unmapped, is_raw)


def locate(claims: Sequence[Claim], text: str) -> list[Placed]:
    """Where each claim lies in ``text``: no two overlap, and those that say where they are come first."""
    taken: list[Span] = []
    placed: dict[int, Placed] = {}
    order = sorted(range(len(claims)), key=lambda index: (claims[index].start is None, -len(claims[index].phrase), index))
    for index in order:
        found = _place(claims[index], text, taken)
        placed[index] = found
        if found.span is not None:
            taken.append(found.span)
    return [placed[index] for index in range(len(claims))]


def meaningless(claim: Claim) -> str | None:
    """Why a claim means nothing; None if it does."""
    spelled = [word for word, _, _ in words(claim.phrase)]
    if not any(letter.isalnum() for word in spelled for letter in word):
        return "no letter or digit"
    if known_tag(claim.tag) not in KNOWN_TAGS:
        return "unknown tag"
    return "stop words only" if set(spelled) <= STOP_WORDS else None


def known_tag(tag: str) -> str:
    """A tag as SLUE writes it."""
    return "_".join(re.split(r"[\s_]+", tag.strip().upper()))


def _place(claim: Claim, text: str, taken: Sequence[Span]) -> Placed:
    """The first free place of a claim, in the strictest way in which it occurs."""
    start = claim.start
    if start is not None and start >= 0 and claim.phrase and text.startswith(claim.phrase, start):
        span = (start, start + len(claim.phrase))
        if not any(_is_within_a_word(offset, text) for offset in span):
            return Placed(span, exact=True) if _is_free(span, taken) else Placed(None, reason="overlaps another")
    occurs = False
    for exact, spans in ((True, _letter_by_letter(claim.phrase, text)), (False, _word_by_word(claim.phrase, text))):
        for span in spans:
            occurs = True
            if _is_free(span, taken):
                return Placed(span, exact)
    if occurs:
        return Placed(None, reason="claimed more often than it occurs")
    likest = next((span for span in _alike(claim.phrase, text) if _is_free(span, taken)), None)
    return Placed(likest, reason="" if likest else "not in the transcript")


def _is_free(span: Span, taken: Iterable[Span]) -> bool:
    return all(span[1] <= start or span[0] >= end for start, end in taken)


def _is_within_a_word(offset: int, text: str) -> bool:
    return 0 < offset < len(text) and text[offset - 1].isalnum() and text[offset].isalnum()


def _letter_by_letter(phrase: str, text: str) -> Iterator[Span]:
    """Occurrences that begin and end with words; ends of white space are not part of a phrase."""
    if phrase := phrase.strip():
        for found in re.finditer(rf"(?<!\w){re.escape(phrase)}(?!\w)", text):
            yield found.span()


def _word_by_word(phrase: str, text: str) -> Iterator[Span]:
    """Occurrences of the phrase's words, whatever their case and what stands between them."""
    wanted, there = [word for word, _, _ in words(phrase)], words(text)
    for first in range(len(there) - len(wanted) + 1 if wanted else 0):
        window = there[first : first + len(wanted)]
        if [word for word, _, _ in window] == wanted:
            yield window[0][1], window[-1][2]


def _alike(phrase: str, text: str) -> list[Span]:
    """Windows of words that are at least ``LIKENESS`` like the phrase, the likest first, of equals the leftmost."""
    wanted, there = [word for word, _, _ in words(phrase)], words(text)
    joined = " ".join(wanted)
    if len(joined) < SHORTEST_LIKENED:
        return []
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(joined)
    found = []
    for size in (len(wanted), len(wanted) + 1, len(wanted) - 1):
        for first in range(len(there) - size + 1 if size else 0):
            window = there[first : first + size]
            matcher.set_seq1(" ".join(word for word, _, _ in window))
            if matcher.real_quick_ratio() >= LIKENESS and matcher.quick_ratio() >= LIKENESS:
                found.append((-matcher.ratio(), window[0][1], window[-1][2]))
    return [(start, end) for likeness, start, end in sorted(found) if -likeness >= LIKENESS]
