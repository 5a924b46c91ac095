"""Does every adapter learn to be heard? The same data, alignment and steps for each of them.

    python benchmarks/zoo.py --train FILE --dev FILE --results FILE [--adapters NAME ...] [--encoders SOURCE ...] [--seeds N]
        [--set section.key=value ...]

Each adapter is trained by `recipes/ablations/zoo.yaml`, its own options at their defaults: first it is aligned with the LLM's
embeddings of the transcript by the matching loss and a contrastive one, without the LLM in the loop, then LoRA on the LLM is
trained with it, as many steps for each. An adapter that has losses of its own (`quantity`, `token_ctc`) gets them too, as its
paper has it; those whose Transformer layers normalise last are trained at a lower rate. Then the loss per token of 200
utterances is measured with their own audio, with another utterance's and with silence. The hour that is trained on and these
utterances are the same for all. What the alignment minimises is measured where it ends, too, with the right audio and with
another's: a loss that is the same with both was brought down without listening.

Results are appended to a file, a line each; what stands in it is not trained again, so that a killed run goes on. At the end
two tables are printed, as Markdown: every run, and, where every adapter was trained with every encoder, how far the loss of
each encoder and of each adapter lies from the mean of all (main effects), with a 95 % interval: bootstrap over utterances and
seeds.

It shows whether each one listens. It is no verdict between them: the budget is small, the options are not tuned.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

import stapes
from stapes import lora, recipe
from stapes.adapters import ADAPTERS
from stapes.data.cache import FeatureCache, fill
from stapes.data.manifest import read_manifest, write_manifest
from stapes.data.reading import generator
from stapes.evaluation.probe import losses
from stapes.metrics.bootstrap import interval
from stapes.training.stages import train
from stapes.training.validation import Part, Validation
from stapes.types import Padded, Utterance

LONGEST_SECONDS = 20.0
GENTLE = {"transformer", "conv", "cif", "ctc"}  # whose layers normalise last: at 1e-3 they are aligned to nothing at all
GENTLE_RATE = 2e-4
OWN_WEIGHTS = {"quantity": 1.0, "token_ctc": 0.1}  # arXiv 2409.17044, as its authors' code has them
RESAMPLES = 2000


def drawn(path: str, seconds: float = float("inf"), count: int | None = None) -> list[Utterance]:
    """Utterances of a manifest in an order that is always the same, up to so many seconds or so many of them."""
    rows = [row for row in read_manifest(path) if row.duration <= LONGEST_SECONDS and row.text.strip()]
    rows = [rows[index] for index in generator("zoo").permutation(len(rows))]
    ends = np.cumsum([row.duration for row in rows])
    return rows[: int(np.searchsorted(ends, seconds))][:count]


def run(
    encoder: str, adapter: str, seed: int, rows: list[Utterance], dev: list[Utterance], folder: Path, settings: Sequence[str]
) -> dict[str, Any]:
    """Train one combination and probe it, aligned and at the end."""
    write_manifest(folder / "train.jsonl", rows)
    own = {name: OWN_WEIGHTS[name] for name in ADAPTERS[adapter].losses}  # type: ignore[attr-defined]
    settings = [*settings, f"encoder.weights={encoder}", f"adapter.name={adapter}", f"data.train={folder / 'train.jsonl'}"]
    settings += [f"train.seed={seed}"]
    if adapter in GENTLE:
        settings += [f"stages.{stage}.learning_rate={GENTLE_RATE}" for stage in (0, 1)]
    settings += [f"stages.{stage}.losses.{name}={weight}" for stage in (0, 1) for name, weight in own.items()]
    started = time.perf_counter()
    resolved = recipe.load("ablations/zoo", settings)
    train(resolved, folder / "run")
    seconds = time.perf_counter() - started
    model = stapes.load(folder / "run").module
    cache = FeatureCache(model.encoder)
    fill(cache, dev, progress=False)
    frames = [cache.get(row).to(model.device) for row in dev]
    with torch.inference_mode():
        heard = [model.speech(Padded.from_rows([row])).embeddings.lengths for row in frames]
    found = losses(model, frames, [model.task.target(row) for row in dev])
    aligned = stapes.load(folder / "run" / f"1-{resolved.stages[0].name}").module
    held_out, stage = Validation([Part("asr", aligned.task, dev)]), resolved.stages[0]
    return {
        "encoder": encoder,
        "adapter": adapter,
        "seed": seed,
        "parameters": lora.parameter_counts(model)["adapter"][1],
        "embeddings_per_second": round(float(sum(heard)) / sum(row.duration for row in dev), 2),
        "seconds": round(seconds),
        "aligned_right": round(held_out.loss(aligned, stage, frames), 4),
        "aligned_other": round(held_out.loss(aligned, stage, [*frames[1:], frames[0]]), 4),
        **{what: [round(value, 4) for value in values] for what, values in asdict(found).items()},
    }


def per_token(found: dict[str, Any], audio: str) -> float:
    """Nats a token."""
    return sum(found[audio]) / sum(found["tokens"])


def table(found: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each run, with the intervals of the loss with the right audio and of what others' and silence cost more."""
    names = ("encoder", "adapter", "seed", "parameters", "embeddings/s", "right", "other - right", "silence - right")
    names += ("aligned: right, other", "seconds")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for each in found:
        low, high = (end / 100 for end in interval(each["right"], each["tokens"]))
        right = f"{per_token(each, 'right'):.2f} ({low:.2f} to {high:.2f})"
        others = " | ".join(dearer(each, audio) for audio in ("other", "silence"))
        sizes = f"{each['parameters']:,} | {each['embeddings_per_second']}"
        aligned = f"{each['aligned_right']:.3f}, {each['aligned_other']:.3f}"
        what = f"{each['encoder']} | {each['adapter']} | {each['seed']}"
        lines.append(f"| {what} | {sizes} | {right} | {others} | {aligned} | {each['seconds']} |")
    return lines


