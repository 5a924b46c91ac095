"""The ``stapes`` command: what it offers, and how it ends.

A user's error is one line on stderr and exit status 2, an interruption is status 130; a traceback is always a mistake of ours.
Commands import what they need when they run, so that ``stapes --help`` does not wait for torch.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import stapes
from stapes.cli.annotate import annotate
from stapes.cli.check import check
from stapes.cli.compare import compare
from stapes.cli.doctor import doctor
from stapes.cli.evaluate import evaluate
from stapes.cli.export import export
from stapes.cli.fetch import fetch
from stapes.cli.ls import ls
from stapes.cli.prepare import prepare
from stapes.cli.slue import slue
from stapes.cli.train import train
from stapes.cli.transcribe import transcribe
from stapes.errors import StapesError

_OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)  # a full disk is no mistake of ours


class _Commands(TyperGroup):
    """Turns a user's error into its one line."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except StapesError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from error
        except OSError as error:
            if error.errno not in _OF_THE_MACHINE:
                raise
            typer.echo(f"error: {error.filename or 'writing'}: {error.strerror}", err=True)
            raise typer.Exit(2) from error


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain text: paragraphs flow, and examples stay as they are written
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stapes {stapes.__version__}")
        raise typer.Exit


@app.callback()
def commands(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Connect any pretrained speech encoder to any pretrained LLM through a small adapter.

    Each command has examples: `stapes COMMAND --help`.
    """


_COMMANDS: dict[Callable[..., None], str] = {
    transcribe: "Sound to text, JSON or subtitles.",
    evaluate: "Score a model on a manifest.",
    compare: "Test whether one run is better than another.",
    slue: "Compute the SLUE score of a model, or of evaluations.",
    train: "Train a recipe into a run folder.",
    check: "Check a recipe: keys, data, parameters, memory.",
    doctor: "Examine a pair of encoder and LLM, with an adapter.",
    prepare: "Turn a corpus or a folder of recordings into manifests.",
    annotate: "Label transcripts by an LLM or by spaCy.",
    export: "Write a model with its encoder and LLM into one folder.",
    fetch: "Fetch pretrained weights into the cache.",
    ls: "List models, recipes, weights and components.",
}
for _command, _summary in _COMMANDS.items():
    app.command(short_help=_summary)(_command)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":  # for launchers of several processes: accelerate launch -m stapes.cli.main train ...
    main()
