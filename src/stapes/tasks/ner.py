"""Named entities: the transcript with its entities in it, or their list alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from stapes.metrics.entities import combined_f1, entity_f1, label_f1, phrases
from stapes.tasks.asr import rates
from stapes.tasks.base import Result, Task, key_of
from stapes.tasks.style import LONGER, NORMALISERS, Style, check_style, in_style, is_said, letter_class, named, said
from stapes.text.markup import MARKUPS, Markup, normalise_marked
from stapes.text.tags import COMBINED, RAW
from stapes.types import Score, Utterance

INLINE = (
    "Transcribe the speech and mark the named entities.",
    "Write down what is said, with every name, place, number and date marked.",
    "What does the speaker say? Mark the entities.",
    "Give the words of this recording, its named entities in markup.",
    "Turn the speech into text with tagged entities.",
    "Note down the spoken words and tag people, places, organisations, quantities and times.",
    "Listen, and write what you hear with the entities tagged.",
    "Put the audio into writing and label each named entity.",
    "Give a transcript of the audio in which entities are labelled.",
)
LISTED = (
    "List the named entities in the speech.",
    "Which names, places, numbers and dates are said?",
    "Give the entities that the speaker mentions.",
    "Name every entity of this recording.",
    "Extract the named entities from the speech.",
    "Note down the people, places, organisations, quantities and times that are mentioned.",
    "Listen, and list the entities that you hear.",
    "Give the tagged entities of the audio.",
    "Make a list of all named entities in the audio.",
)
MARKED_LONGER = 2.0  # tokens, with markup against without (ours)


class NER(Task):
    """Transcribe and mark entities. The tags are SLUE's.

    Args:
        instruction, templates: as for ``Task``.
        style: of the transcript, as for ``asr``.
        markup: "brackets", "slue" or "json" (``text/markup``); the last is a list of entities without a transcript.
        tags: the 7 "combined" ones of the benchmark, or the 18 "raw" ones.
    """

    name = "ner"
    criterion = "ner_f1"

    def __init__(
        self,
        instruction: str | None = None,
        templates: int = 1,
        style: Style = "spoken",
        markup: str = "brackets",
        tags: Literal["combined", "raw"] = "combined",
    ) -> None:
        check_style(self.name, style)
        self.markup: Markup = MARKUPS.build({"name": markup, "tags": tuple(COMBINED) if tags == "combined" else RAW})
        super().__init__(INLINE if self.markup.scores_sound else LISTED, instruction, templates)
        self.style, self.tags, self.normaliser = style, tags, NORMALISERS[style]
        self.scores_sound = self.markup.scores_sound and style == "spoken"
        self.longer = MARKED_LONGER * LONGER[style]

    @property
    def key(self) -> str:
        """See ``Task.key``."""
        return key_of(self.name, self.style)

    def has_target(self, utterance: Utterance) -> bool:
        """Whether its entities are known; none at all is known too."""
        return is_said(utterance, self.style) and named(utterance, self.style) is not None

    def target(self, utterance: Utterance) -> str:
        """The normalised transcript with its entities marked."""
        entities = named(utterance, self.style) or ()
        return self.markup.write(*normalise_marked(said(utterance, self.style), entities, self.normaliser))

    def kind(self, utterance: Utterance) -> str:
        """Whether anything is named."""
        return "named" if named(utterance, self.style) else "nothing"

    def reference(self, utterance: Utterance) -> Result:
        """Transcript, where one is asked for, and entities as the corpus has them, nested ones included."""
        return Result(said(utterance, self.style) if self.markup.scores_sound else "", named(utterance, self.style) or ())

    def parse(self, answer: str) -> Result:
        """What the markup says."""
        found = self.markup.read(answer)
        return Result(found.text, found.entities, repairs=found.repairs)

    def scores(
        self, references: Sequence[Result], hypotheses: Sequence[Result], normaliser: str | None = None, resamples: int = 1000
    ) -> dict[str, Score]:
        """SLUE's NER F1 and label-F1, of raw tags the combined F1 too; WER and CER of a transcript where there is one."""
        expected, found = ([self._phrases(each) for each in side] for side in (references, hypotheses))
        scores = {
            "ner_f1": entity_f1(expected, found, tag_set=self.tags, resamples=resamples),
            "ner_label_f1": label_f1(expected, found, tag_set=self.tags, resamples=resamples),
        }
        if self.tags == "raw":
            scores["ner_f1_combined"] = combined_f1(expected, found, resamples=resamples)
        if self.markup.scores_sound:
            scores |= rates(references, hypotheses, normaliser or self.normaliser, resamples)
        return in_style(scores, self.style)

    def grammar(self) -> str:
        """See ``Task.grammar``."""
        return self.markup.grammar(letter_class(self.style, self.markup.reserved), within_words=self.style != "spoken")

    def listen(self, state: str, letters: str) -> tuple[str, str]:
        """See ``Task.listen``."""
        return self.markup.listen(state, letters)

    def labels(self, reference: Result, hypothesis: Result) -> dict[str, Any]:
        """The entities as they are scored."""
        return {"reference_entities": self._phrases(reference), "entities": self._phrases(hypothesis)}

    def provenance(self) -> dict[str, str]:
        """The markup, which no score depends on but by what the model made of it."""
        return {"markup": self.markup.name}

    def _phrases(self, result: Result) -> list[tuple[str, str]]:
        return phrases(result.entities or (), self.tags)
