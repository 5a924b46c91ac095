"""``stapes annotate``: labels for a manifest, written by an LLM or by spaCy."""

from __future__ import annotations

import asyncio
import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stapes.cli import options
from stapes.errors import RecipeError
from stapes.registry import nearest

if TYPE_CHECKING:
    from stapes.annotate.backends.base import Backend
    from stapes.annotate.examples import Pool
    from stapes.annotate.label import Labelled, Plan
    from stapes.types import Utterance

EXAMPLES = """
Examples:

\b
  stapes annotate librispeech.jsonl labelled.jsonl --model gpt-4o --examples slue/train.jsonl --limit 100
      a hundred utterances by OpenAI's GPT-4o (the key is in OPENAI_API_KEY), to see what they cost
\b
  stapes annotate my.jsonl labelled.jsonl --base-url http://localhost:8000/v1 --model Qwen3 --examples slue/train.jsonl
      by a server of one's own: vLLM, llama.cpp, or any other that speaks OpenAI's protocol
\b
  stapes annotate slue/dev.jsonl labelled.jsonl --spacy --reads truecased --case-from slue/train.jsonl --quality slue/dev.jsonl
      by spaCy, without an LLM; labelled.quality.md says how well, against the labels of people
\b
  stapes annotate my.jsonl labelled.jsonl --task sentiment --local smollm2-135m-instruct
      by an LLM on this machine
"""


