"""Work that a pool of threads does ahead of whoever wants its results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    do: Callable[[Item], Result], work: Iterable[Item], workers: int, threads: int, waiting: int
) -> Iterator[tuple[Item, Result]]:
    """Each item and what was done with it, in order.

    Args:
        do: what is done.
        work: the items.
        workers: how many are done at once.
        threads: of torch's, for each of them; afterwards, there are as many as before.
        waiting: how many are begun before their turn.
    """
    before = torch.get_num_threads()
    running: deque[tuple[Item, Future[Result]]] = deque()
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
            for item in work:
                running.append((item, pool.submit(do, item)))
                if len(running) > waiting:
                    first, result = running.popleft()
                    yield first, result.result()
            for first, result in running:
                yield first, result.result()
    finally:
        torch.set_num_threads(before)
