"""What an LLM is told and what it may answer: instruction, shots, JSON schema, and how an answer is read.

The paper (arXiv 2509.04473) does not print its prompt; this one is ours. Shots are turns of the conversation. The instruction
opens the first of them, since some chat templates know no system message.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from stapes.text import tags

Task = Literal["ner", "sentiment"]
TASKS: tuple[Task, ...] = ("ner", "sentiment")

TAGS = {
    "PERSON": "people, real or not",
    "NORP": "nationalities, and religious or political groups",
    "FAC": "buildings, airports, roads, bridges",
    "ORG": "companies, agencies, institutions",
    "GPE": "countries, cities, states",
    "LOC": "other places: mountains, seas, continents, regions",
    "PRODUCT": "vehicles, weapons, foods and other objects",
    "EVENT": "named wars, battles, storms, sports events",
    "WORK_OF_ART": "titles of books, songs, films",
    "LAW": "named documents that were made laws, treaties",
    "LANGUAGE": "named languages",
    "DATE": "dates and periods of a day or longer",
    "TIME": "times shorter than a day",
    "PERCENT": "percentages",
    "MONEY": "amounts of money, with the currency",
    "QUANTITY": "measurements, of weight or distance",
    "ORDINAL": "first, second, and so on",
    "CARDINAL": "numbers that are nothing of the above",
}
assert set(TAGS) == {raw for raws in tags.COMBINED.values() for raw in raws} | set(tags.DISCARDED)

_NER = """Find the named entities in transcripts of speech. The tags are:
{tags}

Copy each phrase from the transcript letter by letter, without adding, correcting or capitalising anything. List the entities \
in the order in which they occur, one that occurs twice twice. Most transcripts have few entities; some have none. Answer with \
JSON only: {{"entities": [{{"tag": "...", "phrase": "..."}}]}}, or {{"entities": []}}."""

_SENTIMENT = """Say which sentiment the speaker of a transcript expresses: Negative, Neutral or Positive. Neutral is also for \
mixed feelings and for none. Answer with JSON only: {"sentiment": "..."}."""

INSTRUCTIONS: dict[Task, str] = {
    "ner": _NER.format(tags="\n".join(f"- {tag}: {meaning}" for tag, meaning in TAGS.items())),
    "sentiment": _SENTIMENT,
}


class BadAnswer(Exception):
    """An answer that cannot be read; the message says why, in a few words that can be counted."""


@dataclass(frozen=True)
class Claim:
    """An entity as an annotator names it.

    Attributes:
        tag, phrase: as it wrote them.
        start: where in the text that it read, in characters, if it says so.
    """

    tag: str
    phrase: str
    start: int | None = None


def messages(task: Task, shots: Sequence[tuple[str, dict[str, Any]]], text: str) -> list[dict[str, str]]:
    """The conversation that asks for the labels of ``text``; ``shots`` are texts with their labels."""
    turns: list[dict[str, str]] = []
    for shown, labels in shots:
        turns.append({"role": "user", "content": f"Transcript: {shown}"})
        turns.append({"role": "assistant", "content": json.dumps(labels, ensure_ascii=False)})
    turns.append({"role": "user", "content": f"Transcript: {text}"})
    turns[0] = {"role": "user", "content": f"{INSTRUCTIONS[task]}\n\n{turns[0]['content']}"}
    return turns


def schema(task: Task) -> dict[str, Any]:
    """The JSON schema of an answer, in the part of JSON Schema that servers take in strict mode."""
    if task == "sentiment":
        return _object(sentiment={"type": "string", "enum": list(tags.SENTIMENTS)})
    entity = _object(tag={"type": "string", "enum": list(TAGS)}, phrase={"type": "string"})
    return _object(entities={"type": "array", "items": entity})


def read(task: Task, answer: str) -> dict[str, Any]:
    """The labels in an answer, which may be fenced as code but must otherwise be JSON of the right form.

    Tags and sentiments are whatever the annotator wrote: judging them is the second filter's business.

    Raises:
        BadAnswer: not JSON, or of another form.
    """
    answer = answer.strip().removeprefix("```json").removeprefix("```").removesuffix("```").strip()
    try:
        found = json.loads(answer)
    except ValueError:
        raise BadAnswer("empty" if not answer else "broken JSON") from None
    if task == "sentiment":
        if not isinstance(found, dict) or not isinstance(found.get("sentiment"), str):
            raise BadAnswer("JSON of another form")
        return {"sentiment": found["sentiment"]}
    entities = found.get("entities") if isinstance(found, dict) else None
    if not isinstance(entities, list) or not all(_is_entity(each) for each in entities):
        raise BadAnswer("JSON of another form")
    return {"entities": [{"tag": each["tag"], "phrase": each["phrase"]} for each in entities]}


def claims(labels: dict[str, Any]) -> list[Claim]:
    """The entities in labels as the journal has them."""
    return [Claim(each["tag"], each["phrase"], each.get("start")) for each in labels["entities"]]


def _is_entity(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("tag"), str) and isinstance(value.get("phrase"), str)


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
