"""What does each part of SENSE-ASR (arXiv 2509.04473) add to entities from speech, at our scale?

    python benchmarks/claims.py --results FOLDER [--init MODEL] [--rows NAME ...] [--seeds N ...] [--synthetic FILE]
        [--dev FILE]

Every row starts from a model that recognises speech: the run of `recipes/stapes-base.yaml` before it learns entities. Its LLM
has LoRA from recognition already (in the rows `adapter` it is at rest). Each row is trained by `recipes/ablations/claims.yaml`
with as many steps as every other; a row with a synthetic stage divides them between its two stages. `--synthetic` are the
transcripts of SLUE-VoxPopuli with labels by `stapes annotate`, human ones hidden. A share of the human labels is that share of
the utterances, the same for every seed.

Measured on a fixed part of dev: SLUE's NER F1 and label-F1 (combined tags), and the WER of the transcript that comes with the
entities, each with its 95 % interval. A row that has been evaluated (`FOLDER/ROW-SEED/scores.json`) is not trained again, so
that a killed run goes on. At the end a Markdown table is printed, with the difference in F1 to the row of the same seed that
lacks one thing (a classifier, LoRA, the synthetic stage) and its interval, paired over utterances.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from zoo import drawn

import stapes
from stapes import recipe
from stapes.data.manifest import write_manifest
from stapes.evaluation.compare import compare
from stapes.evaluation.predictions import read_predictions
from stapes.training.stages import train
from stapes.types import Utterance

STEPS = 300
LORA = ["train.trainable=[adapter, ctc, losses, llm.lora]"]
CLASSIFIER = ["train.losses={next_token: 0.8, ctc: 0.3, classifier: 0.2}"]
SYNTHETIC = "{{name: synthetic, steps: {steps}, mixture: [{{path: {synthetic}, task: ner}}]}}"
HUMAN = "{{name: human, steps: {steps}, mixture: [{{path: {human}, task: ner}}]}}"
# name -> (settings, share of the human labels, whether synthetic labels come first)
ROWS: dict[str, tuple[list[str], float, bool]] = {
    "adapter": ([], 1.0, False),
    "adapter + classifier": (CLASSIFIER, 1.0, False),
    "lora": (LORA, 1.0, False),
    "lora + classifier": (LORA + CLASSIFIER, 1.0, False),
    "lora, synthetic first": (LORA, 1.0, True),
    "lora, 10 % of the labels": (LORA, 0.1, False),
    "lora, synthetic first, 10 % of the labels": (LORA, 0.1, True),
    "lora, synthetic alone": (LORA, 0.0, True),
}


# row -> the row that it is compared with
AGAINST = {
    "adapter + classifier": "adapter",
    "lora": "adapter",
    "lora + classifier": "lora",
    "lora, synthetic first": "lora",
    "lora, 10 % of the labels": "lora",
    "lora, synthetic first, 10 % of the labels": "lora, 10 % of the labels",
    "lora, synthetic alone": "lora",
}


def run(
    name: str, seed: int, init: str, human: Sequence[Utterance], synthetic: str, dev: list[Utterance], results: Path
) -> None:
    """Train one row, score it, and leave the evaluation in ``results``."""
    settings, share, synthetic_first = ROWS[name]
    stages = [SYNTHETIC] * synthetic_first + [HUMAN] * (share > 0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if share:
            write_manifest(folder / "human.jsonl", human[: round(share * len(human))])
        paths = {"human": folder / "human.jsonl", "synthetic": synthetic, "steps": STEPS // len(stages)}
        written = f"stages=[{', '.join(stage.format(**paths) for stage in stages)}]"
        train(recipe.load("ablations/claims", [*settings, written, f"init={init}", f"train.seed={seed}"]), folder / "run")
        stapes.load(folder / "run", dtype="bfloat16").evaluate(dev, task="ner").save(results)


def table(results: Path, rows: Sequence[tuple[str, int]]) -> list[str]:
    """A line for each row and seed."""
    lines = ["| row | seed | NER F1 | label-F1 | WER | F1 against |", "|---|---|---|---|---|---|"]
    for name, seed in rows:
        folder, baseline = results / f"{name}-{seed}", results / f"{AGAINST.get(name)}-{seed}"
        scores = json.loads((folder / "scores.json").read_text())
        cells = []
        for rate in ("ner_f1", "ner_label_f1", "wer"):
            low, high = scores["intervals"][rate]
            cells.append(f"{scores[rate]:.1f} ({low:.1f} to {high:.1f})")
        against = ""
        if baseline.is_dir():
            found = compare(read_predictions(baseline), read_predictions(folder)).differences["ner_f1"]
            against = f"`{AGAINST[name]}`: {found.difference:+.1f} ({found.interval[0]:+.1f} to {found.interval[1]:+.1f})"
        lines.append(f"| {name} | {seed} | {' | '.join(cells)} | {against} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", required=True, type=Path, help="a folder, added to")
    parser.add_argument("--init", default="runs/stapes-base/4-together", help="the model that every row starts from")
    parser.add_argument("--human", default="prepared/slue-voxpopuli/train.jsonl", help="a manifest with labels by people")
    parser.add_argument(
        "--synthetic", default="prepared/slue-voxpopuli-spacy/train.jsonl", help="one with labels by an annotator"
    )
    parser.add_argument("--dev", default="prepared/slue-voxpopuli/dev.jsonl")
    parser.add_argument("--scored", type=int, default=400, help="utterances of --dev")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    arguments = parser.parse_args()
    human, dev = drawn(arguments.human), drawn(arguments.dev, count=arguments.scored)
    wanted = list(itertools.product(arguments.rows, arguments.seeds))
    for name, seed in wanted:
        if not (arguments.results / f"{name}-{seed}" / "scores.json").exists():
            run(name, seed, arguments.init, human, arguments.synthetic, dev, arguments.results / f"{name}-{seed}")
    print("\n".join(table(arguments.results, wanted)))


if __name__ == "__main__":
    main()
