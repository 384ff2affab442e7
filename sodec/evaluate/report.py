"""One folder per evaluation: rows.json, report.md, curves and the contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import OutputError
from .bdrate import bd_rate, bd_table, rate_table
from .codecs import ImageCodec
from .metrics import METRICS
from .optional import MissingPackageError, require
from .parts import Part, findings, parts_table
from .plots import curves
from .run import Evaluation, Row, means, table, write_json
from .sheet import contact_sheet

RATES = (0.032, 0.05, 0.07, 0.1, 0.2, 0.3, 0.5)
# A measure of defects, not of quality: BD-rate over it says nothing.
NOT_COMPARED = ("grid",)
MODULES = {"BD-rate": "bjontegaard", "plots": "matplotlib"}


def prepare(folder: Path) -> None:
    """Makes the folder before hours are spent. `OutputError` where that can't be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} can't be made: {error.strerror}") from None


def missing(names: Sequence[str] = tuple(MODULES)) -> dict[str, str]:
    """What a report must do without here, of what it would have, and why: known before hours are spent."""
    left_out = {}
    for name in names:
        try:
            require(MODULES[name], name)
        except MissingPackageError as error:
            left_out[name] = str(error)
    return left_out


def text(result: Evaluation, parts: Sequence[Part] = ()) -> str:
    """Tables of means, of values at given rates, of BD-rates of sodec against the rest, and of the parts; markdown.

    What was left out or skipped is said at the end, by name.
    """
    rows = means(result.rows)
    names = [name for name in METRICS if any(name in row.metrics for row in rows)]
    compared = [name for name in names if name not in NOT_COMPARED]
    blocks = [table(rows)]
    if "BD-rate" not in result.left_out:
        blocks += [rate_table(rows, name, RATES) for name in compared]
        codecs = dict.fromkeys(row.codec for row in rows)
        ours, rivals = ([c for c in codecs if c.startswith("sodec") is own] for own in (True, False))
        pairs = [bd_rate(rows, own, rival, name) for name in compared for own in ours for rival in rivals]
        if pairs:
            blocks.append(bd_table(pairs))
    if parts:
        blocks.append(parts_table(parts))
        blocks.append("\n".join(findings(parts)) or "The full decoder wins every row.")
    blocks += [f"left out: {name}: {reason}" for name, reason in result.left_out.items()]
    blocks += [f"skipped: {name}: {reason}" for name, reason in result.skipped.items()]
    if result.skipped:
        blocks.append(f"{len(result.skipped)} pictures skipped")
    return "\n\n".join(blocks) + "\n"


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
    from .run import read_picture

    file = folder / "contact-sheet.png"
    sheet = contact_sheet({path.stem: read_picture(path) for path in pictures}, codec, rivals, rates)
    try:
        sheet.save(file)
    except OSError as error:
        raise OutputError(f"{file} can't be written: {error.strerror}") from None
    return file
