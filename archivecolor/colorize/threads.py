"""Decode, colour and encode at the same time, in three threads.

    reader      the film's reader -> batches of luma frames
    colourist   Colourist, in as many threads as there are cores: luma -> L -> ab -> planes
    writer      planes -> the sink

The channels between them are bounded, so memory does not grow with the film. An error in any of them breaks the
others off and is raised in the calling thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from archivecolor.colorize.channel import Channel, ChannelBrokenError
from archivecolor.colorize.progress import Progress, Stage
from archivecolor.colorize.stages import Batch
from archivecolor.film import LumaFrame, ReadReport, SidePacket

_WORK_ITEMS_UNDER_WAY = 2


class Source(Protocol):
    """Where frames come from."""

    @property
    def report(self) -> ReadReport:
        """What reading has met so far."""

    def __iter__(self) -> Iterator[LumaFrame | SidePacket]: ...


class Sink(Protocol):
    """Where finished batches go."""

    @property
    def frames(self) -> int:
        """How many it has."""

    def take(self, batch: Batch) -> bool:
        """Write the next batch; whether more are wanted."""


def run_stages(
    reader: Source,
    sink: Sink,
    colour: Callable[[Iterable[Batch]], Iterator[Batch]],
    *,
    batch_size: int,
    first_batch_size: int | None = None,
    progress: Progress,
    total: int | None,
) -> Stage:
    """Drive the three threads until the film's end; returns the stage that limited the speed.

    ``colour`` is given batches with their frames and gives them back, in order, with their planes. A
    ``first_batch_size`` keeps later batches in step with those of an earlier run. The calling thread only waits, so
    that an interrupt finds it holding no lock.
    """
    decoded: Channel[Batch] = Channel(_WORK_ITEMS_UNDER_WAY)
    coloured: Channel[Batch] = Channel(_WORK_ITEMS_UNDER_WAY)
    failures: list[BaseException] = []

    def guarded(work: Callable[[], None], finished: threading.Event) -> None:
        try:
            work()
        except ChannelBrokenError:
            pass  # another thread failed first; its own error is in failures
        except BaseException as error:
            failures.append(error)
            decoded.abort()
            coloured.abort()
        finally:
            finished.set()

    def read() -> None:
        for batch in _batches(reader, batch_size, first_batch_size or batch_size):
            decoded.put(batch)
        decoded.close()

    def limiting() -> Stage:
        if decoded.waited_to_get_s > coloured.waited_to_put_s:
            return "decoding" if decoded.waited_to_get_s > coloured.waited_to_get_s else "colouring"
        return "encoding" if coloured.waited_to_put_s > coloured.waited_to_get_s else "colouring"

    def make_planes() -> None:
        for batch in colour(decoded):
            coloured.put(batch)
        coloured.close()

    def write() -> None:
        for batch in coloured:
            wants_more = sink.take(batch)
            progress.update(sink.frames, total, limiting())
            if not wants_more:
                decoded.abort()
                coloured.abort()
                break

    progress.update(sink.frames, total, limiting())
    started: list[tuple[threading.Thread, threading.Event]] = []
    try:
        for name, work in (("reader", read), ("colourist", make_planes), ("writer", write)):
            finished = threading.Event()
            thread = threading.Thread(target=guarded, args=(work, finished), name=name, daemon=True)
            started.append((thread, finished))
            thread.start()
        for _, finished in started:
            finished.wait()
    finally:
        # Reached with a thread at work only by an interrupt; the files that it uses must not be closed under it.
        decoded.abort()
        coloured.abort()
        _wait_for(started)
    if failures:
        raise failures[0]
    return limiting()


def _wait_for(started: list[tuple[threading.Thread, threading.Event]]) -> None:
    """Wait for threads whatever interrupts come; they end soon once their channels are broken off.

    An interrupt may have struck while a thread was being started, when ``is_alive`` is not to be trusted yet; a
    second later it is.
    """
    for thread, finished in started:
        while True:
            try:
                if finished.wait(1) or not thread.is_alive():
                    break
            except KeyboardInterrupt:
                continue


def _batches(reader: Source, size: int, first_size: int) -> Iterator[Batch]:
    """Group the reader's frames into work items of at most ``size``; packets of sound and the like are not for here."""
    batch, wanted = Batch(), first_size
    for item in reader:
        if not isinstance(item, LumaFrame):
            continue
        batch.frames.append(item)
        batch.counts.append(reader.report.counts())
        if len(batch.frames) == wanted:
            yield batch
            batch, wanted = Batch(), size
    if batch.frames:
        yield batch
