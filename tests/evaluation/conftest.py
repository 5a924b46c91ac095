"""Evaluations made by hand: of each task, from labelled utterances and the answers that a model might have given."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from stapes.decoding.longform import Transcript
from stapes.evaluation.evaluate import Evaluation, _predictions
from stapes.evaluation.scoring import corpus_scores, described
from stapes.tasks import TASKS
from stapes.types import Entity, Utterance

Row = dict[str, Any]


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Evaluation]:
    """made(task, rows, answers): rows are fields of an utterance; ``entities`` are (tag, phrase), and sound is made up."""

    def make(task: dict[str, Any], rows: Sequence[Row], answers: Sequence[str], **extra: Any) -> Evaluation:
        asked = TASKS.build(task)
        utterances = [utterance(tmp_path, number, row) for number, row in enumerate(rows)]
        results = [asked.parse(answer) for answer in answers]
        heard = [
            Transcript(found.text, [], number in extra.get("capped", ()), None, found.entities, found.sentiment)
            for number, found in enumerate(results)
        ]
        references = [asked.reference(each) for each in utterances]
        found = corpus_scores(utterances, references, heard, asked, asked.normaliser, ctc_normaliser=None)
        scores = described(found, utterances) | {
            "utterances": len(rows),
            "capped": len(extra.get("capped", ())),
            "provenance": f"task:{asked.key}",
        }
        predictions = _predictions(utterances, references, heard, asked, extra.get("unreadable", {}), asked.normaliser)
        return Evaluation(scores, predictions, asked.normaliser, utterances)

    return make


def utterance(folder: Path, number: int, row: Row) -> Utterance:
    """An utterance with a second of a tone, or as many as it says."""
    row = {"id": f"u{number}", "text": "", "duration": 1.0} | row
    text, begin, entities = row["text"], 0, []
    for tag, phrase in row.pop("entities", ()):
        begin = text.index(phrase, begin)
        entities.append(Entity(tag, begin, begin + len(phrase), phrase))
    path = folder / f"{number}.wav"
    seconds = np.arange(round(16_000 * row["duration"])) / 16_000
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 440 * seconds), 16_000)
    return Utterance(**{"audio": path, "entities": tuple(entities)} | row)
