"""The WER of Whisper's own decoder, greedy, on the utterances and with the scoring of `stapes evaluate`.

    python benchmarks/whisper_decoder.py --data FILE [--weights pack:whisper-base] [--limit N] [--json]

The encoder is what `stapes-base` hears with; this is how well its own decoder does from the same checkpoint. Audio goes in
windows of 30 s, as Whisper was trained; what is longer is cut at pauses first.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration

from stapes import audio, hub
from stapes.data.cache import read_utterance
from stapes.data.manifest import read_manifest
from stapes.metrics.wer import wer
from stapes.types import SAMPLE_RATE_HZ

BATCH = 8
WINDOW_SECONDS = 30.0
MAX_TOKENS = 224  # Whisper's own limit for a window


def transcribe(folder: str, sounds: Sequence[np.ndarray]) -> list[str]:
    """Greedy transcripts of waveforms (N,) of any length, in order."""
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    extractor = WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)
    language = {"language": "en", "task": "transcribe"} if model.generation_config.is_multilingual else {}
    owners, windows = [], []
    for number, samples in enumerate(sounds):
        for piece in audio.split(samples, max_seconds=WINDOW_SECONDS):
            owners.append(number)
            windows.append(piece.cut(samples))
    texts: list[list[str]] = [[] for _ in sounds]
    for first in track(range(0, len(windows), BATCH), "transcribing", console=Console(stderr=True), transient=True):
        features = extractor(windows[first : first + BATCH], sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt").input_features
        with torch.inference_mode():
            tokens = model.generate(features, max_new_tokens=MAX_TOKENS, do_sample=False, num_beams=1, **language)
        for owner, text in zip(owners[first:], tokenizer.batch_decode(tokens, skip_special_tokens=True), strict=False):
            texts[owner].append(text.strip())
    return [" ".join(parts) for parts in texts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a manifest")
    parser.add_argument("--weights", default="pack:whisper-base", help="pack:NAME, hf:OWNER/NAME or path:FOLDER")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    rows = read_manifest(arguments.data)[: arguments.limit]
    hypotheses = transcribe(str(hub.resolve(arguments.weights).folder), [read_utterance(row) for row in rows])
    references = [row.text for row in rows]
    result: dict[str, object] = {"weights": arguments.weights, "utterances": len(rows)}
    for name, normaliser in (("wer", "slue"), ("wer_whisper_en", "whisper-en")):
        score = wer(references, hypotheses, normaliser=normaliser)
        assert score.interval is not None
        result[name] = round(score.value, 3)
        result[f"{name}_interval"] = [round(end, 3) for end in score.interval]
        result[f"{name}_errors"] = {kind: score.parts[kind] for kind in ("substitutions", "deletions", "insertions")}
    print(json.dumps(result) if arguments.json else "\n".join(f"{name}: {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
