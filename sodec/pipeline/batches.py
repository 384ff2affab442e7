"""Work on several pictures at once: what they ask of the engine is gathered, and equal requests are computed together.

A piece of work is a generator. It yields lists of requests (`Tile`, `Window`, `Fetch`), is sent the list of their
results, and returns what it was made for. So the steps of a picture stand in one place, whether it is decoded alone or
with others.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from .. import memory
from ..errors import warn
from .engine import Engine, Tile, Window

Result = TypeVar("Result")


class Fetch(NamedTuple):
    """Asks for a canvas in the host's memory. It is copied while the device goes on with other pictures."""

    canvas: Any


Request = Tile | Window | Fetch
Work = Generator[list[Any], list[Any], Result]


class _Begun(Generic[Result]):
    """A piece of work, and its requests that have no result yet."""

    def __init__(self, number: int, work: Work[Result]) -> None:
        self.number, self.work = number, work
        self.requests: list[Any] = []
        self.results: dict[int, Any] = {}
        self.value: Result | None = None
        self.ended = False

    def proceed(self, engine: Engine) -> None:
        """On to the next requests, or to the end."""
        results = [self.results[number] for number in range(len(self.requests))]
        self.results = {}
        try:
            self.requests = self.work.send(results) if self.requests else next(self.work)
        except StopIteration as stop:
            self.requests, self.value, self.ended = [], stop.value, True
            return
        self.requests = [Fetch(engine.fetch(one.canvas)) if isinstance(one, Fetch) else one for one in self.requests]

    def open(self) -> Iterator[tuple[int, Any]]:
        """The requests without a result, by number."""
        return ((number, one) for number, one in enumerate(self.requests) if number not in self.results)


def run(engine: Engine, works: Sequence[Work[Result]], pixels: Sequence[int]) -> Iterator[tuple[int, Result]]:
    """Does all works, as many at once as suits the engine, and yields their numbers and results as they end.

    The first in order goes first, and takes those along that ask for the same. A batch for which the device's memory
    does not suffice is halved, with one warning. `pixels` says how large the pictures are.
    """
    waiting = iter(range(len(works)))
    left = len(works)
    active: list[_Begun[Result]] = []
    try:
        while left:
            with engine.running():
                begun = False
                while len(active) < left and engine.takes_more([pixels[one.number] for one in active], begun):
                    active.append(_Begun(number := next(waiting), works[number]))
                    active[-1].proceed(engine)
                    begun = True
                _advance(engine, active)
            for one in [one for one in active if one.ended]:
                active.remove(one)
                left -= 1
                yield one.number, one.value  # type: ignore[misc]  # it has ended
    finally:
        for one in active:
            one.work.close()


def alone(engine: Engine, work: Work[Result]) -> Result:
    """The result of one piece of work."""
    ((_, result),) = run(engine, [work], [0])
    return result


def _advance(engine: Engine, active: list[_Begun[Any]]) -> None:
    """Computes the requests that come first, with equal ones of other works, and takes their works on."""
    asked = [(one, number, request) for one in active for number, request in one.open()]
    if not asked:
        return
    computed = [item for item in asked if not isinstance(item[2], Fetch)]
    if not computed:  # the device has all its work, so there is time to wait for it
        one, number, request = asked[0]
        one.results[number] = engine.fetched(request.canvas)
        one.proceed(engine)
        return
    key = computed[0][2].key
    batch = [item for item in computed if item[2].key == key]
    results = _computed(engine, [item[2] for item in batch])
    for (one, number, _), result in zip(batch, results, strict=False):  # as many as were computed at once
        one.results[number] = result
    for one in dict.fromkeys(item[0] for item in batch):
        if not one.ended and not any(True for _ in one.open()):
            one.proceed(engine)


def _computed(engine: Engine, requests: Sequence[Any]) -> Sequence[Any]:
    """The results of the first of equal requests, of as many as the memory allows at once."""
    count = min(len(requests), engine.at_once(requests[0].pixels))
    count = 1 << count.bit_length() - 1  # few sizes of batches, so that CUDA graphs serve them
    while True:
        try:
            if isinstance(requests[0], Window):
                return engine.synthesise_all(requests[:count])
            with engine.stage("hyper-synthesis"):
                return engine.dequantise_all(requests[:count])
        except (MemoryError, RuntimeError) as error:
            if not memory.is_out_of_memory(error) or (count == 1 and not engine.holds_memory()):
                raise
        # Only here the tensors of what failed are gone.
        engine.give_up_memory()
        if count > 1:
            count //= 2
            if engine.limit_to(count * requests[0].pixels):
                warn("the device's memory does not suffice for batches of the usual size; smaller ones take longer")
