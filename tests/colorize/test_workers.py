"""Working side by side."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import cv2
import pytest
import torch

from archivecolor.colorize.workers import Workers


def test_results_come_in_the_order_of_the_items() -> None:
    def work(number: int) -> int:
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number * number

    with Workers(3) as workers:
        assert list(workers.map(work, range(20))) == [n * n for n in range(20)]


def test_items_are_worked_on_side_by_side() -> None:
    both = threading.Barrier(2, timeout=10)
    with Workers(2) as workers:
        list(workers.map(lambda _: both.wait(), range(4)))


def test_only_a_few_items_are_taken_ahead() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            yield number

    with Workers(2) as workers:
        results = workers.map(lambda n: n, items())
        assert next(results) == 0
        assert len(taken) <= 3


def test_each_thread_computes_alone_and_the_setting_comes_back() -> None:
    def threads(_: int = 0) -> tuple[int, int]:
        return torch.get_num_threads(), cv2.getNumThreads()

    before = threads()
    with Workers(2) as workers:
        assert list(workers.map(threads, range(4))) == [(1, 1)] * 4
    assert threads() == before


def test_an_error_is_raised_where_its_result_would_be() -> None:
    def work(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    with Workers(2) as workers:
        results = workers.map(work, range(5))
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(ValueError, match="two"):
            next(results)
