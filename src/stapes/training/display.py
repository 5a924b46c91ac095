"""What a training run shows: the table of what is trainable, a progress bar on a terminal, lines in a log, warnings."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from stapes import lora
from stapes.evaluation.probe import LISTENS_NATS
from stapes.model import BASES, SpeechLLM

SECONDS_PER_LINE = 60.0  # between lines where there is no terminal to draw a bar on


class Display:
    """Progress on standard error; silent on all but the main process.

    Args:
        active: false for the other processes.
    """

    def __init__(self, active: bool = True) -> None:
        self.active = active
        self.console = Console(stderr=True, quiet=not active)
        self._writer: Any = None

    def track(self, folder: Any) -> None:
        """Write TensorBoard logs to ``folder``, where it is installed."""
        with contextlib.suppress(ImportError):
            from torch.utils.tensorboard import SummaryWriter

            if self.active:
                self._writer = SummaryWriter(str(folder))

    @contextlib.contextmanager
    def stage(self, model: SpeechLLM, name: str, step: int, steps: int) -> Iterator[None]:
        """Show what is trainable, then a bar while the context lasts."""
        self.console.print(_trainable_table(model, name))
        self._name, self._steps, self._began, self._first = name, steps, time.monotonic(), step
        self._last_line = 0.0
        if step:
            self.note(f"going on from step {step} of {steps}")
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, disable=not (self.active and self.console.is_terminal)) as self._bar:
            self._task = self._bar.add_task(name, total=steps, completed=step)
            yield

    def step(self, step: int, losses: Mapping[str, float], speech_per_second: float) -> None:
        """A step is done.

        Args:
            step: its number, from 1.
            losses: by name.
            speech_per_second: seconds of speech trained on in a second.
        """
        text = f"{self._name}  " + "  ".join(f"{name} {value:.3g}" for name, value in losses.items())
        text += f"  {speech_per_second:.0f} s of speech/s"
        self._bar.update(self._task, completed=step, description=text)
        for name, value in losses.items() if self._writer else ():
            self._writer.add_scalar(f"{self._name}/{name}", value, step)
        now = time.monotonic()
        if not self.console.is_terminal and (now - self._last_line > SECONDS_PER_LINE or step == self._steps):
            self._last_line = now
            left = (now - self._began) / max(1, step - self._first) * (self._steps - step)
            self.console.print(f"{text}  step {step}/{self._steps}  {left / 60:.0f} min left", soft_wrap=True, highlight=False)

    def evaluation(self, step: int, scores: Mapping[str, float], is_best: bool) -> None:
        """An evaluation is done; warns if the model does not listen."""
        self.note(f"step {step}: {listed(scores)}{'  (best so far)' if is_best else ''}")
        for name, value in scores.items() if self._writer else ():
            self._writer.add_scalar(f"evaluation/{self._name}/{name}", value, step)
        if "loss_right_audio" in scores:
            gap = min(scores["loss_other_audio"], scores["loss_silence"]) - scores["loss_right_audio"]
            if gap < LISTENS_NATS:
                self.console.print(
                    "[bold red]warning[/]: the model does not listen: the right audio makes the transcripts only "
                    f"{gap:.2f} nats per token likelier than other audio or silence; align the adapter first "
                    "(a stage with losses: {ctc: 1.0})",
                    soft_wrap=True,
                )

    def stages(self, scores: Sequence[tuple[str, Mapping[str, float]]]) -> None:
        """What each stage ended with, side by side where there are several: what a later one has forgotten shows.

        Args:
            scores: (name, scores) of each stage, in order; of a model that was trained before, what it began with comes first.
        """
        if len(scores) < 2:
            return
        table = Table("", *(name for name, _ in scores), title="held-out scores after each stage", title_justify="left")
        for column in table.columns[1:]:
            column.justify = "right"
        for rate in dict.fromkeys(rate for _, found in scores for rate in found):
            table.add_row(rate, *(f"{found[rate]:.4g}" if rate in found else "" for _, found in scores))
        self.console.print(table)

    def note(self, text: str) -> None:
        """A line for the user."""
        self.console.print(text, soft_wrap=True, highlight=False)


def listed(scores: Mapping[str, float]) -> str:
    """Scores on one line."""
    return "  ".join(f"{name} {value:.4g}" for name, value in scores.items())


def _trainable_table(model: SpeechLLM, stage: str) -> Table:
    table = Table("part", "trainable", "all", title=f"stage {stage}: what is trained")
    counts = lora.parameter_counts(model)
    for part, (trainable, total) in counts.items():
        table.add_row(part, f"{trainable:,}" if trainable else "frozen", f"{total:,}")
    trainable, total = (sum(column) for column in zip(*counts.values(), strict=True))
    table.add_row("all", f"{trainable:,} ({100 * trainable / total:.2f} %)", f"{total:,}")
    found = {part: lora.targets(getattr(model, part)) for part in BASES}
    table.caption = "\n".join(f"{part}.lora: {', '.join(names)}" for part, names in found.items() if names) or None
    return table
