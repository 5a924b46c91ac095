"""Transcribe the five example sentences, and show them beside what was said: ``python examples/transcribe.py [MODEL]``."""

import sys
from pathlib import Path

import stapes
from stapes.data.manifest import read_manifest
from stapes.metrics.wer import wer

utterances = read_manifest(Path(__file__).parent / "references.jsonl")
model = stapes.load(sys.argv[1] if len(sys.argv) > 1 else "stapes-base")
hypotheses = [transcript.text for transcript in model.transcribe([utterance.audio for utterance in utterances])]

for utterance, hypothesis in zip(utterances, hypotheses, strict=True):
    print(f"{utterance.audio.name}, {utterance.duration:.1f} s\n  said   {utterance.text}\n  heard  {hypothesis}\n")
score = wer([utterance.text for utterance in utterances], hypotheses)
errors = ", ".join(f"{score.parts[name]} {name}" for name in ("substitutions", "deletions", "insertions"))
print(f"WER {score.value:.1f} %: {errors} in {score.parts['reference_words']} words")
