"""Two pictures with a divider to drag: one is seen left of it, the other right of it, with details in a strip below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from .render import picture_uri, render


@dataclass(frozen=True, eq=False)
class Layer:
    """One of the pictures of a divider."""

    name: str
    picture: np.ndarray  # uint8 (H, W, 3); all layers of a divider have the same size
    lines: tuple[str, ...] = ()  # text below it in the strip
    row: int = 0  # row of the strip; each row begins with the first layer


def divider(name: str, layers: Sequence[Layer]) -> Markup:
    """The first two layers on both sides of the divider, others to choose from, and below them the strip.

    The divider moves by mouse, touch and keyboard where the page has `style()` and `script()`. The strip shows what
    lies around the divider, pixel by pixel, of all layers side by side. `name` must be unique on the page; a divider
    that is replaced by one of the same name keeps its position.
    """
    first, *others = layers
    height, width = first.picture.shape[:2]
    rows = [[layer for layer in others if layer.row == row] for row in sorted({layer.row for layer in others})]
    return render(
        "divider.html",
        name=name,
        layers=layers,
        uris=[picture_uri(layer.picture) for layer in layers],
        rows=[[0, *(layers.index(layer) for layer in row)] for row in rows],
        width=width,
        height=height,
    )


def style() -> Markup:
    """The CSS of every divider of a page."""
    return render("divider.css")


def script() -> Markup:
    """The JavaScript of every divider of a page, also of those that are added later."""
    return render("divider.js")
