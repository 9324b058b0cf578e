"""The bounded queue between two threads."""

from __future__ import annotations

import threading
import time

import pytest

from archivecolor.colorize.channel import Channel, ChannelBrokenError


def test_items_arrive_in_order_and_iteration_ends_on_close() -> None:
    channel: Channel[int] = Channel(2)

    def produce() -> None:
        for i in range(50):
            channel.put(i)
        channel.close()

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    assert list(channel) == list(range(50))
    thread.join(5)
    assert not thread.is_alive()


def test_put_waits_while_full() -> None:
    channel: Channel[int] = Channel(1)
    channel.put(1)
    second_is_in = threading.Event()

    def put_second() -> None:
        channel.put(2)
        second_is_in.set()

    thread = threading.Thread(target=put_second, daemon=True)
    thread.start()
    assert not second_is_in.wait(0.1)
    items = iter(channel)
    assert next(items) == 1
    assert second_is_in.wait(5)
    assert next(items) == 2
    assert channel.waited_to_put_s >= 0.1
    thread.join(5)
    assert not thread.is_alive()


def test_abort_frees_both_sides() -> None:
    full: Channel[int] = Channel(1)
    full.put(1)
    empty: Channel[int] = Channel(1)
    caught: list[str] = []

    def blocked(work: object, name: str) -> None:
        try:
            work()  # type: ignore[operator]
        except ChannelBrokenError:
            caught.append(name)

    threads = [
        threading.Thread(target=blocked, args=(lambda: full.put(2), "producer"), daemon=True),
        threading.Thread(target=blocked, args=(lambda: next(iter(empty)), "consumer"), daemon=True),
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    full.abort()
    empty.abort()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert sorted(caught) == ["consumer", "producer"]
    with pytest.raises(ChannelBrokenError):
        full.put(3)
