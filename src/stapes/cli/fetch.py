"""``stapes fetch``: have pretrained weights on this machine before they are needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from stapes.errors import CheckpointError, StapesError, WeightsError

_MODELS = Path(__file__).parents[1] / "models"
_HELP = "Models of Stapes (stapes-base), run folders, packs (whisper-base) or sources (hf:owner/name, path:/folder, pack:name)."


def fetch(
    models: Annotated[list[str], typer.Argument(metavar="MODEL", help=_HELP, show_default=False)],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Fetch pretrained weights into the cache, so that everything else works offline.

    A model of Stapes, or a run folder, brings the encoder and the LLM that it was trained with. What is in the cache
    already is left as it is. The cache is the folder that `STAPES_CACHE` names, else `~/.cache/stapes` (on macOS
    `~/Library/Caches/stapes`); what comes from a model hub is in the cache of the hub's own client (`HF_HOME`).

    Examples:

        stapes fetch stapes-base

        stapes fetch whisper-base smollm2-135m-instruct

        stapes fetch hf:facebook/hubert-base-ls960@main
    """
    from stapes.hub import resolve

    for model in models:
        for part, sources in _sources(model).items():
            weights = resolve(sources, progress=not quiet, library=None)
            typer.echo(f"{part}\t{weights.source}\t{weights.folder}")


def _sources(model: str) -> dict[str, list[str]]:
    """What to fetch for a name on the command line: part -> sources, tried in order.

    Raises:
        CheckpointError: the model's ``stapes.json`` cannot be read.
        WeightsError: the name means nothing.
    """
    for folder in (Path(model).expanduser(), _MODELS / model):
        if (folder / "stapes.json").is_file():
            return _bases(folder / "stapes.json")
    shipped = sorted(path.parent.name for path in _MODELS.glob("*/stapes.json"))
    if "/" not in model and ":" not in model:
        from stapes.hub import packs

        if model not in packs():
            known = ", ".join([*shipped, *packs()])
            raise WeightsError(model, "no model or pack of this name", fix=f"known: {known}; or say hf:owner/name")
    return {model: [model]}


def _bases(path: Path) -> dict[str, list[str]]:
    """The encoder's and the LLM's sources in a checkpoint's ``stapes.json``; toys have none."""
    from stapes.hub import within

    error: StapesError = CheckpointError(path, "not a checkpoint's description", "a JSON object with an encoder and an llm")
    try:
        facts: Any = json.loads(path.read_text(encoding="utf-8"))
        bases = {
            f"{path.parent.name} {part}": [within(path.parent, source) for source in facts[part].get("sources", [])]
            for part in ("encoder", "llm")
        }
    except (ValueError, KeyError, TypeError, AttributeError) as cause:
        raise error from cause
    return {part: sources for part, sources in bases.items() if sources}