def annotate(
    context: typer.Context,
    manifest: Annotated[
        Path, typer.Argument(metavar="MANIFEST", help="The manifest to label (`stapes prepare`).", show_default=False)
    ],
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="The manifest to write; its journal and reports lie beside it.")
    ],
    task: Annotated[str, typer.Option(help="ner (named entities) or sentiment.")] = "ner",
    model: Annotated[str | None, typer.Option(help="An LLM behind an endpoint, by the name that it has there.")] = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            help="The endpoint: any that speaks OpenAI's protocol. (default: what OPENAI_BASE_URL says, else OpenAI's)",
            show_default=False,
        ),
    ] = None,
    local: Annotated[
        str | None, typer.Option(help="An LLM on this machine: pack:name, path:/folder or hf:owner/name.", show_default=False)
    ] = None,
    spacy: Annotated[
        bool, typer.Option("--spacy", help="spaCy's en_core_web_md, fetched as a pack; named entities only.")
    ] = False,
    examples: Annotated[
        Path | None, typer.Option(help="A labelled manifest to draw few-shot examples from, balanced over its tags.")
    ] = None,
    pool: Annotated[int, typer.Option(min=1, help="How many examples are chosen; 1000 is SENSE-ASR's.")] = 1000,
    shots: Annotated[int, typer.Option(min=0, help="How many of them go into each request.")] = 16,
    seed: Annotated[int, typer.Option(help="Of the choice of examples.")] = 0,
    reads: Annotated[
        str | None,
        typer.Option(help="text, raw (raw_text) or truecased. (default: text; with --spacy raw)", show_default=False),
    ] = None,
    case_from: Annotated[
        Path | None,
        typer.Option(
            help="A manifest with raw_text to learn capitals from. (default: MANIFEST and --examples)", show_default=False
        ),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at the same time.")] = 8,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds after which a request is given up.")] = 120.0,
    retries: Annotated[int, typer.Option(min=0, help="How often a request that was not answered is made again.")] = 6,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many utterances.")] = None,
    quality: Annotated[
        Path | None, typer.Option(help="A manifest of the same utterances, labelled by people, to compare with.")
    ] = None,
    price_in: Annotated[float | None, typer.Option(min=0, help="Price of a million tokens of requests.")] = None,
    price_out: Annotated[float | None, typer.Option(min=0, help="Price of a million tokens of answers.")] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Label the transcripts of a manifest, and drop what is not in them or means nothing.

    Beside OUTPUT lie its journal, from which a run that was killed goes on, what was rejected, what failed, and a summary with
    tokens and cost. Utterances without an answer are not in OUTPUT; if there are any, the exit status is 2.
    """
    from stapes.annotate import report
    from stapes.annotate.journal import opened
    from stapes.annotate.label import Plan, apply, ask_all, beside, write
    from stapes.annotate.prompt import TASKS
    from stapes.annotate.reading import READS, Reading
    from stapes.data.manifest import read_manifest

    _one_of("--task", task, TASKS)
    reads = reads or ("raw" if spacy else "text")
    _one_of("--reads", reads, READS)
    _check(task, model, base_url, local, spacy, examples, price_in, price_out)
    _check_given(context, model, local, examples, shots, reads)
    utterances = read_manifest(manifest, check_audio=False)
    labelled_by_people = None if quality is None else read_manifest(quality, check_audio=False)
    shown = [] if examples is None else read_manifest(examples, check_audio=False)
    cased = [*utterances, *shown] if case_from is None else read_manifest(case_from, check_audio=False)
    chosen = _choose(shown, task, pool, seed) if examples is not None and shots else None
    plan = Plan(task, Reading.learn(reads, cased), chosen, shots, talks=not spacy)  # type: ignore[arg-type]
    utterances = utterances[:limit]
    with options.only_results_on_stdout():
        backend = _backend(task, model, base_url, local, spacy, concurrency, timeout, retries, device, dtype, quiet)
    output.parent.mkdir(parents=True, exist_ok=True)
    with opened(beside(output, "journal.jsonl"), plan.settings | backend.settings) as journal:
        with options.Bar("annotating", len(utterances), quiet) as bar:
            answers = asyncio.run(ask_all(utterances, plan, backend, journal, bar.advance))
        labelled = apply(utterances, plan, answers)
        write(output, labelled)
        prices = None if price_in is None or price_out is None else (price_in, price_out)
        facts: dict[str, Any] = {"settings": plan.settings | backend.settings}
        facts |= report.summary(labelled, journal.usage, journal.trouble, prices)
    if labelled_by_people is not None:
        facts["quality"] = _compare(output, labelled, labelled_by_people, plan, str(manifest))
    beside(output, "summary.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    typer.echo(json.dumps(facts) if as_json else "\n".join([*report.lines(facts), f"written: {output}"]))
    if labelled.failures:
        options.warn(f"error: {len(labelled.failures)} utterances have no labels, see {beside(output, 'failures.jsonl')}")
        raise typer.Exit(2)


annotate.__doc__ = f"{inspect.cleandoc(annotate.__doc__ or '')}\n{EXAMPLES}"


def _one_of(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise RecipeError(option, f"'{value}'", fix=nearest(value, known))


def _check(
    task: str,
    model: str | None,
    base_url: str | None,
    local: str | None,
    spacy: bool,
    examples: Path | None,
    price_in: float | None,
    price_out: float | None,
) -> None:
    """Raise RecipeError unless exactly one annotator is named, and can do what is asked."""
    named = [option for option, value in (("--model", model), ("--local", local), ("--spacy", spacy)) if value]
    if len(named) != 1:
        raise RecipeError("annotator", " and ".join(named) or "none named", "one of --model, --local and --spacy")
    if base_url is not None and model is None:
        raise RecipeError("--base-url", f"given with {named[0]}", "--model, the LLM's name at that endpoint")
    if spacy and task != "ner":
        raise RecipeError("--spacy", f"asked for {task}", "--task ner", "an LLM can do it (--model, --local)")
    if spacy and examples is not None:
        raise RecipeError("--examples", "given with --spacy", "an LLM that reads them", "leave it out")
    if (price_in is None) != (price_out is None):
        raise RecipeError("--price-in, --price-out", "one without the other", "both")


def _check_given(
    context: typer.Context, model: str | None, local: str | None, examples: Path | None, shots: int, reads: str
) -> None:
    """Raise RecipeError for an option that was given, be it with its default, and has no effect."""
    given = options.given(context)
    for lacking, why, names in (
        (model is None, "without --model", ("concurrency", "timeout", "retries", "price_in", "price_out")),
        (local is None, "without --local", ("device", "dtype")),
        (examples is None, "without --examples", ("pool", "shots", "seed")),
        (shots == 0, "with --shots 0", ("pool", "seed")),
        (reads == "text", "with --reads text", ("case_from",)),
    ):
        for name in names:
            if lacking and name in given:
                raise RecipeError(f"--{name.replace('_', '-')}", f"has no effect {why}", fix="leave it out")


def _choose(labelled: list[Utterance], task: str, total: int, seed: int) -> Pool:
    """The pool of examples; how balanced it is, is said."""
    from stapes.annotate.examples import Pool

    pool = Pool.choose(labelled, task, total, seed)  # type: ignore[arg-type]
    counts = ", ".join(f"{name} {count}" for name, count in pool.counts.items())
    options.warn(f"examples: {len(pool.members)} chosen: {counts}")
    if pool.shortfall:
        lacking = ", ".join(f"{name} {count}" for name, count in pool.shortfall.items())
        options.warn(f"examples: lacking to {pool.level} each, as the manifest has no more: {lacking}")
    return pool


def _backend(
    task: Any,
    model: str | None,
    base_url: str | None,
    local: str | None,
    spacy: bool,
    concurrency: int,
    timeout: float,
    retries: int,
    device: str,
    dtype: str,
    quiet: bool,
) -> Backend:
    if spacy:
        from stapes.annotate.backends.spacy import SpacyBackend

        return SpacyBackend(progress=not quiet)
    if local is not None:
        from stapes.annotate.backends.local import LocalBackend
        from stapes.device import resolve_device, resolve_dtype

        options.silence_libraries()
        place = resolve_device(device)
        return LocalBackend(local, task, place, resolve_dtype(dtype, place))
    from stapes.annotate.backends.endpoint import EndpointBackend

    assert model is not None
    return EndpointBackend(model, task, base_url, concurrency, timeout, retries, options.warn)


def _compare(output: Path, labelled: Labelled, human: list[Utterance], plan: Plan, title: str) -> dict[str, Any]:
    """Write the report on quality, the errors, and which of the rejected labels people have; returns the scores."""
    from stapes.annotate import report
    from stapes.annotate.label import beside
    from stapes.annotate.quality import compare
    from stapes.data.manifest import write_lines

    found = compare(labelled, human, plan.task)
    beside(output, "quality.md").write_text(
        report.markdown(found, f"Labels of {title}, against those of people"), encoding="utf-8"
    )
    write_lines(beside(output, "errors.jsonl"), found.errors)
    write_lines(beside(output, "rejected.jsonl"), found.rejected)  # once more, now with what people say of each
    return report.scores(found)
