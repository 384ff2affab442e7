"""Measures every codec at every setting on every picture: rows, their means, tables and JSON."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from ..errors import SodecError, UnsupportedPictureError
from .codecs import ImageCodec
from .metrics import METRICS, Array, Metric


@dataclass(frozen=True)
class Row:
    """One picture coded by one codec at one setting."""

    picture: str
    codec: str
    setting: float
    width: int
    height: int
    bytes: int
    bpp: float
    encode_s: float
    decode_s: float
    metrics: dict[str, float | None]  # None where the picture is too small for the metric


@dataclass(frozen=True)
class Mean:
    """Means over the pictures of one codec and setting. `bpp` is the mean of bits per pixel, as in papers."""

    codec: str
    setting: float
    pictures: int
    bytes: float
    bpp: float
    encode_s: float
    decode_s: float
    metrics: dict[str, float | None]


@dataclass
class Evaluation:
    """The rows, and what is missing from them, with the reason."""

    rows: list[Row] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)  # pictures, by name
    left_out: dict[str, str] = field(default_factory=dict)  # metrics and codecs, by name


def find_pictures(paths: Iterable[str | Path]) -> list[Path]:
    """The given files, and the pictures directly inside given folders, by suffix and in the order of their names.

    Raises
    ------
    UnsupportedPictureError
        There is none, or a path does not exist.
    """
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    given = [Path(path) for path in paths]
    pictures: list[Path] = []
    for path in given:
        if path.is_dir():
            pictures += sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes and p.is_file())
        elif path.is_file():
            pictures.append(path)
        else:
            raise UnsupportedPictureError(f"{path} does not exist")
    if not pictures:
        raise UnsupportedPictureError(f"no pictures found in {', '.join(map(str, given)) or 'nothing'}")
    return pictures


def read_picture(path: Path) -> Array:
    """uint8 (H, W, 3) as sodec reads it, without alpha. Raises `UnsupportedPictureError`."""
    from ..picture import load

    with warnings.catch_warnings():
        # Every codec gets the converted picture, so a warning of the conversion would not matter.
        warnings.simplefilter("ignore", UserWarning)
        try:
            rgb: Array = load(path).rgb
        except OSError as error:
            raise UnsupportedPictureError(f"{path} can't be read: {error}") from None
    return rgb


def evaluate(
    codecs: Sequence[ImageCodec], pictures: Sequence[Path], metrics: Sequence[Metric], *, progress: bool = True
) -> Evaluation:
    """Encodes, decodes and measures every picture with every codec at each of its settings, one after the other.

    A picture that can't be read, or that a codec fails on, is skipped for all codecs, so that means stay over the
    same pictures; it is named in `skipped`.

    Raises
    ------
    UnsupportedPictureError
        Every picture was skipped.
    """
    result = Evaluation()
    total = len(pictures) * sum(len(codec.settings) for codec in codecs)
    with tqdm(total=total, unit="coding", disable=not progress) as bar:
        for path in pictures:
            before = bar.n
            try:
                picture = read_picture(path)
                if not result.rows:
                    _warm_up(codecs, picture)
                rows = []
                for codec in codecs:
                    for setting in codec.settings:
                        bar.set_postfix_str(f"{path.name} {codec.name} {setting:g}")
                        rows.append(measure(codec, setting, picture, path.name, metrics))
                        bar.update()
                result.rows += rows
            except (SodecError, OSError, ValueError) as error:
                result.skipped[str(path)] = str(error)
                bar.update(before + total // len(pictures) - bar.n)
    if pictures and not result.rows:
        reason = next(iter(result.skipped.values()))
        raise UnsupportedPictureError(f"none of {len(pictures)} pictures could be evaluated; the first: {reason}")
    return result


def measure(codec: ImageCodec, setting: float, picture: Array, name: str, metrics: Sequence[Metric]) -> Row:
    """Codes one picture (H, W, 3) once. The times are those of the codec alone."""
    return measure_and_keep(codec, setting, picture, name, metrics)[0]


def measure_and_keep(
    codec: ImageCodec, setting: float, picture: Array, name: str, metrics: Sequence[Metric]
) -> tuple[Row, Array]:
    """The row of `measure`, and the decoded picture."""
    start = time.perf_counter()
    data = codec.encode(picture, setting)
    encoded = time.perf_counter()
    decoded = codec.decode(data)
    end = time.perf_counter()
    height, width = picture.shape[:2]
    row = Row(
        name,
        codec.name,
        setting,
        width,
        height,
        len(data),
        8 * len(data) / (width * height),
        encoded - start,
        end - encoded,
        {metric.name: metric.function(picture, decoded) for metric in metrics},
    )
    return row, decoded


def means(rows: Sequence[Row]) -> list[Mean]:
    """Mean rows by codec and setting, in the order in which they first appear."""
    groups: dict[tuple[str, float], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.codec, row.setting].append(row)
    return [
        Mean(
            codec,
            setting,
            len(group),
            _mean(row.bytes for row in group) or 0.0,
            _mean(row.bpp for row in group) or 0.0,
            _mean(row.encode_s for row in group) or 0.0,
            _mean(row.decode_s for row in group) or 0.0,
            {name: _mean(row.metrics[name] for row in group) for name in group[0].metrics},
        )
        for (codec, setting), group in groups.items()
    ]


def table(rows: Sequence[Mean]) -> str:
    """The means as a markdown table."""
    metrics = [METRICS[name] for name in (rows[0].metrics if rows else {})]
    head = ["codec", "setting", "pictures", "bytes", "bpp", *(m.label for m in metrics), "encode, s", "decode, s"]
    body = [
        [
            mean.codec,
            f"{mean.setting:g}",
            str(mean.pictures),
            f"{mean.bytes:,.0f}",
            f"{mean.bpp:.4f}",
            *(figure(mean.metrics.get(m.name), m.digits) for m in metrics),
            f"{mean.encode_s:.3f}",
            f"{mean.decode_s:.3f}",
        ]
        for mean in rows
    ]
    return markdown(head, body)


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table whose source is aligned: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(head), line(rule), *map(line, body)])


def figure(value: float | None, digits: int) -> str:
    """A number for a table; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def write_json(path: Path, result: Evaluation) -> None:
    """Writes all rows, and what was skipped and left out. An infinite PSNR is the string "inf"."""
    path.write_text(json.dumps(_plain(asdict(result)), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Evaluation:
    """Reads what `write_json` wrote."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        Row(**{**row, "metrics": {k: None if v is None else float(v) for k, v in row["metrics"].items()}})
        for row in raw["rows"]
    ]
    return Evaluation(rows, raw["skipped"], raw["left_out"])


def _plain(value: Any) -> Any:
    """Infinite floats as strings, since JSON has no infinity."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are not None; None if all are."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def _warm_up(codecs: Sequence[ImageCodec], picture: Array) -> None:
    """Codes once with each codec, untimed: first calls load libraries and plan kernels."""
    for codec in codecs:
        codec.decode(codec.encode(picture, codec.settings[0]))
