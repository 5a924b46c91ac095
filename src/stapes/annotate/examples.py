"""Few-shot examples drawn from a labelled manifest, balanced over its tags.

The paper (arXiv 2509.04473) has 1000 balanced examples of SLUE-VoxPopuli and does not say how they were chosen, nor how many go
into a request. Ours: greedily, the class of which there is least comes next, and of its utterances the one that adds least to
what there is plenty of. A class is a tag (or a sentiment), or ``NONE`` for an utterance without an entity: an annotator
that never sees one finds something everywhere. Rare tags are used up, and what is then lacking is reported.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from stapes.annotate.prompt import Task
from stapes.errors import DataError
from stapes.text import tags
from stapes.types import Utterance

NONE = "(none)"
TOTAL = 1000  # of the paper
SHOTS = 16
_LOOKED_AT = 8  # candidates compared for each shot of a request; a whole pool would cost more time than it is worth


def classes(utterance: Utterance, task: Task) -> list[str]:
    """The classes that an utterance counts for, a tag as often as it occurs.

    Raises:
        DataError: it has no labels, or one that SLUE does not know.
    """
    where = utterance.source or utterance.id
    if task == "sentiment":
        if utterance.sentiment is None:
            raise DataError(where, "no sentiment", "labelled examples")
        return [tags.sentiment(utterance.sentiment, where)]
    if utterance.entities is None:
        raise DataError(where, "no entities", "labelled examples ([] where there are none)")
    for entity in utterance.entities:
        tags.combined(entity.label, where)
    return [entity.label for entity in utterance.entities] or [NONE]


@dataclass(frozen=True)
class Pool:
    """The examples that requests draw their shots from.

    Attributes:
        members: in the order in which they were chosen.
        task: "ner" or "sentiment".
        counts: how many mentions each class has.
        level: what every class has at least but those of which there is no more.
        seed: of the draws.
    """

    members: tuple[Utterance, ...]
    task: Task
    counts: dict[str, int]
    level: int
    seed: int = 0

    @classmethod
    def choose(cls, labelled: Sequence[Utterance], task: Task, total: int = TOTAL, seed: int = 0) -> Pool:
        """Choose up to ``total`` utterances; the same ones for the same manifest and seed.

        Raises:
            DataError: an utterance without labels, or none at all.
        """
        spoken = [utterance for utterance in labelled if utterance.text.strip()]
        if not spoken:
            raise DataError("examples", "no utterance with a text", "labelled examples")
        kinds = [classes(utterance, task) for utterance in spoken]
        chosen = _balanced(kinds, total, random.Random(f"{seed}:pool"), looked_at=len(spoken))
        there = Counter(name for kind in kinds for name in kind)
        found = Counter(name for index in chosen for name in kinds[index])
        counts = {name: found[name] for name in sorted(there)}
        level = min((count for name, count in counts.items() if count < there[name]), default=max(counts.values()))
        return cls(tuple(spoken[index] for index in chosen), task, counts, level, seed)

    @property
    def shortfall(self) -> dict[str, int]:
        """What each class lacks to ``level``, where it lacks anything: the manifest has no more of it."""
        return {name: self.level - count for name, count in self.counts.items() if count < self.level}

    @property
    def digest(self) -> str:
        """SHA-256 over the examples, their labels and the seed."""
        lines = [[each.id, each.text, each.raw_text, each.sentiment, _plain(each)] for each in self.members]
        return hashlib.sha256(json.dumps([self.seed, lines]).encode()).hexdigest()

    def shots(self, utterance: Utterance, count: int) -> list[Utterance]:
        """Balanced examples for one request, the same whenever it is made; an utterance is never its own example."""
        rng = random.Random(f"{self.seed}:{utterance.id}")
        others = [index for index, each in enumerate(self.members) if each.id != utterance.id and each.text != utterance.text]
        drawn = _balanced([self._kinds[index] for index in others], count, rng, _LOOKED_AT)
        rng.shuffle(drawn)
        return [self.members[others[index]] for index in drawn]

    @cached_property
    def _kinds(self) -> list[list[str]]:
        return [classes(member, self.task) for member in self.members]


def _balanced(kinds: Sequence[Sequence[str]], total: int, rng: random.Random, looked_at: int) -> list[int]:
    """Indices of up to ``total`` members, the rarest class next; ``looked_at`` candidates are compared each time."""
    having: dict[str, list[int]] = {}
    for index, names in enumerate(kinds):
        for name in dict.fromkeys(names):
            having.setdefault(name, []).append(index)
    still = rng.sample(sorted(having), len(having))
    counts: Counter[str] = Counter()
    chosen: dict[int, None] = {}
    while still and len(chosen) < total:
        rarest = min(still, key=counts.__getitem__)
        # At most counts[rarest] of its members are chosen already, so that there are new ones in the draw if there are any.
        drawn = rng.sample(having[rarest], min(len(having[rarest]), looked_at + counts[rarest]))
        fresh = [index for index in drawn if index not in chosen]
        if not fresh:
            still.remove(rarest)
            continue
        best = min(fresh, key=lambda index: sum(counts[name] - counts[rarest] + 1 for name in kinds[index]))
        chosen[best] = None
        counts.update(kinds[best])
    return list(chosen)


def _plain(utterance: Utterance) -> list[list[object]]:
    return [[each.label, each.start, each.end] for each in (*(utterance.entities or ()), *(utterance.raw_entities or ()))]