def dearer(found: dict[str, Any], audio: str) -> str:
    """What this audio costs more than the right one, in nats a token, with its interval, paired over utterances."""
    gap = [other - right for other, right in zip(found[audio], found["right"], strict=True)]
    low, high = (end / 100 for end in interval(gap, found["tokens"]))
    return f"{per_token(found, audio) - per_token(found, 'right'):.3f} ({low:.3f} to {high:.3f})"


def effects(found: Sequence[dict[str, Any]]) -> list[str]:
    """Main effects of encoder and adapter; nothing where the runs are not every pair, with the same seeds."""
    levels = {factor: sorted({each[factor] for each in found}) for factor in ("encoder", "adapter", "seed")}
    runs = {(each["encoder"], each["adapter"], each["seed"]): each for each in found}
    if len(levels["encoder"]) < 2 or set(runs) != set(itertools.product(*levels.values())):
        return []
    nats = np.array([[[runs[e, a, s]["right"] for s in levels["seed"]] for a in levels["adapter"]] for e in levels["encoder"]])
    tokens = np.array(found[0]["tokens"])
    rng = generator("zoo effects")
    drawn_effects: dict[tuple[str, str], list[float]] = {}
    for number in range(1 + RESAMPLES):  # the first is the data itself
        seeds, rows = np.arange(nats.shape[2]), np.arange(nats.shape[3])
        if number:
            seeds, rows = rng.choice(seeds, len(seeds)), rng.choice(rows, len(rows))
        means = nats[:, :, seeds][..., rows].sum(-1).mean(-1) / tokens[rows].sum()  # (encoders, adapters)
        for factor, axis in (("encoder", 1), ("adapter", 0)):
            for level, value in zip(levels[factor], means.mean(axis) - means.mean(), strict=True):
                drawn_effects.setdefault((factor, level), []).append(float(value))
    lines = ["| component | choice | nats a token, against the mean of all |", "|---|---|---|"]
    for (factor, level), (value, *resampled) in drawn_effects.items():
        low, high = np.percentile(resampled, [2.5, 97.5])
        lines.append(f"| {factor} | {level} | {value:+.3f} ({low:+.3f} to {high:+.3f}) |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="a manifest to draw the hour from")
    parser.add_argument("--dev", required=True, help="a manifest to draw the probed utterances from")
    parser.add_argument("--results", required=True, type=Path, help="a JSONL file, added to")
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--probed", type=int, default=200, help="utterances of --dev")
    parser.add_argument("--adapters", nargs="+", default=list(ADAPTERS))
    parser.add_argument("--encoders", nargs="+", default=["pack:whisper-base"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--set", nargs="+", default=[], help="section.key=value of the recipe; use another --results file then")
    arguments = parser.parse_args()
    rows, dev = drawn(arguments.train, 3600 * arguments.hours), drawn(arguments.dev, count=arguments.probed)
    wanted = list(itertools.product(arguments.encoders, arguments.adapters, arguments.seeds))
    found: list[dict[str, Any]] = []
    if arguments.results.exists():
        found = [json.loads(line) for line in arguments.results.read_text().splitlines()]
    for combination in wanted:
        if combination not in {(each["encoder"], each["adapter"], each["seed"]) for each in found}:
            with tempfile.TemporaryDirectory() as folder:
                found.append(run(*combination, rows, dev, Path(folder), arguments.set))
            with arguments.results.open("a") as file:
                file.write(json.dumps(found[-1]) + "\n")
    asked = [each for each in found if (each["encoder"], each["adapter"], each["seed"]) in wanted]
    print("\n".join([*table(asked), "", *effects(asked)]))


if __name__ == "__main__":
    main()
