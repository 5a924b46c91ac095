"""``stapes doctor``: does an encoder and an LLM do what is relied on, as they really are?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stapes.cli import options

if TYPE_CHECKING:
    from stapes.registry import Table

# The kind of model in a configuration -> the encoder that takes it, where their names differ.
TAKEN_BY = {"wav2vec2": "ssl", "hubert": "ssl", "wavlm": "ssl", "seamless_m4t_v2": "seamless"}
WRONG_STATUS = 1
_HELP = "A name (`stapes ls`), weights (pack:NAME, hf:OWNER/NAME, path:FOLDER), or a recipe's section: '{name: ..., ...}'."


def doctor(
    encoder: Annotated[str, typer.Argument(metavar="ENCODER", help=_HELP, show_default=False)],
    llm: Annotated[str, typer.Argument(metavar="LLM", help="The same.", show_default=False)],
    adapter: Annotated[str, typer.Argument(metavar="[ADAPTER]", help="A name, or a recipe's section.")] = "stack_mlp",
    audio: Annotated[
        Path | None, typer.Option(help="A recording to try it on, best one of a minute; without it, made-up sound.")
    ] = None,
    device: options.Device = "cpu",
    as_json: options.AsJson = False,
) -> None:
    """Examine a pair of encoder and LLM, with an adapter between them, before time is spent on training it.

    The weights are loaded, and what Stapes relies on is tried: sizes, frame rate, numbers of frames, padding, that the first
    and the last sound are heard, prompt and end of an answer, logits, a training step, a decode, and the memory of these two
    against what `stapes check` estimates. Each check is ok, a warning (worth knowing) or wrong (a promise is broken).

    The exit status is 1 if something is wrong, and 2 if the pair cannot be loaded.

    Examples:

    \b
      stapes doctor pack:whisper-base pack:smollm2-135m-instruct conv1d_transformer
          the pair under stapes-base
    \b
      stapes doctor toy toy stack_mlp
          needs no weights, and takes seconds
    \b
      stapes doctor '{name: whisper, weights: hf:openai/whisper-small, window: 30s}' hf:Qwen/Qwen2.5-0.5B-Instruct --json
          with an option of the encoder; one JSON object
    """
    from stapes.device import place, resolve_device, resolve_dtype
    from stapes.doctor.examine import admit, describe, examine

    options.silence_libraries()
    results = sys.stdout
    with options.only_results_on_stdout():
        where = resolve_device(device)
        pair = admit(describe(*_sections(encoder, llm, adapter)), _sound(audio))
        place(pair.model, where, resolve_dtype("float32", where))
        findings = []
        for finding in examine(pair):
            findings.append(finding)
            if not as_json:
                typer.echo(f"{finding.verdict:<8} {finding.check:<18} {finding.found}", file=results)
    wrong = sum(finding.verdict == "wrong" for finding in findings)
    if as_json:
        rows = [{"check": finding.check, "verdict": finding.verdict, "found": finding.found} for finding in findings]
        typer.echo(json.dumps({"recipe": pair.recipe.model_dump(mode="json"), "wrong": wrong, "findings": rows}))
    if wrong:
        raise typer.Exit(WRONG_STATUS)


def _sections(encoder: str, llm: str, adapter: str) -> list[dict[str, Any]]:
    """The sections of a recipe that the arguments stand for."""
    from stapes.adapters import ADAPTERS
    from stapes.encoders import ENCODERS
    from stapes.llms import LLMS

    return [_section(ENCODERS, encoder), _section(LLMS, llm), _section(ADAPTERS, adapter)]


def _section(table: Table, text: str) -> dict[str, Any]:
    """A component from a name, a source of weights or a section in YAML.

    Raises:
        RecipeError: it is none of them.
    """
    import yaml

    from stapes.errors import RecipeError, WeightsError
    from stapes.hub.sources import with_kind
    from stapes.registry import nearest

    if text.lstrip().startswith("{"):
        try:
            section = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise RecipeError(table.kind, f"{text!r} is not YAML ({error})", "{name: ..., ...}") from error
        return dict(section)
    if text in table:
        return {"name": text}
    try:
        source = with_kind(text)
    except WeightsError:
        raise RecipeError(table.kind, f"unknown {table.kind} '{text}'", fix=nearest(text, table)) from None
    if table.kind == "adapter":
        raise RecipeError("adapter", f"'{text}'", "a name or a section: an adapter has no pretrained weights")
    return {"name": "causal" if table.kind == "llm" else _taken_by(table, source), "weights": source}


def _taken_by(table: Table, source: str) -> str:
    """The encoder that takes the kind of model that a source is of: ``auto`` where no other does.

    Raises:
        WeightsError: the source cannot be had.
    """
    from stapes import hub

    kind = json.loads((hub.resolve(source).folder / "config.json").read_text(encoding="utf-8")).get("model_type", "")
    name = TAKEN_BY.get(kind, kind)
    return name if name in table else "auto"


def _sound(path: Path | None) -> Any:
    from stapes import audio

    return None if path is None else audio.read(path)
