"""The journal: every answer as soon as it is there, so that nothing is asked, or paid for, twice.

    {"settings": {"task": "ner", "model": "gpt-4o", ...}}
    {"id": "a1", "question": "3f0c...", "labels": {"entities": [...]}, "usage": {...}, ...}

JSONL, only ever appended to, one write for each answer before anything else is done with it. A process that is killed loses
the answers that had not arrived; a last line that was half written is cut off by the next run. An answer counts for the
question that it was given to: the digest of all that was sent stands beside it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from stapes.annotate.backends.base import Answer, Question, Usage
from stapes.errors import DataError

_REMEDY = "give another OUTPUT, or remove the journal to ask for everything again"


class Journal:
    """An open journal; made by ``opened``.

    Attributes:
        usage: what all answers in it cost, those of earlier runs and those that led nowhere included.
        trouble: what went wrong, in all of them.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._answers: dict[tuple[str, str], Answer] = {}
        self.usage, self.trouble = Usage(), Counter[str]()

    def answer(self, question: Question) -> Answer | None:
        """The final answer to a question, if it was given."""
        found = self._answers.get((question.id, question.digest))
        return found if found is not None and found.final else None

    def write(self, question: Question, answer: Answer) -> None:
        """Append an answer; on return the operating system has it."""
        record = {
            "id": question.id,
            "question": question.digest,
            "labels": answer.labels,
            "failure": answer.failure,
            "final": answer.final,
            "usage": asdict(answer.usage),
            "trouble": dict(answer.trouble),
        }
        _append(self._file, record)
        self._take(question.id, question.digest, answer)

    def read(self, path: Path, settings: dict[str, Any]) -> None:
        """Take over what earlier runs wrote; a last line that is not whole is cut off, and an empty file is begun."""
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        self._file.truncate(whole)
        lines = content[:whole].splitlines()
        if not lines:
            _append(self._file, {"settings": settings})
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                if number == 1:
                    _check(path, record["settings"], settings)
                else:
                    self._take(record["id"], record["question"], _answer(record))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DataError(f"{path}:{number}", "not a line of a journal", fix=_REMEDY) from error

    def _take(self, name: str, digest: str, answer: Answer) -> None:
        self._answers[name, digest] = answer
        self.usage.add(answer.usage)
        self.trouble.update(answer.trouble)


@contextmanager
def opened(path: Path, settings: dict[str, Any]) -> Iterator[Journal]:
    """Open a journal, or begin one, for one process at a time.

    Args:
        path: the JSONL file.
        settings: what the answers depend on.

    Raises:
        DataError: it was written with other settings or is not a journal, or another process is writing to it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise DataError(path, "another process is writing to it", fix="wait for it, or give another OUTPUT") from None
    try:
        with path.open("a+b") as file:
            journal = Journal(file)
            journal.read(path, settings)
            yield journal
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _answer(record: dict[str, Any]) -> Answer:
    usage, trouble = Usage(**record["usage"]), Counter(record["trouble"])
    return Answer(record["labels"], record["failure"], record["final"], usage, trouble)


def _check(path: Path, written: dict[str, Any], settings: dict[str, Any]) -> None:
    for key in sorted(written.keys() | settings.keys()):
        if written.get(key) != settings.get(key):
            found = f"written with {key} {_short(written.get(key))}"
            raise DataError(path, found, f"{_short(settings.get(key))}, which is asked for now", _REMEDY)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _append(file: BinaryIO, record: dict[str, Any]) -> None:
    file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
    file.flush()
