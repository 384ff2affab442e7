"""Threads that code beside the device. They are kept: to start one takes 0.1 ms, and each picture needs several."""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Of the whole process. What runs in it may not wait for anything else that does."""
    return ThreadPoolExecutor(thread_name_prefix="sodec")


class Tasks:
    """What one call gives to the threads: as a context it leaves none of that running."""

    def __init__(self) -> None:
        self._left: set[Future[Any]] = set()  # without those that have ended, whose results may be large

    def __enter__(self) -> Tasks:
        return self

    def __exit__(self, *_: object) -> None:
        wait([task for task in list(self._left) if not task.cancel()])

    def submit(self, function: Callable[..., Value], *arguments: Any) -> Future[Value]:
        """Calls the function in one of the threads."""
        task = _pool().submit(function, *arguments)
        self._left.add(task)
        task.add_done_callback(self._left.discard)
        return task


def mapped(function: Callable[[Item], Value], items: Iterable[Item], threads: int) -> Iterator[Value]:
    """The function's value of every item, in order, with as many calls at once as `threads`; 0 is without threads."""
    if not threads:
        yield from map(function, items)
        return
    left = iter(items)
    with Tasks() as tasks:
        begun = deque(tasks.submit(function, item) for item in itertools.islice(left, threads))
        while begun:
            yield begun.popleft().result()
            begun.extend(tasks.submit(function, item) for item in itertools.islice(left, 1))
