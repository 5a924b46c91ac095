"""What Whisper's encoder loses without its 30 s window: WER of Whisper's own decoder on its output, and the time to encode.

    python benchmarks/whisper_window.py --data FILE [--weights pack:whisper-base] [--limit N] [--json]

Both windows are encoded by our encoder, one utterance at a time, and decoded greedily by the same checkpoint's decoder; nothing
is trained, so the difference is the window's alone. Utterances longer than 30 s are left out.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import track
from transformers import AutoTokenizer, WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from stapes import hub
from stapes.data.cache import read_utterance
from stapes.data.manifest import read_manifest
from stapes.encoders.whisper import WINDOW_SECONDS, WhisperEncoder
from stapes.metrics.wer import wer
from stapes.types import Audio, Utterance

MAX_TOKENS = 200


def measure(rows: list[Utterance], weights: str, window: Literal["none", "30s"]) -> dict[str, Any]:
    """WER with its errors and interval, and seconds of speech encoded in a second, for one window."""
    folder = hub.resolve(weights).folder
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    language = {"language": "en", "task": "transcribe"} if model.generation_config.is_multilingual else {}
    encoder = WhisperEncoder(weights, window)
    texts, encoding = [], 0.0
    for row in track(rows, f"window {window}", console=Console(stderr=True), transient=True):
        audio = Audio.from_arrays([read_utterance(row)])
        with torch.inference_mode():
            started = time.perf_counter()
            frames = encoder(audio)
            encoding += time.perf_counter() - started
            encoded = BaseModelOutput(last_hidden_state=frames.values)
            options = {"max_new_tokens": MAX_TOKENS, "do_sample": False, "num_beams": 1}
            tokens = model.generate(encoder_outputs=encoded, **options, **language)
        texts.append(tokenizer.decode(tokens[0], skip_special_tokens=True).strip())
    score = wer([row.text for row in rows], texts, normaliser="slue")
    errors = {kind: score.parts[kind] for kind in ("substitutions", "deletions", "insertions")}
    speed = sum(row.duration for row in rows) / encoding
    return {"wer": round(score.value, 3), "interval": score.interval, **errors, "encoded_per_second": round(speed, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a manifest")
    parser.add_argument("--weights", default="pack:whisper-base", help="pack:NAME, hf:OWNER/NAME or path:FOLDER")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    rows = [row for row in read_manifest(arguments.data) if row.duration <= WINDOW_SECONDS][: arguments.limit]
    result = {"utterances": len(rows)} | {window: measure(rows, arguments.weights, window) for window in ("none", "30s")}
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
