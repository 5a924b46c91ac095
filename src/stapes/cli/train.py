"""``stapes train``: a recipe to a run folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from stapes.cli import options


def train(
    recipe: options.Recipe,
    run: Annotated[
        Path | None, typer.Option("--run", "-r", help="The run's folder. (default: runs/RECIPE)", show_default=False)
    ] = None,
    settings: options.Settings = None,
    device: options.Device = "auto",
) -> None:
    """Train a model as a recipe says.

    The run folder gets the resolved recipe, the log (metrics.jsonl) and checkpoints; it is what `transcribe`, `evaluate` and
    a recipe's `init` take as a model. `stapes check RECIPE` shows beforehand what would be trained.

    Examples:

    \b
      stapes train toy
          a recipe of the package, into runs/toy; seconds, without pretrained weights (in a checkout, which has the examples)
    \b
      stapes train mine.yaml --run runs/first
          a recipe of one's own; interrupted, the same command goes on where it stopped
    \b
      stapes train stapes-base --set data.train=my/train.jsonl --set data.dev=my/dev.jsonl --set train.seed=1
          the recipe of the shipped model, from nothing (init: stapes-base in a recipe goes on from the model); any key can be
          set, stages too: --set stages.0.epochs=2
    \b
      accelerate launch --num_processes 2 -m stapes.cli.main train mine.yaml --run runs/two
          two processes, two GPUs or machines: whatever accelerate is configured for
    """
    from stapes import recipe as recipes
    from stapes.device import resolve_device
    from stapes.training.stages import train as run_stages

    resolved = recipes.load(recipe, settings or [])
    folder = run or Path("runs") / recipes.find(recipe).stem
    resolve_device(device)
    options.silence_libraries()
    try:
        run_stages(resolved, folder, device)
    except KeyboardInterrupt:
        options.warn(f"stopped; the same command goes on from the last checkpoint in {folder}")
        raise
    if os.environ.get("RANK", "0") == "0":
        typer.echo(folder)
        options.warn(f"next: stapes evaluate {folder} --data DEV.jsonl\n      stapes transcribe FILE --model {folder}")
