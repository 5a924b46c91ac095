"""From a corpus as it is published to manifests: measure the sound, drop what cannot be used and say so, write."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from stapes.audio.read import BEYOND_END_SECONDS, duration_seconds
from stapes.data.corpora import CORPORA
from stapes.data.corpora.base import UNMEASURED, Row
from stapes.data.corpora.hold_out import GROUPS, hold_out
from stapes.data.corpora.jsonl import DROPPED_NAME
from stapes.data.corpora.spoken_text import Speaking, speak
from stapes.data.manifest import NON_SPEECH, write_lines, write_manifest
from stapes.errors import AudioError, DataError
from stapes.registry import nearest
from stapes.types import Utterance

HELD_BY = {"folder": "utterance", "csv": "utterance", "noise": "utterance", "covost2": "speaker"}
"""What stays together when a part of a corpus is held out and nothing is said; ``session`` in the others."""


SPOKEN_TEXT = "spoken-text"

Watch = Callable[[list[Row], str], Iterable[Row]]


@dataclass(frozen=True)
class Prepared:
    """What ``prepare`` wrote.

    Attributes:
        splits: name -> its utterances, in ``<destination>/<name>.jsonl``.
        dropped: what could not be used, with the reason, in ``<destination>/dropped.jsonl``.
    """

    splits: dict[str, list[Utterance]]
    dropped: list[Row]

    @property
    def reasons(self) -> Counter[str]:
        """How many rows were dropped, by the reason up to its first colon."""
        return Counter(row.problem.split(":")[0] for row in self.dropped)


def prepare(
    corpus: str,
    source: Path,
    destination: Path,
    *,
    rename: Mapping[str, str] | None = None,
    held: Mapping[str, float] | None = None,
    held_from: str | None = None,
    held_by: str | None = None,
    copy: bool = False,
    speaking: Speaking | None = None,
    watch: Watch = lambda rows, _: rows,
) -> Prepared:
    """Write ``<destination>/<split>.jsonl`` for every split of a corpus.

    Args:
        corpus: a name of the table ``CORPORA``.
        source: the corpus, in the layout in which it is published.
        destination: the folder for the manifests; made where missing.
        rename: split -> the name to give it.
        held: new split -> how many utterances (below 1: which share) to take out of ``held_from``.
        held_from: the split, by its new name; ``train``, or the only one, if not given.
        held_by: what stays together: a name of ``GROUPS``; that of ``HELD_BY``, if not given.
        copy: copy the sound to ``<destination>/audio`` instead of naming it where it is.
        speaking: how ``spoken-text`` becomes sound, which goes to ``<destination>/audio``.
        watch: wraps the iteration over all rows (a progress bar), and is told what is done with them.

    Returns:
        What was written and what was dropped.

    Raises:
        RecipeError: the corpus or a voice is unknown.
        MissingDependency: the program of a voice is not installed.
        DataError: the source is not this corpus, nothing in it can be used, or the hold-out cannot be made.
    """
    rows = list(CORPORA[corpus](source))
    if corpus == SPOKEN_TEXT:
        rows = speak(rows, destination / "audio", speaking or Speaking(), watch)
    usable, dropped = _measure(rows, watch)
    if not usable:
        reasons = ", ".join(f"{count} {reason}" for reason, count in Prepared({}, dropped).reasons.most_common())
        raise DataError(source, f"none of {len(rows)} utterances can be used ({reasons})")
    splits = _rename(usable, rename or {})
    group = GROUPS[held_by or HELD_BY.get(corpus, "session")]
    for name, amount in (held or {}).items():
        origin = _origin(splits, held_from, name)
        splits[origin], splits[name] = hold_out(splits[origin], amount, group)
    _check_names(splits)
    for name, utterances in splits.items():
        if copy:
            splits[name] = [_copy(utterance, source, destination / "audio") for utterance in utterances]
        write_manifest(destination / f"{name}.jsonl", splits[name])
    _write_dropped(destination / DROPPED_NAME, dropped)
    return Prepared(splits, dropped)


def _measure(rows: list[Row], watch: Watch) -> tuple[dict[str, list[Utterance]], list[Row]]:
    """Look at every sound file; give the usable utterances by split, and the rest with the reasons."""
    usable: dict[str, list[Utterance]] = defaultdict(list)
    dropped: list[Row] = []
    seen: set[tuple[str, str]] = set()
    seconds_of = lru_cache(maxsize=16)(duration_seconds)  # utterances of one long recording follow each other
    for row in watch(rows, "reading sound files"):
        utterance, problem = row.utterance, row.problem or _problem(row.utterance)
        if not problem and (row.split, utterance.id) in seen:
            problem = "id used twice"
        if not problem:
            utterance, problem = _measured(utterance, seconds_of)
        if problem:
            dropped.append(replace(row, problem=problem))
        else:
            seen.add((row.split, utterance.id))
            usable[row.split].append(utterance)
    return dict(usable), dropped


def _problem(utterance: Utterance) -> str:
    if not utterance.audio.is_file():
        return "no sound file"
    if utterance.kind not in (None, "speech", NON_SPEECH):
        return f"kind is neither speech nor {NON_SPEECH}"
    if bool(utterance.text.strip()) == (utterance.kind == NON_SPEECH):
        return "words in what is not speech" if utterance.text else "no text"
    if utterance.start < 0 or utterance.duration < 0 or not math.isfinite(utterance.start + utterance.duration):
        return "impossible start or duration"
    for text, entities in ((utterance.text, utterance.entities), (utterance.raw_text, utterance.raw_entities)):
        for entity in entities or ():
            if not 0 <= entity.start < entity.end <= len(text or "") or not entity.label:
                return "entity outside its text"
    return ""


def _measured(utterance: Utterance, seconds_of: Callable[[Path], float]) -> tuple[Utterance, str]:
    """Set the duration if the corpus gives none, and check it against the sound file if it does."""
    try:
        left = seconds_of(utterance.audio) - utterance.start
    except AudioError as error:
        return utterance, f"unreadable sound: {error.found}"
    if left <= 0 or utterance.duration > left + BEYOND_END_SECONDS:
        return utterance, "reaches beyond the end of its sound file"
    return (replace(utterance, duration=round(left, 4)) if utterance.duration == UNMEASURED else utterance), ""


def _rename(splits: dict[str, list[Utterance]], names: Mapping[str, str]) -> dict[str, list[Utterance]]:
    for name in names:
        if name not in splits:
            raise DataError("rename", f"no split '{name}'", fix=nearest(name, splits))
    renamed: dict[str, list[Utterance]] = {}
    for name, utterances in splits.items():
        new = names.get(name, name)
        if new in renamed:
            raise DataError("rename", f"two splits would be called '{new}'", "a name for each")
        renamed[new] = utterances
    return renamed


def _origin(splits: Mapping[str, list[Utterance]], wanted: str | None, new: str) -> str:
    if new in splits:
        raise DataError("hold-out", f"the corpus already has a split '{new}'", "a new name")
    origin = wanted or ("train" if "train" in splits or len(splits) > 1 else next(iter(splits)))
    if origin not in splits:
        raise DataError("hold-out", f"no split '{origin}' to take '{new}' from", fix=nearest(origin, splits))
    return origin


def _check_names(splits: Mapping[str, list[Utterance]]) -> None:
    for name in splits:
        if Path(name).name != name or f"{name}.jsonl" == DROPPED_NAME:
            raise DataError("split", f"'{name}'", "a name that can be a manifest's", "rename the split")


def _copy(utterance: Utterance, source: Path, folder: Path) -> Utterance:
    """Copy a sound file under ``folder`` by its path in the source; what lies elsewhere is told apart by its folder's hash."""
    audio, root = utterance.audio.resolve(), (source if source.is_dir() else source.parent).resolve()
    if audio.is_relative_to(folder.resolve()):
        return utterance
    if audio.is_relative_to(root):
        place = folder / audio.relative_to(root)
    else:
        place = folder / hashlib.sha256(str(audio.parent).encode()).hexdigest()[:8] / audio.name
    if not place.is_file() or place.stat().st_size != audio.stat().st_size:
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(audio, place)
    return replace(utterance, audio=place)


def _write_dropped(path: Path, dropped: list[Row]) -> None:
    """List what was dropped; a list of an earlier run does not stay."""
    if dropped:
        write_lines(
            path,
            (
                {"id": row.utterance.id, "split": row.split, "audio": str(row.utterance.audio), "problem": row.problem}
                for row in dropped
            ),
        )
    else:
        path.unlink(missing_ok=True)
