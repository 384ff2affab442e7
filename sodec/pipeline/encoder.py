"""A picture to a stream: tile by tile, at one quality or at the finest point that fits a size."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from ..picture import Picture
from ..stream import container, sections
from ..stream.container import Stream
from . import rate, tiles
from .engine import Coefficients, Engine
from .threads import mapped
from .tiles import Box

Progress = Callable[[float], None]


def encode(
    engine: Engine,
    fingerprint: bytes,
    picture: Picture,
    quality: float | None,
    max_bytes: int | None = None,
    progress: Progress | None = None,
) -> bytes:
    """The stream of a picture at `quality`, or else the finest that takes at most `max_bytes` bytes."""
    width, height = picture.size
    engine.check_encoding(width, height, transparent=picture.alpha is not None, keeps_y=quality is None)
    packed = sections.pack(picture.alpha, picture.metadata)
    boxes = list(tiles.grid(width, height))

    def stream(point: rate.Point, coefficients: Iterator[Coefficients] | list[Coefficients]) -> bytes:
        # Where stages are timed they follow one another, since times of threads would not add up.
        threads = engine.coders if engine.times is None and len(boxes) > 1 else 0
        payloads = tuple(mapped(lambda one: engine.encode(one, *point), coefficients, threads))
        with engine.stage("container"):
            made = Stream(width, height, point.quality, fingerprint, payloads, picture.grey)
            return container.assemble(made, packed)

    # At a given quality a tile's coefficients are gone once it is coded; for a target all are kept, since each pass
    # needs them: 1 byte per pixel with the lite model in bfloat16, 2 in float32, where the picture itself takes 3.
    coefficients = _coefficients(engine, picture, boxes, progress)
    if quality is not None:
        return stream(rate.Point(quality), coefficients)
    assert max_bytes is not None
    kept = list(coefficients)
    return rate.largest_within(max_bytes, lambda point: stream(point, kept), len, _note_on_sections(packed))


def _note_on_sections(packed: sections.Packed) -> str:
    """What a target's error says of the bytes that no quality changes."""
    sizes = {sections.name_of(key >> 1): len(body) for key, body in packed}
    listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
    advice = "; flatten= (--flatten) drops alpha" if "alpha" in sizes else ""
    return f" (of which {listed}{advice})" if sizes else ""


def _coefficients(
    engine: Engine, picture: Picture, boxes: Sequence[Box], progress: Progress | None
) -> Iterator[Coefficients]:  # fmt: skip
    """Those of every tile; with threads to code them, the device gets the next tile before one is waited for."""
    begun: deque[Coefficients] = deque()
    left = iter(boxes)
    for number in range(1, len(boxes) + 1):
        for box in itertools.islice(left, 1 + bool(engine.coders) - len(begun)):
            begun.append(engine.begin_analysis(picture.rgb, box))
        yield engine.analysed(begun.popleft())
        if progress:
            progress(number / len(boxes))
