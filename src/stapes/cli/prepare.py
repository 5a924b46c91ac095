"""``stapes prepare``: a corpus as it is published, or a folder of one's own, to manifests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stapes.errors import RecipeError
from stapes.registry import nearest

if TYPE_CHECKING:
    from stapes.data.corpora.base import Row
    from stapes.data.corpora.spoken_text import Speaking

EXAMPLES = """
Examples:

\b
  stapes prepare folder recordings my --hold-out dev=0.1
      sound files, each with a .txt of the same name beside it -> my/train.jsonl, my/dev.jsonl
\b
  stapes prepare csv clips.csv my --hold-out dev=0.1 --hold-out-by speaker
      a table with the columns audio and text (and speaker, start, duration, ...)
\b
  stapes prepare slue-voxpopuli ~/slue-voxpopuli data/slue --hold-out tune=300
      the official archive -> train, dev and tune.jsonl (300 utterances of train, whole sessions)
\b
  stapes prepare covost2 ~/covost2/en data/covost2
      Common Voice and covost_v2.en_de.tsv, covost_v2.en_zh-CN.tsv, ... -> every clip with all its translations
\b
  stapes prepare jsonl prompts data/prompts --hold-out dev=0.1 --hold-out-by prompt
      manifests that are there already; a prompt is held out in all its languages, or in none
\b
  stapes prepare spoken-text slue-voxceleb-text data/spoken --rename fine-tune=train --voices flite:slt,flite:rms
      ID, text and labels without sound -> said by a voice each, and marked as synthetic
\b
  stapes prepare librispeech ~/LibriSpeech data/librispeech
      every part becomes a manifest of its own name
"""


def prepare(
    corpus: Annotated[
        str,
        typer.Argument(
            metavar="CORPUS",
            help="slue-voxpopuli, slue-voxceleb, librispeech, ljspeech, cmu-arctic, speechocean762, covost2, must-c, fleurs, "
            "kaldi, folder, csv, noise (sound without speech), jsonl (manifests that are there already) or spoken-text "
            "(labelled text, said by synthesisers).",
        ),
    ],
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="The corpus, as its archive unpacks; for csv, jsonl and spoken-text also a single file."
        ),
    ],
    destination: Annotated[Path, typer.Argument(metavar="DESTINATION", help="The folder to write SPLIT.jsonl to.")],
    hold_out: Annotated[
        list[str] | None,
        typer.Option(help="NAME=COUNT or NAME=SHARE: keep that much of train apart in NAME.jsonl. Can be given again."),
    ] = None,
    hold_out_by: Annotated[
        str | None,
        typer.Option(
            help="What stays together: session (the id up to its first '_'; the default), prompt (the id after its language, "
            "as in en-NAME), speaker (the default of covost2), folder or utterance (the default of folder, csv and noise).",
            show_default=False,
        ),
    ] = None,
    hold_out_from: Annotated[
        str | None, typer.Option(help="The split to take it from, if not train or the only one.", show_default=False)
    ] = None,
    rename: Annotated[list[str] | None, typer.Option(help="OLD=NEW: call a split otherwise. Can be given again.")] = None,
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy the sound to DESTINATION/audio; it is else used where it is.")
    ] = False,
    voices: Annotated[
        str | None,
        typer.Option(
            help="spoken-text: names with commas between them, such as flite:slt,festival:kal_diphone,espeak-ng:en-us+f3; the "
            "good English ones among those installed, if not given.",
            show_default=False,
        ),
    ] = None,
    voices_per_text: Annotated[
        int | None, typer.Option(min=1, help="spoken-text: how many of them say each text; 1 if not given.", show_default=False)
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, help="spoken-text: how many texts are said at a time; one for each core, if not given.", show_default=False
        ),
    ] = None,
) -> None:
    """Turn a corpus, or a folder of recordings and transcripts, into manifests that `train` and `evaluate` read."""
    from stapes.data.corpora.hold_out import GROUPS
    from stapes.data.corpora.prepare import prepare as write

    if hold_out_by is not None and hold_out_by not in GROUPS:
        raise RecipeError("--hold-out-by", f"'{hold_out_by}'", fix=nearest(hold_out_by, GROUPS))
    written = write(
        corpus.replace("_", "-"),
        source,
        destination,
        rename=dict(_pair("--rename", option) for option in rename or []),
        held={name: _amount(name, value) for name, value in (_pair("--hold-out", option) for option in hold_out or [])},
        held_from=hold_out_from,
        held_by=hold_out_by,
        copy=copy,
        speaking=_speaking(corpus, voices, voices_per_text, jobs),
        watch=_progress,
    )
    for name, utterances in written.splits.items():
        hours = sum(utterance.duration for utterance in utterances) / 3600
        typer.echo(f"{destination / name}.jsonl: {len(utterances)} utterances, {hours:.2f} h")
    if written.dropped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in written.reasons.most_common())
        typer.echo(f"dropped {len(written.dropped)} ({reasons}), listed in {destination / 'dropped.jsonl'}")


prepare.__doc__ = f"{prepare.__doc__}\n{EXAMPLES}"


def _speaking(corpus: str, voices: str | None, voices_per_text: int | None, jobs: int | None) -> Speaking | None:
    given = {"--voices": voices, "--voices-per-text": voices_per_text, "--jobs": jobs}
    if corpus.replace("_", "-") != "spoken-text":
        for option, value in given.items():
            if value is not None:
                raise RecipeError(option, f"given with '{corpus}'", "spoken-text, which alone is said by voices")
        return None
    from stapes.data.corpora.spoken_text import Speaking

    names = [name.strip() for name in (voices or "").split(",") if name.strip()]
    return Speaking(names, voices_per_text or 1, jobs or 0)


def _pair(option: str, written: str) -> tuple[str, str]:
    name, separator, value = written.partition("=")
    if not (name and separator and value) or Path(name).name != name:
        raise RecipeError(option, f"'{written}'", "NAME=VALUE")
    return name, value


def _amount(name: str, written: str) -> float:
    try:
        amount = float(written)
    except ValueError:
        amount = 0.0
    if not (0 < amount < 1 or (amount >= 1 and amount.is_integer())):
        raise RecipeError("--hold-out", f"'{name}={written}'", "a number of utterances, or a share between 0 and 1")
    return amount


def _progress(rows: list[Row], what: str) -> Iterable[Row]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(rows, description=what, console=console, transient=True, disable=not console.is_terminal)
