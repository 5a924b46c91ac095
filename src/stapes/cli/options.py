"""Options that several commands share, and what every command does around its work."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stapes.api import Stapes

MODEL_HELP = "A shipped model (`stapes ls`), a run folder or a hub id (owner/name)."
Device = Annotated[str, typer.Option(help="auto (the first that is there of cuda, mps and cpu), cpu, cuda or mps.")]
Dtype = Annotated[
    str,
    typer.Option(help="float32, bfloat16, float16 or auto (on cuda bfloat16, or float16 where it lacks that; else float32)."),
]
BatchSeconds = Annotated[float, typer.Option(min=1.0, help="Seconds of sound in one batch; less needs less memory.")]
Beams = Annotated[
    int | None,
    typer.Option(min=1, help="Beam search of this width; 1 is greedy. (default: the model's own)", show_default=False),
]
CTCWeight = Annotated[
    float | None,
    typer.Option(
        min=0.0, max=1.0, help="Share of the CTC head in each token's score. (default: the model's own)", show_default=False
    ),
]
Recipe = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help="A YAML file, or a recipe of the package (`stapes ls`).", show_default=False),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Set a key of the recipe. Can be given again.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Task = Annotated[
    str | None,
    typer.Option(
        help="What to do: asr, ner, sentiment, translation, asr+ner or asr+sentiment. (default: the model's first)",
        show_default=False,
    ),
]
Style = Annotated[str, typer.Option(help="spoken (the words alone) or written (capitals, punctuation, digits).")]
To = Annotated[
    str | None, typer.Option(metavar="LANGUAGE", help="Translate into this language, such as fr.", show_default=False)
]


def load_model(name: str, device: str, dtype: str, beams: int | None, ctc_weight: float | None) -> Stapes:
    """The model that a command line asks for; libraries keep quiet meanwhile.

    Raises:
        StapesError: there is none, or it does not fit.
    """
    import stapes
    from stapes import memory

    silence_libraries()
    memory.keep()
    return stapes.load(name, device, dtype, beams=beams, ctc_weight=ctc_weight)


def given(context: typer.Context) -> set[str]:
    """The parameters that stand on the command line, be it with their defaults."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def silence_libraries() -> None:
    """Keep transformers from drawing bars and giving advice: what a user needs to know, a command says itself."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module=r"transformers\.")


@contextlib.contextmanager
def only_results_on_stdout() -> Iterator[None]:
    """Send to stderr whatever a library prints while the context lasts."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def warn(text: str) -> None:
    """A line on stderr."""
    typer.echo(text, err=True)


class Bar:
    """A progress bar on stderr, where that is a terminal; a context.

    Args:
        what: is being done.
        total: how much of it there is.
        quiet: show nothing.
    """

    def __init__(self, what: str, total: float, quiet: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        console = Console(stderr=True)
        text = TextColumn("{task.description}")
        # Rich puts lines that are printed meanwhile above the bar, on its own console: right for stderr, wrong for results.
        self._bar = Progress(
            *(text, BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn()),
            console=console,
            disable=quiet or not console.is_terminal,
            transient=True,
            redirect_stdout=False,
        )
        self._task = self._bar.add_task(what, total=total)

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, amount: float) -> None:
        """So much more is done."""
        self._bar.advance(self._task, amount)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Make way for lines on the terminal while the context lasts."""
        self._bar.stop()
        yield
        self._bar.start()
