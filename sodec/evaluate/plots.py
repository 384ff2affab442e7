"""Rate-distortion and rate-perception curves: PNG and SVG files, and small ones for a page.

On Kodak's pictures published points of other codecs are drawn behind them; published.json has them with their sources.
A point counts for a metric only where its variant is ours ("variants" there): LPIPS by network, and MS-SSIM only from
those who computed it as pytorch-msssim does, since other implementations differ by 0.01 and more.
"""

from __future__ import annotations

import functools
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..extras import require
from .metrics import METRICS
from .run import Mean

# Text is stored as text, and the same figure always gives the same file.
SVG = {"svg.fonttype": "none", "svg.hashsalt": "sodec"}
METADATA = ("Creator", "Date", "Format", "Type")
INK = "#010203"  # stands for the page's colour of text


def curves(means: Sequence[Mean], metric: str, folder: Path, *, kodak: bool = False) -> list[Path]:
    """Writes a figure of a metric over the rate (logarithmic), with a curve per codec; returns its files.

    With `kodak`, published points of other codecs are drawn dashed. Better is always up, so the axis of a distance runs
    downwards.
    """
    figure = _figure(means, metric, kodak, (7, 4.8))
    kind = "perception" if METRICS[metric].perceptual else "distortion"
    files = [folder / f"rate-{kind}-{metric}.{suffix}" for suffix in ("png", "svg")]
    with require("matplotlib", "plots").rc_context(SVG):
        for file in files:
            figure.savefig(file, dpi=150, metadata={"Date": None} if file.suffix == ".svg" else None)
    return files


def inline(means: Sequence[Mean], metric: str, *, kodak: bool = False) -> str:
    """The same figure, small, as an SVG element whose lines and text take the page's colour."""
    colours = dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK)
    plain = {"legend.facecolor": "none", "legend.edgecolor": INK, "axes.facecolor": "none", "savefig.transparent": True}
    with require("matplotlib", "plots").rc_context({**SVG, **colours, **plain}):
        buffer = io.StringIO()
        _figure(means, metric, kodak, (5, 3.6)).savefig(buffer, format="svg", metadata=dict.fromkeys(METADATA))
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    # The ids of groups would collide where several figures share a page.
    svg = re.sub(r' id="[a-z0-9.]+_\d+"', "", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{METRICS[metric].label} over bits per pixel"', 1)


def _figure(means: Sequence[Mean], metric: str, kodak: bool, size: tuple[float, float]) -> Any:
    known = METRICS[metric]
    figure = require("matplotlib.figure", "plots", "matplotlib").Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    for codec in dict.fromkeys(mean.codec for mean in means):
        points = sorted(
            (mean.bpp, value)
            for mean in means
            if mean.codec == codec and (value := mean.metrics.get(metric)) is not None
        )
        if not points:
            continue
        ours = codec.startswith("sodec")
        x, y = zip(*points, strict=True)
        axes.plot(x, y, marker="o", markersize=4, linewidth=2.2 if ours else 1.2, label=codec, zorder=3 if ours else 2)
    low, high = axes.get_xlim()
    for other in published() if kodak and axes.lines else ():
        points = [point for point in other.curve(metric) if low / 2 <= point[0] <= 2 * high]
        if points and other.codec in DRAWN:
            axes.plot(
                *zip(*points, strict=True), "--", marker=".", linewidth=0.8, alpha=0.6, label=f"{other.codec} (publ.)"
            )
    axes.set_xscale("log")
    ticks = require("matplotlib.ticker", "plots", "matplotlib")
    axes.xaxis.set_major_locator(ticks.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ticks.FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(ticks.NullFormatter())
    axes.set_xlabel("bits per pixel, bytes on disk")
    axes.set_ylabel(known.label if known.higher_is_better else f"{known.label} (less is better)")
    if not known.higher_is_better:
        axes.invert_yaxis()
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize="small")
    return figure


PUBLISHED_FILE = Path(__file__).parent / "published.json"
DRAWN = (
    "SODEC", "StableCodec", "MS-ILLM", "HiFiC(TF)", "DiffEIC", "PerCo", "CDC", "AEIC-ME", "vtm", "cheng2020-attn_mse",
)  # fmt: skip


@dataclass(frozen=True)
class Published:
    """The published points of a codec, from one source."""

    codec: str
    source: str
    note: str
    points: tuple[dict[str, float], ...]  # bpp, and metrics by their names here

    def curve(self, metric: str) -> list[tuple[float, float]]:
        """(bpp, value) of a metric, by rate."""
        return sorted((point["bpp"], point[metric]) for point in self.points if metric in point)


@functools.cache
def published() -> tuple[Published, ...]:
    """All published points."""
    content = json.loads(PUBLISHED_FILE.read_text(encoding="utf-8"))
    return tuple(
        Published(entry["codec"], entry["source"], entry["note"], tuple(entry["points"])) for entry in content["codecs"]
    )
