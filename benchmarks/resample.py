"""How long does it take to change the rate of a sound, beside `scipy.signal.resample_poly` with the same filter?

    python benchmarks/resample.py [--seconds 10] [--sounds 30] [--json]

Both on one thread, one after the other, on the same sounds, no two of one length, as utterances are; each is met once. Files
that are not at 16 kHz go through it, and all speech that is trained on with `data.speed`. `ratio` is the geometric mean over
the rates.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from scipy.signal import firwin, kaiser_beta, resample_poly

from stapes.audio import resample

RATES = {
    "48 kHz": (3, 1),
    "44.1 kHz": (441, 160),
    "24 kHz": (3, 2),
    "8 kHz": (1, 2),
    "speed 0.9": (9, 10),
    "speed 1.1": (11, 10),
}


def milliseconds(change: Callable[[np.ndarray], np.ndarray], sounds: Sequence[np.ndarray]) -> float:
    """The median over some sounds, after one that is not counted."""
    times = []
    for samples in sounds:
        started = time.perf_counter()
        change(samples)
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times[1:])


def measure(seconds: float, count: int) -> dict[str, object]:
    """Every rate, ours and SciPy's, and how far they are apart."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    found: dict[str, dict[str, float]] = {}
    for name, (down, up) in RATES.items():
        lengths = np.linspace(0.9, 1.1, count + 1) * seconds * 16_000 * down / up
        sounds = [rng.standard_normal(round(length)).astype(np.float32) for length in rng.permutation(lengths)]
        taps = firwin(100 * max(up, down) + 1, 0.95 / max(up, down), window=("kaiser", kaiser_beta(80.0))).astype(np.float32)
        changes = partial(resample, rate=down, to_rate=up), partial(resample_poly, up=up, down=down, window=taps)
        ours, scipys = (milliseconds(change, sounds) for change in changes)
        apart = float(np.abs(changes[0](sounds[0]) - changes[1](sounds[0])).max())
        found[name] = {
            "ours_ms": round(ours, 2),
            "scipy_ms": round(scipys, 2),
            "ratio": round(scipys / ours, 1),
            "apart": apart,
        }
    mean = math.exp(statistics.mean(math.log(each["scipy_ms"] / each["ours_ms"]) for each in found.values()))
    return {"seconds": seconds, "rates": found, "ratio": round(mean, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long they are, within a tenth")
    parser.add_argument("--sounds", type=int, default=30)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    result = measure(arguments.seconds, arguments.sounds)
    if arguments.json:
        print(json.dumps(result))
        return
    for name, found in result["rates"].items():  # type: ignore[attr-defined]
        print(
            f"{name:10} {found['scipy_ms']:7.2f} ms SciPy {found['ours_ms']:7.2f} ms ours, {found['ratio']:5.1f} times as fast"
        )
    print(f"ratio {result['ratio']}")


if __name__ == "__main__":
    main()
