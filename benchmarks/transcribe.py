"""How much faster than real time is transcription?

    python benchmarks/transcribe.py [--model stapes-base] [--data FILE] [--utterances 50] [--json]

One file of 10 s (the median of several runs), and a list of files with the lengths of a real corpus in one call, both through
`stapes.load(...).transcribe(...)` as a user calls it, reading the files included. Loading the model is timed apart. `ratio` is
the smaller of the two speeds: seconds of speech in a second.
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

SINGLE_SECONDS = 10.0
SINGLE_RUNS = 5


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Both, after a first call that warms up."""
    rows = speech.utterances(arguments.utterances, folder, arguments.data)
    single = speech.made_up(len(rows), SINGLE_SECONDS, folder)
    started = time.perf_counter()
    model = stapes.load(arguments.model, device=arguments.device, dtype=arguments.dtype)
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

    seconds = sum(row.duration for row in rows)
    speeds = {"single": SINGLE_SECONDS / statistics.median(runs), "batch": seconds / batch_seconds}
    return {
        "model": arguments.model,
        "utterances": len(rows),
        "seconds_of_speech": round(seconds, 1),
        "lengths": arguments.data or "made up: log-normal fit to SLUE-VoxPopuli dev",
        "device": arguments.device,
        "dtype": arguments.dtype,
        "threads": torch.get_num_threads(),
        "load_seconds": round(load_seconds, 3),
        "single_seconds": round(statistics.median(runs), 3),
        "batch_seconds": round(batch_seconds, 3),
        "single_times_real_time": round(speeds["single"], 2),
        "batch_times_real_time": round(speeds["batch"], 2),
        "ratio": round(min(speeds.values()), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="stapes-base", help="a shipped name, a run folder or a hub id")
    parser.add_argument("--data", help="a manifest to draw utterances from; by default they are made up")
    parser.add_argument("--utterances", type=int, default=50)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments, Path(folder))
    print(json.dumps(result) if arguments.json else "\n".join(f"{name}: {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
