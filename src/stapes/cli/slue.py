"""``stapes slue``: the SLUE score of two evaluations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from stapes.cli import options


def slue(
    voxpopuli: Annotated[
        Path, typer.Argument(metavar="VOXPOPULI", help="A folder of `stapes evaluate`, with entities.", show_default=False)
    ],
    voxceleb: Annotated[
        Path, typer.Argument(metavar="VOXCELEB", help="A folder of `stapes evaluate`, with sentiments.", show_default=False)
    ],
    synthetic: Annotated[bool, typer.Option("--synthetic", help="The sound of VoxCeleb was made by a synthesiser.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    as_json: options.AsJson = False,
) -> None:
    """Compute the SLUE score from an evaluation of SLUE-VoxPopuli and one of SLUE-VoxCeleb.

    It is the mean of 100 less the mean word error rate, the F1 of named entities (combined tags) and the macro F1 of
    sentiment, each with a 95 % interval; for that of the score, both corpora are resampled.

    Examples:

    \b
      stapes slue runs/ner/evaluation-test runs/sentiment/evaluation-test
          the score and its parts
    \b
      stapes slue runs/mine/evaluation-dev runs/mine/evaluation-spoken --synthetic --json
          one JSON object; the score is named after its synthetic sound
    """
    from stapes.evaluation import slue as benchmark
    from stapes.evaluation.predictions import read_predictions

    with options.only_results_on_stdout():
        scores = benchmark.slue(read_predictions(voxpopuli), read_predictions(voxceleb), synthetic=synthetic, seed=seed)
    if as_json:
        typer.echo(json.dumps(benchmark.as_json(scores)))
        return
    from rich.console import Console

    Console().print(benchmark.report(scores))
