"""``stapes export``: a model, its encoder and its LLM as one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stapes.cli import options


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=options.MODEL_HELP, show_default=False)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder that is not there yet.", show_default=False)],
    merge: Annotated[
        bool, typer.Option("--merge/--no-merge", help="Add LoRA to the weights of encoder and LLM, or keep it apart.")
    ] = True,
    dtype: Annotated[str, typer.Option(help="Of encoder and LLM as written: float32, bfloat16 or float16.")] = "float32",
    quiet: options.Quiet = False,
) -> None:
    """Write a model with everything that it needs into one folder.

    OUT/llm and OUT/encoder are folders of transformers, LoRA merged into their weights, which other tools open as they are;
    OUT itself is a model for every command of Stapes, wherever it is moved to. With --no-merge both hold the weights that LoRA
    was put on, and LoRA stays in OUT/model.safetensors, with the adapter.

    Examples:

    \b
      stapes export runs/mine exported/mine
          a folder to copy to another machine: stapes transcribe talk.wav --model exported/mine
    \b
      stapes export runs/mine exported/small --dtype bfloat16
          half the size; rounded
    \b
      stapes export stapes-base exported/apart --no-merge
          the pretrained weights untouched, LoRA apart
    """
    import torch

    from stapes import export as exporting
    from stapes.device import resolve_dtype

    options.silence_libraries()
    precision = resolve_dtype(dtype, torch.device("cpu"))
    with options.only_results_on_stdout(), options.Bar("exporting", 4, quiet) as bar:
        exporting.export(model, out, merge, precision, on_step=lambda: bar.advance(1))
    typer.echo(out)
