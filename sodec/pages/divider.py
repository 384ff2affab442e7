"""Pictures under one divider: left of it one is seen, right of it another, and each one's details in a strip below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from .render import picture_uri, render


@dataclass(frozen=True, eq=False)
class Layer:
    """One of the pictures."""

    name: str
    picture: np.ndarray  # uint8 (H, W, 3), all of a divider of one size
    lines: tuple[str, ...] = ()  # below it in the strip
    row: int = 0  # of the strip; the first layer is repeated in front of each


def divider(name: str, layers: Sequence[Layer]) -> Markup:
    """The first two layers under the divider, any others to choose; below, the details of all, side by side.

    Moved by mouse, touch and keyboard where the page has `style()` and `script()`. The strip shows, pixel by pixel,
    what lies around the divider. `name` tells dividers of one page apart; one that is replaced under the same name
    stays where it was.
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
    """The JavaScript of every divider of a page, those that come later too."""
    return render("divider.js")
