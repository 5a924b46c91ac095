"""How much faster than real time is transcription?

    python benchmarks/transcribe.py [--model stapes-base] [--data FILE] [--utterances 50] [--dtype float32 bfloat16] [--json]

One file of 10 s (the median of several runs), and a list of files with the lengths of a real corpus in one call, both through
`stapes.load(...).transcribe(...)` as a user calls it, reading the files included; in one precision after the other. Loading the
model is timed apart. The speed of a precision is the smaller of the two: seconds of speech in a second. `ratio` is that of the
fastest precision, which `ratio_dtype` names.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import speech
import torch

import stapes
from stapes.types import Utterance

SINGLE_SECONDS = 10.0
SINGLE_RUNS = 5


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Every precision, on the same files."""
    rows = speech.utterances(arguments.utterances, folder, arguments.data)
    single = speech.made_up(len(rows), SINGLE_SECONDS, folder)
    speeds = {dtype: speed(arguments.model, arguments.device, dtype, rows, single) for dtype in arguments.dtype}
    slower = {dtype: min(found["single_times_real_time"], found["batch_times_real_time"]) for dtype, found in speeds.items()}
    fastest = max(slower, key=lambda dtype: slower[dtype])
    return {
        "model": arguments.model,
        "utterances": len(rows),
        "seconds_of_speech": round(sum(row.duration for row in rows), 1),
        "lengths": arguments.data or "made up: log-normal fit to SLUE-VoxPopuli dev",
        "device": arguments.device,
        "threads": torch.get_num_threads(),
        **speeds,
        "ratio_dtype": fastest,
        "ratio": slower[fastest],
    }


def speed(name: str, device: str, dtype: str, rows: list[Utterance], single: Utterance) -> dict[str, float]:
    """One file and all files, after a first call that warms up."""
    started = time.perf_counter()
    model = stapes.load(name, device=device, dtype=dtype)
    load_seconds = time.perf_counter() - started
    model.transcribe(single.audio)

    runs = []
    for _ in range(SINGLE_RUNS):
        started = time.perf_counter()
        model.transcribe(single.audio)
        runs.append(time.perf_counter() - started)
    started = time.perf_counter()
    model.transcribe([row.audio for row in rows])
    batch_seconds = time.perf_counter() - started
    return {
        "load_seconds": round(load_seconds, 3),
        "single_seconds": round(statistics.median(runs), 3),
        "batch_seconds": round(batch_seconds, 3),
        "single_times_real_time": round(SINGLE_SECONDS / statistics.median(runs), 2),
        "batch_times_real_time": round(sum(row.duration for row in rows) / batch_seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="stapes-base", help="a shipped name, a run folder or a hub id")
    parser.add_argument("--data", help="a manifest to draw utterances from; by default they are made up")
    parser.add_argument("--utterances", type=int, default=50)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments, Path(folder))
    print(json.dumps(result) if arguments.json else "\n".join(f"{name}: {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
