"""A bounded queue between two threads of the pipeline, which either side can break off."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class ChannelBrokenError(Exception):
    """The other side broke the channel off; the cause is raised elsewhere."""


class Channel(Generic[Item]):
    """At most ``capacity`` items on their way from one producer to one consumer.

    ``close`` is the producer's normal end, after which the consumer's iteration ends; ``abort`` breaks it off for
    both. ``waited_to_put_s`` and ``waited_to_get_s`` tell which side holds the other up.
    """

    def __init__(self, capacity: int) -> None:
        self._items: deque[Item] = deque()
        self._capacity = capacity
        self._changed = threading.Condition()
        self._closed = self._aborted = False
        self.waited_to_put_s = self.waited_to_get_s = 0.0

    def put(self, item: Item) -> None:
        """Hand over ``item``, waiting while the channel is full; raises `ChannelBrokenError` once aborted."""
        started = time.perf_counter()
        with self._changed:
            while len(self._items) >= self._capacity and not self._aborted:
                self._changed.wait()
            self.waited_to_put_s += time.perf_counter() - started
            if self._aborted:
                raise ChannelBrokenError
            self._items.append(item)
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        while True:
            started = time.perf_counter()
            with self._changed:
                while not self._items and not self._closed and not self._aborted:
                    self._changed.wait()
                self.waited_to_get_s += time.perf_counter() - started
                if self._aborted:
                    raise ChannelBrokenError
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item

    def close(self) -> None:
        """No more items will come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abort(self) -> None:
        """Break off: both sides get `ChannelBrokenError`, and items on their way are dropped."""
        with self._changed:
            self._aborted = True
            self._items.clear()
            self._changed.notify_all()
