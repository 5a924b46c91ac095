"""The same utterance alone and in a batch: the largest difference of log-probabilities, and whether the texts are the same.

    python benchmarks/invariance.py --data FILE [--model stapes-base] [--utterances 12] [--json]

Utterances of 1 to 25 s are spread over the durations of the manifest and put in one batch, so that short ones stand beside long
ones. float32, from waveform to text.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch

import stapes
from stapes.data.cache import read_utterance
from stapes.data.manifest import read_manifest
from stapes.model import SpeechLLM
from stapes.types import Audio

SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 25.0


def log_probs(model: SpeechLLM, sounds: list[np.ndarray], answers: list[list[int]]) -> torch.Tensor:
    """(n, V) log-probabilities at the answers' positions, utterance by utterance."""
    with torch.inference_mode():
        speech = model.speech(model.encode(Audio.from_arrays(sounds))).embeddings
        return model.logits(speech, answers)[0].log_softmax(-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a manifest")
    parser.add_argument("--model", default="stapes-base")
    parser.add_argument("--utterances", type=int, default=12)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    rows = [row for row in read_manifest(arguments.data) if SHORTEST_SECONDS <= row.duration <= LONGEST_SECONDS]
    rows.sort(key=lambda row: row.duration)
    rows = [rows[int(place)] for place in np.linspace(0, len(rows) - 1, min(arguments.utterances, len(rows)))]
    speech = stapes.load(arguments.model, device="cpu", dtype="float32")
    model, sounds = speech.module, [read_utterance(row) for row in rows]
    answers = [model.answer(model.task.target(row)) for row in rows]
    together = log_probs(model, sounds, answers)
    alone = torch.cat([log_probs(model, [sound], [answer]) for sound, answer in zip(sounds, answers, strict=True)])
    texts = [transcript.text for transcript in speech.transcribe(list(sounds), batch_seconds=1e9)]
    same = [speech.transcribe(sound).text == text for sound, text in zip(sounds, texts, strict=True)]
    result = {
        "utterances": len(rows),
        "seconds": [row.duration for row in rows],
        "largest_difference": float((together - alone).abs().max()),
        "largest_difference_at_targets": float(
            (together - alone).gather(1, torch.tensor([[token] for answer in answers for token in answer])).abs().max()
        ),
        "texts_identical": sum(same),
    }
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
