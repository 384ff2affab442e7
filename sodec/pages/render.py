"""Templates to HTML, pictures to data URIs, tables of our markdown to HTML tables."""

from __future__ import annotations

import base64
import functools
import io
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image


def render(template: str, **values: Any) -> Markup:
    """The text of a template of this folder; every value is escaped unless it is `Markup`."""
    return Markup(_environment().get_template(template).render(**values))


def data_uri(data: bytes, kind: str) -> str:
    """`data` as a data URI; `kind` is its media type."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def picture_uri(picture: np.ndarray) -> str:
    """A picture, uint8 (H, W, 3), as a data URI of lossless WebP, so that a page shows only what a codec did to it."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "WEBP", lossless=True, quality=20, method=1)
    return data_uri(buffer.getvalue(), "image/webp")


def blocks(text: str) -> Markup:
    """Tables and paragraphs of a report's markdown, as `sodec.evaluate.report.text` writes it, in HTML."""
    parts = [part.splitlines() for part in text.split("\n\n") if part.strip()]
    return render("blocks.html", blocks=[_table(lines) or "\n".join(lines) for lines in parts])


def _table(lines: list[str]) -> list[list[str]] | None:
    """The rows of cells of a markdown table, the head first; None if it is not one."""
    if not all(line.startswith("|") for line in lines):
        return None
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [rows[0], *rows[2:]]


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
