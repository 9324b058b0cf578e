"""Threads that work side by side on a sequence of items, without losing its order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

import cv2
import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """``count`` threads, of which each computes on one core; use as a context manager.

    The threads of torch and of OpenCV share out every single operation and wait for each other after it, busily, on
    cores that the decoder and the encoder need. Threads that each take whole batches wait for nobody. While these are
    at work, both have a thread count of 1 in the whole process.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._torch_threads, self._cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
        cv2.setNumThreads(1)
        self._pool = ThreadPoolExecutor(count, "worker", initializer=torch.set_num_threads, initargs=(1,))

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._torch_threads)
        cv2.setNumThreads(self._cv2_threads)

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """``work`` of each item, in order, each once it is done; at most ``count`` items are taken ahead of it."""
        under_way: deque[Future[Result]] = deque()
        for item in items:
            under_way.append(self._pool.submit(work, item))
            if len(under_way) > self.count or under_way[0].done():
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
