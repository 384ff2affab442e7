"""Comparisons and whole evaluations as one page that needs no network: `sodec compare` and `sodec eval --html`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from ..pages.divider import Layer, divider
from ..pages.render import blocks, render
from .compare import Comparison, level_means, table
from .metrics import METRICS, Metric
from .optional import MissingPackageError
from .plots import inline
from .report import is_kodak
from .run import Mean, means
from .run import table as means_table

if TYPE_CHECKING:
    from .run import Evaluation


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading of its own."""

    title: str
    text: str = ""
    divider: str = ""
    plots: tuple[str, ...] = ()
    tables: str = ""


def comparison_page(comparisons: Sequence[Comparison], metrics: Sequence[Metric], notes: Mapping[str, str]) -> str:
    """A section per picture, and one of their means where there are several.

    `notes` are the codecs, metrics and pictures that are missing, each with its reason.
    """
    sections = [_picture_section(one, metrics) for one in comparisons]
    if len(comparisons) > 1:
        rows = level_means(comparisons)
        text = f"Means of {len(comparisons)} pictures. A setting is the quality of sodec that a codec was matched to."
        sections.append(Section("Means", text, plots=_plots(rows), tables=blocks(means_table(rows))))
    if notes:
        sections.append(_missing(notes))
    names = ", ".join(dict.fromkeys(v.row.codec for one in comparisons for level in one.levels for v in level))
    summary = (
        f"{_count(len(comparisons), 'picture')} by {names}; each codec at the setting whose file is nearest to sodec's "
        "in bytes. Bytes and figures are of whole pictures; times are single runs on the machine that made this page."
    )
    return _page("sodec compare", summary, sections)


def evaluation_page(result: Evaluation, text: str, comparisons: Sequence[Comparison]) -> str:
    """The curves, the tables of `text` (`report.text` makes it), and a section for each picture of `comparisons`."""
    rows = means(result.rows)
    count = len({row.picture for row in result.rows})
    metrics = [metric for metric in METRICS.values() if any(metric.name in row.metrics for row in rows)]
    sections = [Section("Curves", plots=_plots(rows, is_kodak(result.rows))), Section("Tables", tables=blocks(text))]
    sections += [_picture_section(one, metrics) for one in comparisons]
    names = ", ".join(dict.fromkeys(row.codec for row in rows))
    summary = (
        f"{_count(count, 'picture')} by {names}: means over all pictures, "
        f"and {_count(len(comparisons), 'picture')} to look at, each codec near sodec in bytes."
    )
    return _page("sodec eval", summary, sections)


def _page(title: str, summary: str, sections: Sequence[Section]) -> str:
    return str(render("report.html", title=title, summary=summary, sections=sections))


def _picture_section(one: Comparison, metrics: Sequence[Metric]) -> Section:
    layers = [Layer("original", one.shown)]
    for number, level in enumerate(one.levels):
        for version in level:
            row = version.row
            lines = [f"{row.bytes:,} bytes", f"{row.bpp:.3f} bpp"]
            if version is not level[0]:
                lines.insert(1, f"{row.bytes / level[0].row.bytes:.2f} x sodec's")
            if (decibels := row.metrics.get("psnr")) is not None:
                lines.append(f"{decibels:.2f} dB")
            layers.append(Layer(f"{row.codec}, {row.setting:g}", version.shown, tuple(lines), number))
    width, height = one.size
    text = f"{width}x{height} pixels."
    if one.cropped:
        text += f" Shown: the middle {one.shown.shape[1]}x{one.shown.shape[0]}."
    plots = _plots(level_means([one])) if len(one.levels) > 1 else ()
    return Section(one.name, text, divider(one.name, layers), plots, blocks(table(one, metrics)))


def _plots(rows: Sequence[Mean], kodak: bool = False) -> tuple[str, ...]:
    """A plot per metric that any row has; none without matplotlib."""
    names = [name for name in METRICS if any(row.metrics.get(name) is not None for row in rows)]
    try:
        return tuple(Markup(inline(rows, name, kodak=kodak)) for name in names)
    except MissingPackageError:
        return ()


def _missing(notes: Mapping[str, str]) -> Section:
    return Section("Left out", tables=blocks("\n\n".join(f"{name}: {reason}" for name, reason in notes.items())))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
