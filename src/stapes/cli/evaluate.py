"""``stapes evaluate``: a model against a manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stapes.cli import options
from stapes.errors import DataError

if TYPE_CHECKING:
    from stapes.api import Stapes
    from stapes.evaluation.evaluate import Evaluation
    from stapes.types import Utterance


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=options.MODEL_HELP, show_default=False)],
    data: Annotated[Path, typer.Option("--data", "-d", help="A manifest (`stapes prepare`).", show_default=False)],
    task: options.Task = None,
    style: options.Style = "spoken",
    to: options.To = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many utterances of the manifest.")] = None,
    as_json: options.AsJson = False,
    normaliser: Annotated[
        str | None,
        typer.Option(
            help="slue, bare, whisper-en, whisper-basic or none. (default: that of the model's task)", show_default=False
        ),
    ] = None,
    comet: Annotated[
        str | None,
        typer.Option(
            metavar="COMET_MODEL",
            help="Score translations by COMET too, as Unbabel/wmt22-comet-da does (extra: comet; untested).",
            show_default=False,
        ),
    ] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    batch_seconds: options.BatchSeconds = 120.0,
    beams: options.Beams = None,
    ctc_weight: options.CTCWeight = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for predictions, scores and reports. (default: evaluation-CORPUS-SPLIT-TASK in a run folder, by the "
            "manifest's folder, its name and the task, with -limitN behind it where --limit is given; else none)",
            show_default=False,
        ),
    ] = None,
    html: Annotated[bool, typer.Option("--html/--no-html", help="Write report.html, a page with plots and sound.")] = True,
    quiet: options.Quiet = False,
) -> None:
    """Score a model: WER and CER with their errors, 95 % intervals and signatures that say how they were measured.

    Sound goes the way it goes in `stapes transcribe`, long audio included. An utterance whose sound cannot be read is reported
    and counts as one in which nothing was heard, and the exit status is 2. One without labels for the task, such as a
    transcript that nobody wrote with capitals where --style written is asked for, is left out and counted.

    Examples:

    \b
      stapes evaluate stapes-base --data data/slue/dev.jsonl
          a table of scores, and the utterances with most errors
    \b
      stapes evaluate runs/mine --data my/dev.jsonl --json > scores.json
          one JSON object on standard output; predictions in runs/mine/evaluation-my-dev-asr/
    \b
      stapes evaluate runs/mine --data data/slue/dev.jsonl --task ner
          entities with their F1; predictions in runs/mine/evaluation-slue-dev-ner/
    \b
      stapes evaluate stapes-base --data dev.jsonl --limit 100 --beams 4 --output results/beam4
          the first hundred utterances, by beam search; predictions.jsonl, scores.json, report.md and report.html (errors by
          kind, and the worst utterances to be listened to) in results/beam4
    """
    from stapes.data.manifest import read_manifest
    from stapes.evaluation.report import report
    from stapes.evaluation.save import folder_name

    utterances = read_manifest(data)[:limit]
    if output is not None:
        make(output)
    with options.only_results_on_stdout():
        loaded = options.load_model(model, device, dtype, beams, ctc_weight)
        folder, runs = output, run_folder(model)
        if folder is None and runs is not None:
            folder = make(runs / folder_name(data, loaded.find_task(task, style, to), limit))
        asked = {"task": task, "style": style, "to": to, "normaliser": normaliser, "comet": comet}
        found = watched(loaded, utterances, "evaluating", quiet, batch_seconds=batch_seconds, **asked)
    title = f"{loaded.name} on {data}"
    if as_json:
        typer.echo(json.dumps(found.scores))
    else:
        from rich.console import Console

        Console().print(report(found, title))
    if folder is not None:
        keep(found, folder, title, html)
    if "unreadable" in found.scores:
        raise typer.Exit(2)


def watched(loaded: Stapes, utterances: list[Utterance], what: str, quiet: bool, **asked: Any) -> Evaluation:
    """``Stapes.evaluate`` under a bar; sound that cannot be read is said."""
    with options.Bar(what, sum(utterance.duration for utterance in utterances), quiet) as bar:
        return loaded.evaluate(
            utterances, on_progress=bar.advance, on_unreadable=lambda error: options.warn(f"error: {error}"), **asked
        )


def run_folder(model: str) -> Path | None:
    """Where results go if nothing is said: into a run folder of the user's; nowhere for shipped models and hub ids."""
    return Path(model) if (Path(model) / "stapes.json").is_file() else None


def make(folder: Path) -> Path:
    """Have the folder before the work begins, not after; raises DataError where it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(folder, f"cannot be made ({error.strerror})", fix="choose another --output") from error
    return folder


def keep(found: Evaluation, folder: Path, title: str, html: bool = True) -> None:
    """Write an evaluation and its reports into a folder, and say so."""
    from stapes.evaluation.save import save_reports

    found.save(folder)
    save_reports(found, folder, title, html)
    options.warn(f"predictions, scores and reports: {folder}")
