"""Reports: a folder with rows.json, report.md, curves and the contact sheet; or one page that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from ..errors import MissingPackageError, OutputError
from ..extras import require
from ..pages.divider import Layer, divider
from ..pages.render import blocks, render
from .bdrate import bd_rate, bd_table, rate_table
from .codecs import ImageCodec
from .compare import Comparison, comparison_table, contact_sheet, level_means
from .metrics import METRICS, Metric
from .parts import Part, findings, parts_table
from .plots import curves, inline
from .run import Evaluation, Mean, Row, means, read_picture, table, write_json

RATES = (0.032, 0.05, 0.07, 0.1, 0.2, 0.3, 0.5)
# It measures a defect, not quality: a BD-rate over it says nothing.
NOT_COMPARED = ("grid",)
MODULES = {"BD-rate": "bjontegaard", "plots": "matplotlib"}


def prepare(folder: Path) -> None:
    """Creates the folder, before hours are spent. `OutputError` if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} can't be created: {error.strerror}") from None


def missing(names: Sequence[str] = tuple(MODULES)) -> dict[str, str]:
    """The parts of a report that can't be made here, each with the reason; asked before hours are spent."""
    left_out = {}
    for name in names:
        try:
            require(MODULES[name], name)
        except MissingPackageError as error:
            left_out[name] = str(error)
    return left_out


def text(result: Evaluation, parts: Sequence[Part] = ()) -> str:
    """Tables of means, of values at given rates, of BD-rates of sodec against the rest, and of the parts; markdown.

    Codecs, metrics and pictures that are missing are listed at the end, each with the reason.
    """
    rows = means(result.rows)
    names = [name for name in METRICS if any(name in row.metrics for row in rows)]
    compared = [name for name in names if name not in NOT_COMPARED]
    paragraphs = [table(rows)]
    if "BD-rate" not in result.left_out:
        paragraphs += [rate_table(rows, name, RATES) for name in compared]
        codecs = dict.fromkeys(row.codec for row in rows)
        ours, rivals = ([c for c in codecs if c.startswith("sodec") is own] for own in (True, False))
        pairs = [bd_rate(rows, own, rival, name) for name in compared for own in ours for rival in rivals]
        if pairs:
            paragraphs.append(bd_table(pairs))
    if parts:
        paragraphs.append(parts_table(parts))
        paragraphs.append("\n".join(findings(parts)) or "The full decoder wins every row.")
    paragraphs += [f"left out: {name}: {reason}" for name, reason in result.left_out.items()]
    paragraphs += [f"skipped: {name}: {reason}" for name, reason in result.skipped.items()]
    if result.skipped:
        paragraphs.append(f"{len(result.skipped)} pictures skipped")
    return "\n\n".join(paragraphs) + "\n"


def write(folder: Path, result: Evaluation, report: str) -> list[Path]:
    """rows.json, report.md and, unless plots are left out, a figure per metric."""
    files = [folder / "rows.json", folder / "report.md"]
    rows = means(result.rows)
    kodak = is_kodak(result.rows)
    try:
        write_json(files[0], result)
        files[1].write_text(report, encoding="utf-8")
        for name in METRICS:
            if "plots" not in result.left_out and any(row.metrics.get(name) is not None for row in rows):
                files += curves(rows, name, folder, kodak=kodak)
    except OSError as error:
        raise OutputError(f"{folder} can't be written: {error.strerror}") from None
    return files


def is_kodak(rows: Sequence[Row]) -> bool:
    """Whether the pictures are Kodak's 24, for which there are published figures."""
    return {Path(row.picture).stem for row in rows} == {f"kodim{number:02}" for number in range(1, 25)}


def write_sheet(
    folder: Path, pictures: Sequence[Path], codec: ImageCodec, rivals: Sequence[ImageCodec], rates: Sequence[float]
) -> Path:
    """contact-sheet.png of these pictures."""
    file = folder / "contact-sheet.png"
    sheet = contact_sheet({path.stem: read_picture(path) for path in pictures}, codec, rivals, rates)
    try:
        sheet.save(file)
    except OSError as error:
        raise OutputError(f"{file} can't be written: {error.strerror}") from None
    return file


@dataclass(frozen=True)
class Section:
    """A section of a page."""

    title: str
    text: str = ""
    divider: str = ""
    plots: tuple[str, ...] = ()
    tables: str = ""


def comparison_page(comparisons: Sequence[Comparison], metrics: Sequence[Metric], notes: Mapping[str, str]) -> str:
    """A page with a section per picture, and one of their means where there are several.

    `notes` are the codecs, metrics and pictures that are missing, each with its reason.
    """
    sections = [_picture_section(comparison, metrics) for comparison in comparisons]
    if len(comparisons) > 1:
        rows = level_means(comparisons)
        text = f"Means of {len(comparisons)} pictures. A setting is the quality of sodec that a codec was matched to."
        sections.append(Section("Means", text, plots=_plots(rows), tables=blocks(table(rows))))
    if notes:
        sections.append(_missing(notes))
    names = ", ".join(dict.fromkeys(v.row.codec for c in comparisons for level in c.levels for v in level))
    summary = (
        f"{_count(len(comparisons), 'picture')} by {names}; each codec at the setting whose file is nearest to sodec's "
        "in bytes. Bytes and figures are of whole pictures; times are single runs on the machine that made this page."
    )
    return _page("sodec compare", summary, sections)


def evaluation_page(result: Evaluation, report: str, comparisons: Sequence[Comparison]) -> str:
    """A page with the curves, the tables of `report` (see `text`), and a section for each picture of `comparisons`."""
    rows = means(result.rows)
    count = len({row.picture for row in result.rows})
    metrics = [metric for metric in METRICS.values() if any(metric.name in row.metrics for row in rows)]
    sections = [Section("Curves", plots=_plots(rows, is_kodak(result.rows))), Section("Tables", tables=blocks(report))]
    sections += [_picture_section(comparison, metrics) for comparison in comparisons]
    names = ", ".join(dict.fromkeys(row.codec for row in rows))
    summary = (
        f"{_count(count, 'picture')} by {names}: means over all pictures, "
        f"and {_count(len(comparisons), 'picture')} to look at, each codec near sodec in bytes."
    )
    return _page("sodec eval", summary, sections)


def _page(title: str, summary: str, sections: Sequence[Section]) -> str:
    return str(render("report.html", title=title, summary=summary, sections=sections))


def _picture_section(comparison: Comparison, metrics: Sequence[Metric]) -> Section:
    layers = [Layer("original", comparison.shown)]
    for number, level in enumerate(comparison.levels):
        for version in level:
            row = version.row
            lines = [f"{row.bytes:,} bytes", f"{row.bpp:.3f} bpp"]
            if version is not level[0]:
                lines.insert(1, f"{row.bytes / level[0].row.bytes:.2f} x sodec's")
            if (decibels := row.metrics.get("psnr")) is not None:
                lines.append(f"{decibels:.2f} dB")
            layers.append(Layer(f"{row.codec}, {row.setting:g}", version.shown, tuple(lines), number))
    width, height = comparison.size
    text = f"{width}x{height} pixels."
    if comparison.cropped:
        text += f" Shown: the middle {comparison.shown.shape[1]}x{comparison.shown.shape[0]}."
    plots = _plots(level_means([comparison])) if len(comparison.levels) > 1 else ()
    return Section(
        comparison.name, text, divider(comparison.name, layers), plots, blocks(comparison_table(comparison, metrics))
    )


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
