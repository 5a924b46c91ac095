"""A chat server, and utterances without sound: annotators never open any."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import chat_server
import pytest

from stapes.types import Entity, Utterance


@pytest.fixture
def chat() -> Iterator[chat_server.ChatServer]:
    with chat_server.running() as server:
        yield server


@pytest.fixture
def said() -> Callable[..., Utterance]:
    """said(text, (tag, phrase)..., **fields): an utterance with these entities, each at its first occurrence."""

    def make(text: str, *entities: tuple[str, str], name: str = "a", **fields: Any) -> Utterance:
        spans = tuple(Entity(tag, text.index(phrase), text.index(phrase) + len(phrase), phrase) for tag, phrase in entities)
        return Utterance(name, Path(f"{name}.wav"), text, 1.0, **{"entities": spans, **fields})

    return make
