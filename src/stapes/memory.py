"""Let the C allocator keep its memory between the steps of a run on CPU.

By default glibc gives every large block back to the kernel, which hands it out again page by page, zeroed: with tensors of tens
of megabytes, a training step can spend more time on that than on arithmetic (docs/results.md, "Speed").
"""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8  # parameters of mallopt(3)


def keep() -> bool:
    """Ask glibc to serve large blocks from a heap that never shrinks; false where there is no glibc to ask."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return False
    wanted = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 2**26, ARENA_MAX: 1}
    return all(libc.mallopt(parameter, value) == 1 for parameter, value in wanted.items())
