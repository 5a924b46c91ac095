"""How long does it take to change the rate of a sound, beside `scipy.signal.resample_poly` with the same filter?

    python benchmarks/resample.py [--seconds 10] [--repeat 20] [--json]

Both on one thread, one after the other, on the same noise; the median of the repetitions, after one that is not counted. Files
that are not at 16 kHz go through it, and all speech that is trained on with `data.speed`. `ratio` is the
geometric mean over the rates.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable

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


def milliseconds(change: Callable[[], np.ndarray], repeat: int) -> float:
    """The median of some runs, after one that is not counted."""
    times = []
    for _ in range(repeat + 1):
        started = time.perf_counter()
        change()
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times[1:])


def measure(seconds: float, repeat: int) -> dict[str, object]:
    """Every rate, ours and SciPy's, and how far they are apart."""
    torch.set_num_threads(1)
    found: dict[str, dict[str, float]] = {}
    for name, (down, up) in RATES.items():
        count = round(seconds * 16_000 * down / up)
        samples = np.random.default_rng(0).standard_normal(count).astype(np.float32)
        taps = firwin(100 * max(up, down) + 1, 0.95 / max(up, down), window=("kaiser", kaiser_beta(80.0))).astype(np.float32)
        ours = milliseconds(lambda: resample(samples, down, up), repeat)  # noqa: B023
        scipys = milliseconds(lambda: resample_poly(samples, up, down, window=taps), repeat)  # noqa: B023
        apart = float(np.abs(resample(samples, down, up) - resample_poly(samples, up, down, window=taps)).max())
        found[name] = {
            "ours_ms": round(ours, 2),
            "scipy_ms": round(scipys, 2),
            "ratio": round(scipys / ours, 1),
            "apart": apart,
        }
    ratio = math.exp(statistics.mean(math.log(each["scipy_ms"] / each["ours_ms"]) for each in found.values()))
    return {"seconds": seconds, "rates": found, "ratio": round(ratio, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of sound at 16 kHz")
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    result = measure(arguments.seconds, arguments.repeat)
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
