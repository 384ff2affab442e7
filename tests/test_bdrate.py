"""BD-rate and values at a rate, on curves whose answers are known.

pytest tests/test_bdrate.py
"""

import math

import pytest
from evaluating import curve, mean

from sodec.evaluate import bdrate


@pytest.mark.parametrize("method", bdrate.METHODS)
@pytest.mark.parametrize("metric", ["psnr", "st_lpips"])
def test_half_the_bytes_is_minus_fifty_percent(metric, method):
    pytest.importorskip("bjontegaard")
    result = bdrate.bd_rate(curve("ours", 0.5, 1, 5) + curve("theirs", 1, 0, 4), "ours", "theirs", metric, method)
    assert result.percent == pytest.approx(-50)
    assert result.overlap == pytest.approx((33, 39) if metric == "psnr" else (0.45, 0.35))
    assert result.bpp == pytest.approx((0.1, 0.4))
    assert result.anchor_bpp == pytest.approx((0.2, 0.8))
    assert "-50.0 %" in bdrate.bd_table([result])


def test_no_overlap_is_no_number_but_a_reason():
    pytest.importorskip("bjontegaard")
    result = bdrate.bd_rate(curve("ours", 0.5, 0, 2) + curve("theirs", 1, 3, 6), "ours", "theirs", "psnr")
    assert result.percent is None
    assert result.reason == "no overlap: ours 30.00 to 33.00, theirs 39.00 to 45.00"
    alone = bdrate.bd_rate(curve("ours", 1), "ours", "theirs", "psnr")
    assert alone.percent is None
    assert "theirs has 0 usable points" in alone.reason
    assert "no overlap" in bdrate.bd_table([result])


def test_a_setting_that_costs_more_for_less_is_not_on_the_curve():
    rows = [*curve("ours", 1), mean("ours", 0.25, psnr=20.0), mean("ours", 0.3, psnr=math.inf)]
    line = bdrate.Curve.of(rows, "ours", "psnr")
    assert line.dropped == 1
    assert list(line.quality) == [30, 33, 36, 39, 42, 45]


@pytest.mark.parametrize(("metric", "value"), [("psnr", 31.5), ("st_lpips", 0.475)])
def test_value_at_a_rate(metric, value):
    pytest.importorskip("scipy")
    line = bdrate.Curve.of(curve("ours", 1), "ours", metric)
    # The curve is straight over log bpp: half way, by ratio, is half way.
    assert line.value_at(0.1 * math.sqrt(2)) == pytest.approx(value)
    assert line.value_at(0.09) is None
    assert line.value_at(99) is None
