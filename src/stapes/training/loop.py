"""One training stage, readable from top to bottom.

A step takes a group of micro-batches, spread over the processes. Each loss is a sum over its targets, divided by their number
in the whole group, so that neither accumulation nor the number of processes changes what is optimised. The batches of an epoch
are a function of seed and epoch, and the state of everything else random is saved with the weights: a run that was killed goes
on exactly as if it had not been; on a GPU, whose sums have no fixed order, to rounding.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from peft.helpers import disable_input_dtype_casting
from torch import Tensor

from stapes import checkpoint, lora
from stapes.data.loader import Batch, TrainingData
from stapes.data.reading import Planned
from stapes.errors import CheckpointError, RecipeError, TrainingError
from stapes.model import SpeechLLM, Targets
from stapes.recipe import Recipe, Stage
from stapes.tasks import Example
from stapes.training import optim
from stapes.training.display import Display
from stapes.training.machine import attention, random_state, set_random_state
from stapes.training.validation import Validation
from stapes.types import Utterance

STATE, LOG = "state.pt", "metrics.jsonl"
Group = list[list[Example]]  # the micro-batches of one step, over all processes


@dataclass
class Loop:
    """Trains one stage of a recipe.

    Attributes:
        model: starts as the last stage left it, and ends as this one's result.
        data: the mixture.
        validation: what checkpoints are chosen on; None keeps the last one.
        recipe, stage: resolved.
        folder: of this stage: ``state.pt`` to go on from, the best model, ``last/``, ``metrics.jsonl``.
        engine: devices, processes, precision.
        display: what the user sees.
        epoch: the first one's number; epochs are counted over all stages, so that none repeats another's order. Afterwards,
            the number of the next stage's first.
    """

    model: SpeechLLM
    data: TrainingData
    validation: Validation | None
    recipe: Recipe
    stage: Stage
    folder: Path
    engine: Accelerator
    display: Display
    epoch: int = 0
    best: dict[str, float] = field(default_factory=dict)

    def run(self) -> None:
        """Train to the end of the stage, from where ``folder`` says it stands."""
        stage, engine = self.stage, self.engine
        torch.manual_seed(stage.seed + engine.process_index)
        lora.set_trainable(self.model, stage.trainable)
        with engine.main_process_first():  # the others find the cache filled
            self.data.attach(stage.cache, engine.device)
            self.steps = stage.steps or self._steps_of(stage.epochs or 1.0)
            if stage.cache:
                self.data.fill(self._drawn())
            if self.validation is not None:
                self.validation.attach(self.model.encoder, stage.cache)
        start = {name: tensor.detach().cpu().clone() for name, tensor in checkpoint.trained_state(self.model).items()}
        self.trainable = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.model.to(engine.device)
        self.optimizer = optim.optimizer(self.model, stage)
        self.schedule = optim.schedule(self.optimizer, stage, self.steps)
        self.model.llm.checkpoint_gradients(stage.gradient_checkpointing)
        self.moving = self._moving()
        self.average = optim.Average(self.moving, stage.average_decay) if stage.average_decay else None
        model = engine.prepare_model(self.model)
        step = self._resume()
        with (
            self.display.stage(self.model, stage.name, step, self.steps),
            disable_input_dtype_casting(self.model),  # autocast does what LoRA layers would undo
            (self.folder / LOG).open("a") as log,
        ):
            self._set_to_train()
            for group, batches in self._groups(step):
                started = time.monotonic()
                losses = self._step(model, group, batches)
                step += 1
                seconds = sum(example.utterance.duration for examples in group for example in examples)
                record: dict[str, Any] = {"stage": stage.name, "step": step, **losses}
                self.display.step(step, losses, seconds / (time.monotonic() - started))
                if self.validation is not None and (step % stage.evaluate_every == 0 or step == self.steps):
                    record["evaluation"] = self._evaluate(step)
                if engine.is_main_process:
                    log.write(json.dumps(record) + "\n")
                    log.flush()
                if step % stage.save_every == 0 or step == self.steps:
                    self._save(step)
        self._finish(start)

    # -- a step --------------------------------------------------------------------------------------------------------

    def _step(self, model: torch.nn.Module, group: Group, batches: list[Batch]) -> dict[str, float]:
        """Forward, backward and update; returns each loss per target over the whole group."""
        engine, weights = self.engine, self.stage.losses
        whole = [self.model.targets(examples) for examples in group]
        counts = self._target_counts(whole)
        sums = {name: torch.zeros((), device=engine.device) for name in weights}
        mine = whole[engine.process_index :: engine.num_processes]
        for number, (batch, targets) in enumerate(zip(batches, mine, strict=True)):
            with engine.no_sync(model) if number < len(batches) - 1 else contextlib.nullcontext():
                with engine.autocast():
                    with attention(engine.device, self._longest_trained(batch)):
                        frames = self.data.frames(batch).to(engine.device)
                    with attention(engine.device):
                        losses = model(frames, targets, weights)
                loss = sum((weights[name] / counts[name] * losses[name] for name in weights), torch.zeros(()))
                self._check(loss, batch)
                with attention(engine.device):  # of layers that are computed again
                    engine.backward(loss * engine.num_processes)  # gradients are averaged over processes
            for name in weights:
                sums[name] += losses[name].detach()
        norm = engine.clip_grad_norm_(self.trainable, self.stage.clip_norm)
        rate = self.schedule.get_last_lr()[0]
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(self.moving)
        per_target: dict[str, float] = {name: float(engine.reduce(value, "sum")) / counts[name] for name, value in sums.items()}
        return per_target | {"gradient_norm": float(norm), "learning_rate": float(rate)}

    def _set_to_train(self) -> None:
        """Dropout where there is any; none in the encoder, trained or not."""
        self.model.train()
        self.model.encoder.eval()

    def _moving(self) -> dict[str, Tensor]:
        """What this stage changes of the trained tensors, which follow the model."""
        changed = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        return {name: tensor for name, tensor in checkpoint.trained_state(self.model).items() if name in changed}

    def _longest_trained(self, batch: Batch) -> float:
        """Seconds of the longest utterance through whose encoding gradients flow; without an end where none do."""
        return max(example.utterance.duration for example in batch.examples) if self.model.encoder.is_trained else math.inf

    def _target_counts(self, group: Sequence[Targets]) -> dict[str, float]:
        """How many targets each loss has in a group: every process knows all of it, so nothing need be exchanged."""
        counts = Counter[str]()
        for targets in group:
            counts.update(self.model.target_counts(targets))  # type: ignore[arg-type]
        return {name: max(1.0, count) for name, count in counts.items()}

    def _check(self, loss: Tensor, batch: Batch) -> None:
        if not bool(torch.isfinite(loss)):
            ids = ", ".join(example.utterance.id for example in batch.examples)
            raise TrainingError(
                f"stage {self.stage.name}",
                f"the loss is {float(loss.detach())} in the batch of {ids}",
                "a number",
                "look at these utterances, or lower the learning rate",
            )

    # -- which batches -------------------------------------------------------------------------------------------------

    def _plan(self, epoch: int) -> list[Group]:
        """The groups of an epoch; the last one is filled up from the first, so that nothing is left out."""
        world = self.engine.num_processes
        size = max(self.stage.accumulation, world)
        if size % world:
            raise RecipeError("train.accumulation", f"{size} with {world} processes", f"a multiple of {world}")
        micro = self.data.epoch(self.stage.seed, epoch, self.stage.batch_seconds)
        return [[micro[(first + offset) % len(micro)] for offset in range(size)] for first in range(0, len(micro), size)]

    def _steps_of(self, epochs: float) -> int:
        """Steps in a number of epochs; part of an epoch counts in proportion."""
        whole, part = divmod(epochs, 1)
        counts = [len(self._plan(self.epoch + number)) for number in range(int(whole) + (part > 0))]
        return max(1, sum(counts[: int(whole)]) + (round(part * counts[-1]) if part else 0))

    def _drawn(self) -> list[Utterance]:
        """The utterances that the stage's steps read: of a large mixture, a few steps read a small part."""
        drawn: dict[tuple[str, str], Utterance] = {}
        epoch, left = self.epoch, self.steps
        while left and len(drawn) < len(self.data.utterances):
            groups = self._plan(epoch)[:left]
            rows = (example.utterance for group in groups for examples in group for example in examples)
            drawn |= {(row.source, row.id): row for row in rows}
            epoch, left = epoch + 1, left - len(groups)
        return list(drawn.values())

    def _groups(self, start: int) -> Iterator[tuple[Group, list[Batch]]]:
        """The groups from step ``start`` to the last, each with this process's share of its batches, read."""
        ahead: deque[Group] = deque()  # planned, and being read

        def mine() -> Iterator[Planned]:
            for epoch, group in self._planned(start):
                ahead.append(group)
                yield from (Planned(epoch, rows) for rows in group[self.engine.process_index :: self.engine.num_processes])

        batches = self.data.batches(mine(), self.stage.seed, self.stage.masking)
        for first in batches:
            group = ahead.popleft()
            yield group, [first, *itertools.islice(batches, len(group) // self.engine.num_processes - 1)]

    def _planned(self, start: int) -> Iterator[tuple[int, Group]]:
        """The groups from step ``start`` to the last, and the epoch of each."""
        done = 0
        for epoch in itertools.count(self.epoch):
            groups = self._plan(epoch)[: self.steps - done]
            yield from ((epoch, group) for group in groups[max(0, start - done) :])
            done += len(groups)
            self.epoch = epoch + 1
            if done >= self.steps:
                return

    # -- evaluation and checkpoints ------------------------------------------------------------------------------------

    def _evaluate(self, step: int) -> dict[str, float]:
        """Score the averaged weights on the main process, and keep them if they are the best so far."""
        scores: dict[str, float] = {}
        if self.engine.is_main_process and self.validation is not None:
            with self._result_weights():
                scores = self.validation.scores(self.model.eval(), self.stage, self.recipe.decoding, self.data.asked)
                criterion = self.validation.criterion(self.stage, self.data.asked)
                score = 0.0 if criterion is None else scores[criterion]  # nothing to choose by: the last is as good as any
                if not self.best or score <= self.best["score"]:
                    self.best = {"score": score, "step": step}
                    checkpoint.save(self.model, self.folder, self.recipe, checkpoint.trained_state(self.model))
            self.display.evaluation(step, scores, is_best=criterion is not None and self.best["step"] == step)
            self._set_to_train()
        self.engine.wait_for_everyone()
        return scores

    @contextlib.contextmanager
    def _result_weights(self) -> Iterator[None]:
        """The averaged weights in the model's place, where an average is kept."""
        if self.average is None:
            yield
            return
        whole = checkpoint.trained_state(self.model)
        own = {name: whole[name].clone() for name in self.average.state}
        checkpoint.load_trained(self.model, whole | self.average.state, "average")
        try:
            yield
        finally:
            checkpoint.load_trained(self.model, whole | own, "weights")

    def _save(self, step: int) -> None:
        """Everything that the next step depends on, written aside and then renamed."""
        for process in range(self.engine.num_processes):
            if process == self.engine.process_index:
                torch.save(random_state(self.engine.device), self.folder / f"random-{process}.pt.part")
        self.engine.wait_for_everyone()
        if not self.engine.is_main_process:
            return
        state = {
            "step": step,
            "steps": self.steps,
            "best": self.best,
            "weights": checkpoint.trained_state(self.model),
            "average": None if self.average is None else {"state": self.average.state, "steps": self.average.steps},
            "optimizer": self.optimizer.state_dict(),
            "schedule": {"last_epoch": self.schedule.last_epoch},
            "random": [torch.load(self.folder / f"random-{n}.pt.part") for n in range(self.engine.num_processes)],
        }
        torch.save(state, self.folder / f"{STATE}.part")
        (self.folder / f"{STATE}.part").rename(self.folder / STATE)
        for number in range(self.engine.num_processes):
            (self.folder / f"random-{number}.pt.part").unlink()
        with self._result_weights():
            checkpoint.save(self.model, self.folder / "last", self.recipe, checkpoint.trained_state(self.model))

    def _resume(self) -> int:
        """Take up ``state.pt`` if there is one; returns the step it stands at. What was logged after it is forgotten."""
        file = self.folder / STATE
        self.folder.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            if self.engine.is_main_process:
                (self.folder / LOG).unlink(missing_ok=True)
            return 0
        state = torch.load(file, map_location="cpu", weights_only=True)
        if state["steps"] != self.steps or len(state["random"]) != self.engine.num_processes:
            raise CheckpointError(
                file,
                f"a stage of {state['steps']} steps on {len(state['random'])} processes",
                f"{self.steps} steps on {self.engine.num_processes}",
                "resume with the recipe, data and processes it began with, or choose another --run folder",
            )
        checkpoint.load_trained(self.model, state["weights"], file)
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.last_epoch = state["schedule"]["last_epoch"]
        for group, base, factor in zip(
            self.optimizer.param_groups, self.schedule.base_lrs, self.schedule.lr_lambdas, strict=True
        ):
            group["lr"] = base * factor(self.schedule.last_epoch)
        self.schedule._last_lr = [group["lr"] for group in self.optimizer.param_groups]
        if self.average is not None:
            self.average.steps = state["average"]["steps"]
            for name, tensor in self.average.state.items():
                tensor.copy_(state["average"]["state"][name])
        set_random_state(state["random"][self.engine.process_index], self.engine.device)
        self.best = state["best"]
        if self.engine.is_main_process:
            lines = [line for line in (self.folder / LOG).read_text().splitlines(keepends=True) if line.endswith("\n")]
            (self.folder / LOG).write_text("".join(line for line in lines if json.loads(line)["step"] <= state["step"]))
        return int(state["step"])

    def _finish(self, start: dict[str, Tensor]) -> None:
        """Leave the stage's result in the model: the best checkpoint, or without validation the last, and some of the start."""
        self.engine.wait_for_everyone()
        if self.validation is None and self.engine.is_main_process:
            with self._result_weights():
                checkpoint.save(self.model, self.folder, self.recipe, checkpoint.trained_state(self.model))
        self.engine.wait_for_everyone()
        from safetensors.torch import load_file

        found, share = load_file(self.folder / checkpoint.TENSORS), self.stage.interpolate
        result = {name: torch.lerp(start[name], tensor, share) for name, tensor in found.items()}
        checkpoint.load_trained(self.model, result, self.folder)
