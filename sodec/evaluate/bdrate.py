"""BD-rate: the average difference in rate of two curves at equal quality, and the range of quality it holds for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..extras import require
from .metrics import METRICS, Metric
from .run import Mean, figure, markdown

METHODS = ("pchip", "akima")


@dataclass(frozen=True)
class Curve:
    """A codec's mean rate and quality, both strictly increasing. `quality` is the metric, negated where less is better.

    A setting that takes more bytes than another without being better is left out: nobody would use it, and
    interpolation needs a function. `dropped` counts these settings.
    """

    codec: str
    metric: Metric
    bpp: npt.NDArray[np.float64]
    quality: npt.NDArray[np.float64]
    dropped: int = 0

    @classmethod
    def of(cls, means: Sequence[Mean], codec: str, metric: str) -> Curve:
        """The curve of one codec, from the settings where the metric is finite."""
        known = METRICS[metric]
        sign = 1 if known.higher_is_better else -1
        values = [(mean.bpp, mean.metrics.get(metric)) for mean in means if mean.codec == codec]
        points = sorted((bpp, sign * value) for bpp, value in values if value is not None and np.isfinite(value))
        rising: list[tuple[float, float]] = []
        for bpp, quality in points:
            if not rising or (quality > rising[-1][1] and bpp > rising[-1][0]):
                rising.append((bpp, quality))
        array = np.array(rising, np.float64).reshape(-1, 2)
        return cls(codec, known, array[:, 0], array[:, 1], len(points) - len(rising))

    def value_at(self, bpp: float) -> float | None:
        """The metric at a rate, by pchip over log bpp; None outside the curve's range."""
        if len(self.bpp) < 2 or not self.bpp[0] <= bpp <= self.bpp[-1]:
            return None
        pchip = require("scipy.interpolate", "interpolation", "scipy").PchipInterpolator
        quality = float(pchip(np.log(self.bpp), self.quality)(np.log(bpp)))
        return quality if self.metric.higher_is_better else -quality

    def bpp_at(self, quality: float) -> float:
        """The rate at a quality (the metric, negated where less is better), inside the curve's range."""
        pchip = require("scipy.interpolate", "interpolation", "scipy").PchipInterpolator
        return float(np.exp(pchip(self.quality, np.log(self.bpp))(quality)))


@dataclass(frozen=True)
class BDRate:
    """Average difference in bytes of `codec` against `anchor` at equal values of a metric, in percent.

    `overlap` is the range of the metric that both curves reach, worse value first; `bpp` and `anchor_bpp` are the
    rates there. Where `percent` is None, `reason` says why.
    """

    codec: str
    anchor: str
    metric: str
    percent: float | None
    overlap: tuple[float, float] | None = None
    bpp: tuple[float, float] | None = None
    anchor_bpp: tuple[float, float] | None = None
    reason: str = ""


def bd_rate(means: Sequence[Mean], codec: str, anchor: str, metric: str, method: str = "pchip") -> BDRate:
    """BD-rate by the `bjontegaard` package: log rate interpolated over the metric, averaged over the overlap.

    Raises
    ------
    ValueError
        Method or metric is unknown.
    MissingPackageError
        bjontegaard is not installed.
    """
    if method not in METHODS:
        raise ValueError(f"the method must be one of {', '.join(METHODS)} (got {method!r})")
    if metric not in METRICS:
        raise ValueError(f"the metric must be one of {', '.join(METRICS)} (got {metric!r})")
    test, reference = (Curve.of(means, name, metric) for name in (codec, anchor))
    for curve in (test, reference):
        if len(curve.bpp) < 2:
            reason = f"{curve.codec} has {len(curve.bpp)} usable points; a curve needs 2"
            return BDRate(codec, anchor, metric, None, reason=reason)
    low, high = max(test.quality[0], reference.quality[0]), min(test.quality[-1], reference.quality[-1])
    if low >= high:
        return BDRate(codec, anchor, metric, None, reason=_apart(test, reference))
    percent = require("bjontegaard", "BD-rate").bd_rate(
        reference.bpp,
        reference.quality,
        test.bpp,
        test.quality,
        method,
        require_matching_points=False,
        min_overlap=0,
    )
    sign = 1 if METRICS[metric].higher_is_better else -1
    return BDRate(
        codec,
        anchor,
        metric,
        float(percent),
        (sign * low, sign * high),
        (test.bpp_at(low), test.bpp_at(high)),
        (reference.bpp_at(low), reference.bpp_at(high)),
    )


def bd_table(results: Sequence[BDRate]) -> str:
    """Markdown, one line per pair and metric; a pair without a number has the reason instead."""
    head = ["codec", "against", "metric", "BD-rate", "range of the metric", "bpp", "bpp of the other"]
    body = []
    for result in results:
        metric = METRICS[result.metric]
        if result.percent is None:
            cells = ["–", result.reason, "", ""]
        else:
            assert result.overlap is not None
            assert result.bpp is not None
            assert result.anchor_bpp is not None
            cells = [f"{result.percent:+.1f} %", _range(result.overlap, metric.digits)]
            cells += [_range(result.bpp, 3), _range(result.anchor_bpp, 3)]
        body.append([result.codec, result.anchor, metric.label, *cells])
    return markdown(head, body)


def rate_table(means: Sequence[Mean], metric: str, rates: Sequence[float]) -> str:
    """Markdown: the metric of each codec at given bits per pixel; a dash outside its curve."""
    known = METRICS[metric]
    codecs = dict.fromkeys(mean.codec for mean in means)
    body = []
    for codec in codecs:
        curve = Curve.of(means, codec, metric)
        body.append([codec, *(figure(curve.value_at(rate), known.digits) for rate in rates)])
    return markdown([f"{known.label} at bpp", *(f"{rate:g}" for rate in rates)], body)


def _apart(test: Curve, reference: Curve) -> str:
    sign = 1 if test.metric.higher_is_better else -1
    ends = (
        f"{curve.codec} {_range((sign * curve.quality[0], sign * curve.quality[-1]), test.metric.digits)}"
        for curve in (test, reference)
    )
    return f"no overlap: {', '.join(ends)}"


def _range(ends: tuple[float, float], digits: int) -> str:
    return f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"
