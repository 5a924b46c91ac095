"""``stapes slue``: the SLUE score of a model, or of evaluations that are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from stapes.cli import options
from stapes.cli.evaluate import keep, make, run_folder, watched
from stapes.errors import DataError, RecipeError

if TYPE_CHECKING:
    from stapes.api import Stapes
    from stapes.evaluation.predictions import Predictions
    from stapes.evaluation.slue import Corpus

Manifests: TypeAlias = "dict[Corpus, Path]"


def slue(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help=f"{options.MODEL_HELP} Left out: of finished evaluations.", show_default=False),
    ] = None,
    voxpopuli: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="SLUE-VoxPopuli: a manifest with entities; without MODEL, a folder of `stapes evaluate` with words and "
            "entities, or two, the option given again, with one each.",
            show_default=False,
        ),
    ] = None,
    voxceleb: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="SLUE-VoxCeleb: a manifest with sentiments; without MODEL, a folder or two, as for --voxpopuli.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many utterances of each manifest.", show_default=False)
    ] = None,
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="The sound of VoxCeleb was synthesised, though its manifest does not say so.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    as_json: options.AsJson = False,
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
            help="Folder for the evaluations, one each below it. (default: the run folder, else they are not kept)",
            show_default=False,
        ),
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Compute the SLUE score of a model: evaluate it on SLUE-VoxPopuli and SLUE-VoxCeleb, and put the results together.

    It is the mean of 100 less the mean word error rate, the F1 of named entities (combined tags) and the macro F1 of
    sentiment, each with a 95 % interval; for that of the score, both corpora are resampled.

    Words come from the model's task asr, entities from ner and sentiments from sentiment, or from asr+ner and asr+sentiment
    where it has only these. Evaluations that are kept are not done again: interrupted, the same command goes on.

    Examples:

    \b
      stapes slue runs/mine --voxpopuli data/slue-voxpopuli/test.jsonl --voxceleb data/slue-voxceleb/test.jsonl
          the score and its parts; predictions, scores and reports of each evaluation in runs/mine
    \b
      stapes slue owner/name --voxpopuli vp/dev.jsonl --voxceleb vc/dev.jsonl --limit 100 --output results/slue --json
          of the first hundred utterances of each; one JSON object
    \b
      stapes slue --voxpopuli runs/a/evaluation-vp-test-ner --voxceleb runs/b/evaluation-vc-test-asr+sentiment
          of finished evaluations, a folder for each corpus; they may be of two models
    \b
      stapes slue --voxpopuli results/vp --voxceleb results/vc-asr --voxceleb results/vc-sentiment
          words and sentiments of the same utterances in two folders
    """
    from stapes.evaluation import slue as benchmark
    from stapes.evaluation.predictions import read_predictions

    paths = {benchmark.VOXPOPULI: voxpopuli or [], benchmark.VOXCELEB: voxceleb or []}
    for corpus, given in paths.items():
        if not given or (model is not None and len(given) > 1):
            expected = "a manifest" if model is not None else "one or two folders of `stapes evaluate`"
            raise RecipeError(f"--{corpus.name.lower()}", f"given {len(given)} times", expected)
    unreadable = False
    with options.only_results_on_stdout():
        if model is None:
            for name in ("device", "dtype", "limit", "beams", "ctc_weight", "output"):
                if name in options.given(context):
                    raise RecipeError(f"--{name.replace('_', '-')}", "given with finished evaluations", "a MODEL to evaluate")
            evaluations = {corpus: [read_predictions(folder) for folder in given] for corpus, given in paths.items()}
        else:
            folder = output or run_folder(model)
            manifests = {corpus: given[0] for corpus, given in paths.items()}
            _check(manifests, folder)
            if output is not None:
                make(output)
            loaded = options.load_model(model, device, dtype, beams, ctc_weight)
            evaluations = _evaluate(loaded, manifests, limit, batch_seconds, folder, quiet)
            unreadable = any(line.unreadable for each in evaluations.values() for one in each for line in one.lines.values())
        corpora = [benchmark.joined(corpus, each) for corpus, each in evaluations.items()]
        scores = benchmark.slue(*corpora, synthetic=synthetic, seed=seed)
    if as_json:
        typer.echo(json.dumps(benchmark.as_json(scores)))
    else:
        from rich.console import Console

        Console().print(benchmark.report(scores))
    if unreadable:
        raise typer.Exit(2)


def _check(manifests: Manifests, folder: Path | None) -> None:
    """Raise DataError where one corpus would be written over the other."""
    from stapes.evaluation.save import folder_name

    first, second = manifests.values()
    if folder is not None and first != second and folder_name(first, "asr") == folder_name(second, "asr"):
        found = f"evaluations of {second} would be written where those of {first} are"
        raise DataError(folder, found, "manifests in folders of different names", "such as slue-voxpopuli and slue-voxceleb")


def _evaluate(
    loaded: Stapes, manifests: Manifests, limit: int | None, batch_seconds: float, folder: Path | None, quiet: bool
) -> dict[Corpus, list[Predictions]]:
    """What the score needs of each corpus, done or found done; written to a folder below ``folder`` if there is one."""
    from stapes.data.manifest import read_manifest
    from stapes.evaluation.evaluate import check
    from stapes.evaluation.predictions import finished, predictions_of
    from stapes.evaluation.save import folder_name
    from stapes.evaluation.slue import tasks_for

    utterances = {corpus: read_manifest(data)[:limit] for corpus, data in manifests.items()}
    wanted = [(corpus, task) for corpus in manifests for task in tasks_for(corpus, loaded.module.tasks)]
    for corpus, task in wanted:  # before any of them is begun
        check(utterances[corpus], loaded.module.tasks[task])
    evaluations: dict[Corpus, list[Predictions]] = {corpus: [] for corpus in manifests}
    for number, (corpus, task) in enumerate(wanted, start=1):
        rows, data = utterances[corpus], manifests[corpus]
        below = None if folder is None else folder / folder_name(data, task, limit)
        normaliser = loaded.module.tasks[task].normaliser
        there = None if below is None else finished(below, loaded.provenance(task), rows, normaliser)
        if there is not None:
            options.warn(f"done before: {below}")
            evaluations[corpus].append(there)
            continue
        what = f"SLUE-{corpus.name}, {task} ({number} of {len(wanted)})"
        found = watched(loaded, rows, what, quiet, task=task, batch_seconds=batch_seconds)
        if below is not None:
            keep(found, make(below), f"{loaded.name} on {data}")
        evaluations[corpus].append(predictions_of(found, str(data)))
    return evaluations
