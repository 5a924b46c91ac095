"""Which spelling of a transcript an annotator reads: the text, the text as people write it, or with capitals put back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from stapes.annotate.align import Alignment
from stapes.annotate.truecase import Truecaser
from stapes.errors import DataError
from stapes.tasks.style import is_said, named, said
from stapes.types import Entity, Utterance

Reads = Literal["text", "raw", "truecased"]
READS: tuple[Reads, ...] = ("text", "raw", "truecased")
WRITTEN = "written"


@dataclass(frozen=True)
class Reading:
    """Chooses the spelling.

    Attributes:
        kind: "text"; "raw", the transcript as a person wrote it, or the truecased text of an utterance that has none;
            "truecased".
        truecaser: learnt from written transcripts; None with "text".
    """

    kind: Reads
    truecaser: Truecaser | None = None

    @classmethod
    def learn(cls, kind: Reads, case_from: Iterable[Utterance]) -> Reading:
        """A reading whose truecaser has learnt from the written transcripts of ``case_from``.

        Raises:
            DataError: they are needed and there are none.
        """
        if kind == "text":
            return cls(kind)
        texts = [said(utterance, WRITTEN) for utterance in case_from if is_said(utterance, WRITTEN)]
        if not texts:
            fix = "name a manifest that is (--case-from), or read the text (--reads text)"
            raise DataError(f"--reads {kind}", "no utterance is written with capitals", "texts to learn them from", fix)
        return cls(kind, Truecaser.learn(texts))

    def is_raw(self, utterance: Utterance) -> bool:
        """Whether the annotator reads the utterance's transcript as a person wrote it."""
        return self.kind == "raw" and is_said(utterance, WRITTEN)

    def text(self, utterance: Utterance) -> str:
        """What the annotator reads."""
        if self.is_raw(utterance):
            return said(utterance, WRITTEN)
        return utterance.text if self.truecaser is None else self.truecaser(utterance.text)

    def entities(self, utterance: Utterance) -> list[Entity]:
        """An example's entities as spans of what the annotator reads, in the order of the text."""
        text, found = self.text(utterance), utterance.entities or ()
        if self.is_raw(utterance):
            written = named(utterance, WRITTEN)
            found = mapped(found, utterance.text, text) if written is None else written
        ordered = sorted(found, key=lambda entity: (entity.start, entity.end))
        return [Entity(entity.label, entity.start, entity.end, text[entity.start : entity.end]) for entity in ordered]


def mapped(entities: Iterable[Entity], source: str, target: str) -> tuple[Entity, ...]:
    """Entities of one spelling as entities of another; those that cannot be mapped are left out."""
    alignment = Alignment(source, target)
    spans = [(entity, alignment.map(entity.start, entity.end)) for entity in entities]
    return tuple(Entity(entity.label, *span, target[span[0] : span[1]]) for entity, span in spans if span is not None)
