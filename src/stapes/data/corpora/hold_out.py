"""Keeping a part of the data out of training, in whole groups, the same part on every machine."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from stapes.errors import DataError
from stapes.types import Utterance


def session(utterance: Utterance) -> str:
    """The id up to its first ``_``: a sitting of the parliament in SLUE-VoxPopuli, a talk in MuST-C, a sentence in FLEURS."""
    return utterance.id.split("_", 1)[0]


def prompt(utterance: Utterance) -> str:
    """The id after the language that it begins with (``activated`` of ``en-activated``): what was read in several languages.

    Raises:
        DataError: the id does not begin with the utterance's language.
    """
    language, _, name = utterance.id.partition("-")
    if not name or language != utterance.language:
        found = f"language {utterance.language}" if utterance.language else "no language"
        raise DataError(utterance.id, found, "an id that begins with its language, such as en-NAME", "hold out by session")
    return name


def speaker(utterance: Utterance) -> str:
    """The speaker; raises DataError where there is none."""
    if utterance.speaker is None:
        raise DataError(utterance.id, "no speaker", "one for every utterance", "hold out by session, folder or utterance")
    return utterance.speaker


def folder(utterance: Utterance) -> str:
    """The folder of the sound file."""
    return str(utterance.audio.parent)


def each(utterance: Utterance) -> str:
    """The utterance alone."""
    return utterance.id


GROUPS: Mapping[str, Callable[[Utterance], str]] = {
    "session": session,
    "prompt": prompt,
    "speaker": speaker,
    "folder": folder,
    "utterance": each,
}


def hold_out(
    utterances: Sequence[Utterance], amount: float, group: Callable[[Utterance], str] = session
) -> tuple[list[Utterance], list[Utterance]]:
    """Split off whole groups, taken in the order of their names' SHA-256, until at least ``amount`` is held.

    Args:
        utterances: what there is.
        amount: how many utterances, or, below 1, which share of them.
        group: what must not be torn apart.

    Returns:
        (rest, held), both in the order of ``utterances``.

    Raises:
        DataError: the groups are so large that nothing would be left, or more than twice what was asked would be held.
    """
    wanted = math.ceil(amount * len(utterances)) if amount < 1 else int(amount)
    members: dict[str, int] = defaultdict(int)
    for utterance in utterances:
        members[group(utterance)] += 1
    chosen: set[str] = set()
    size = 0
    for name in sorted(members, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if size >= wanted:
            break
        chosen.add(name)
        size += members[name]
    if size == len(utterances) or size > 2 * wanted:
        found = f"{len(utterances)} utterances in {len(members)} groups, of which {size} would be held out"
        raise DataError(
            "hold-out", found, f"about {wanted}", "hold out by a smaller group (utterance), or ask for another amount"
        )
    rest = [utterance for utterance in utterances if group(utterance) not in chosen]
    return rest, [utterance for utterance in utterances if group(utterance) in chosen]
