"""A trial as HTML: the pictures under a divider, what they cost, and where the time went."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image

from ..pages.divider import Layer, divider
from ..pages.render import render
from .trial import Match, Trial

# A larger picture is sent smaller: the page is for looking, the download has every pixel.
SHOWN_SIDE = 1600


def result(trial: Trial, match: Match | None) -> str:
    """The page's right-hand side."""
    shrink = -(-max(trial.decoded.size) // SHOWN_SIDE)
    width, height = trial.decoded.size
    notes = list(trial.upload.notes)
    if shrink > 1:
        notes.append(f"shown here at 1/{shrink} of its size: {-(-width // shrink)}x{-(-height // shrink)} pixels")
    if trial.decoded.alpha is not None:
        notes.append("its transparency is kept in the files, and not shown here")
    columns = [Column(f"sodec, quality {trial.quality:g}", len(trial.stream), trial.metrics)]
    if match is not None:
        columns.append(Column(f"{match.name}, quality {match.setting:g}", match.bytes, match.metrics))
    pixels = width * height
    return str(
        render(
            "trial.html",
            name=trial.upload.name,
            size=f"{width}x{height}",
            divider=divider("picture", [_reduced(layer, shrink) for layer in _layers(trial, match)]),
            columns=[column.lines(pixels, len(trial.stream)) for column in columns],
            encode=_bars(trial.encode_times),
            decode=_bars(trial.decode_times),
            notes=notes,
        )
    )


class Column:
    """One codec's figures."""

    def __init__(self, name: str, count: int, metrics: Mapping[str, float]) -> None:
        self.name, self.count, self.metrics = name, count, metrics

    def lines(self, pixels: int, ours: int) -> tuple[str, list[tuple[str, str]]]:
        """The name, and labels with values."""
        size = f"{self.count:,}" + (f" ({self.count / ours:.2f} x)" if self.count != ours else "")
        found = [("bytes", size), ("bpp", f"{8 * self.count / pixels:.4f}")]
        found.append(("of the raw pixels", f"1:{3 * pixels / self.count:.0f}"))
        return self.name, found + [(label, f"{value:.4g}") for label, value in self.metrics.items()]


def _layers(trial: Trial, match: Match | None) -> list[Layer]:
    if trial.upload.photo is None:
        assert trial.fidelity is not None
        return [Layer("fidelity picture", trial.fidelity), Layer("decoded", trial.decoded.rgb)]
    layers = [
        Layer("original", trial.upload.photo.rgb),
        Layer("sodec", trial.decoded.rgb, (f"{len(trial.stream):,} bytes",)),
    ]
    if match is not None:
        layers.append(Layer(match.name, match.decoded, (f"{match.bytes:,} bytes",)))
    return layers


def _reduced(layer: Layer, shrink: int) -> Layer:
    if shrink == 1:
        return layer
    small = np.asarray(Image.fromarray(layer.picture).reduce(shrink))
    return Layer(layer.name, small, layer.lines, layer.row)


def _bars(times: Mapping[str, float]) -> tuple[str, list[tuple[str, str, str]]] | None:
    """The total, and a line per stage: name, milliseconds, share of the longest."""
    if not times:
        return None
    longest = max(times.values())
    lines = [(name, f"{1000 * s:.0f} ms", f"{100 * s / longest:.0f}%") for name, s in times.items()]
    return f"{1000 * sum(times.values()):.0f} ms", lines
