"""What Whisper's encoder loses without its 30 s window: WER of Whisper's own decoder on its output, and the time to encode.

    python benchmarks/whisper_window.py --data FILE [--weights pack:whisper-base] [--limit N] [--json]

Both windows are encoded by our encoder, one utterance at a time, and decoded greedily by the same checkpoint's decoder; nothing
is trained, so the difference is the window's alone. Utterances longer than 30 s are left out.

The decoder was never shown anything but 30 s, and without the window it loops on some utterances until it is stopped, which
says little of what the encoder hears. So both are also scored on the utterances that were stopped with neither (`unlooped`).
"""

from __future__ import annotations

import argparse
import itertools
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


def decoded(rows: list[Utterance], weights: str, window: Literal["none", "30s"]) -> tuple[list[str], list[bool], float]:
    """Texts, whether each was stopped at ``MAX_TOKENS``, and seconds of speech encoded in a second, for one window."""
    folder = hub.resolve(weights).folder
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    language = {"language": "en", "task": "transcribe"} if model.generation_config.is_multilingual else {}
    encoder = WhisperEncoder(weights, window)
    texts, stopped, encoding = [], [], 0.0
    for row in track(rows, f"window {window}", console=Console(stderr=True), transient=True):
        audio = Audio.from_arrays([read_utterance(row)])
        with torch.inference_mode():
            started = time.perf_counter()
            frames = encoder(audio)
            encoding += time.perf_counter() - started
            encoded = BaseModelOutput(last_hidden_state=frames.values)
            options = {"max_new_tokens": MAX_TOKENS, "do_sample": False, "num_beams": 1}
            (tokens,) = model.generate(encoder_outputs=encoded, **options, **language).tolist()
        texts.append(tokenizer.decode(tokens, skip_special_tokens=True).strip())
        stopped.append(model.generation_config.eos_token_id not in tokens and len(tokens) >= MAX_TOKENS)
    return texts, stopped, sum(row.duration for row in rows) / encoding


def scores(rows: list[Utterance], texts: list[str]) -> dict[str, Any]:
    """WER with its errors and interval."""
    found = wer([row.text for row in rows], texts, normaliser="slue")
    errors = {kind: found.parts[kind] for kind in ("substitutions", "deletions", "insertions")}
    return {"wer": round(found.value, 3), "interval": found.interval, **errors}


def measure(rows: list[Utterance], weights: str) -> dict[str, Any]:
    """Both windows, on all utterances and on those that were stopped with neither."""
    found = {window: decoded(rows, weights, window) for window in ("none", "30s")}
    fine = [not any(each) for each in zip(*(stopped for _, stopped, _ in found.values()), strict=True)]
    result: dict[str, Any] = {"utterances": len(rows), "unlooped": sum(fine)}
    for window, (texts, stopped, speed) in found.items():
        both = list(itertools.compress(rows, fine)), list(itertools.compress(texts, fine))
        result[window] = {"encoded_per_second": round(speed, 1), "stopped": sum(stopped)}
        result[window] |= {"all": scores(rows, texts), "unlooped": scores(*both)}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a manifest")
    parser.add_argument("--weights", default="pack:whisper-base", help="pack:NAME, hf:OWNER/NAME or path:FOLDER")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    rows = [row for row in read_manifest(arguments.data) if row.duration <= WINDOW_SECONDS][: arguments.limit]
    result = measure(rows, arguments.weights)
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
