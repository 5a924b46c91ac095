"""``stapes compare``: is one run better than another?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from stapes.cli import options


def compare(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="A folder of `stapes evaluate`.", show_default=False)],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="Another, of the same data.", show_default=False)],
    resamples: Annotated[int, typer.Option(min=1, help="Bootstrap samples; p is never below 1 / (1 + this).")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    as_json: options.AsJson = False,
) -> None:
    """Compare two evaluations of the same utterances by every score that both have.

    The difference is B less A, with its 95 % interval and a two-sided p, by a paired bootstrap over utterances: both runs
    are scored on the same draws. Word errors are also tested by MAPSSWE (matched pairs of sentence segments). Neither says
    how much a run varies with the seed of its training. What made each of them stands below the table: task, model, decoding.

    Examples:

    \b
      stapes compare runs/mine/evaluation-my-dev-asr runs/theirs/evaluation-my-dev-asr
          a table of WER and whatever else both have
    \b
      stapes compare results/greedy results/beam4 --resamples 10000 --json > compared.json
          one JSON object on standard output
    """
    from stapes.evaluation import compare as comparing
    from stapes.evaluation.predictions import read_predictions
    from stapes.evaluation.report import SYNTHETIC

    runs = read_predictions(run_a), read_predictions(run_b)
    with options.only_results_on_stdout():
        found = comparing.compare(*runs, resamples=resamples, seed=seed)
    if as_json:
        made = {"provenance_a": runs[0].provenance, "provenance_b": runs[1].provenance}
        typer.echo(json.dumps({"run_a": str(run_a), "run_b": str(run_b)} | made | found.as_json()))
        return
    from rich.console import Console
    from rich.text import Text

    said_by = f" ({SYNTHETIC})" if any(run.synthetic for run in runs) else ""
    console = Console()
    console.print(comparing.table(found, f"{run_a} (A) and {run_b} (B){said_by}"))
    for letter, run in zip("AB", runs, strict=True):
        console.print(Text(f"{letter}: {run.provenance or 'unknown'}", style="dim"))
