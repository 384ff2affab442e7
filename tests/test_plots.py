"""Curves, contact sheets and published points.

pytest tests/test_plots.py
"""

import numpy as np
import pytest
from evaluating import Keeper, curve, picture
from PIL import Image

from sodec.evaluate import codecs, compare, plots, run


def test_curves_as_png_and_svg(tmp_path):
    pytest.importorskip("matplotlib")
    rows = curve("sodec", 0.5) + curve("avif", 1)
    files = plots.curves(rows, "psnr", tmp_path) + plots.curves(rows, "st_lpips", tmp_path)
    assert [file.name for file in files] == [
        "rate-distortion-psnr.png",
        "rate-distortion-psnr.svg",
        "rate-perception-st_lpips.png",
        "rate-perception-st_lpips.svg",
    ]
    with Image.open(files[0]) as image:
        assert min(image.size) > 400
    text = files[1].read_text()
    assert "sodec" in text
    assert "avif" in text


def test_nearest_setting_by_bytes():
    original = picture()
    codec = codecs.rival("jpeg")
    sizes = {q: len(codec.encode(original, q)) for q in range(1, 26)}
    setting, data = compare.nearest(codec, original, sizes[17])
    assert len(data) == sizes[17] == len(codec.encode(original, setting))
    assert compare.nearest(codec, original, 1)[0] == 1
    assert compare.nearest(codec, original, 10**6)[0] == 25


def test_contact_sheet_holds_the_pixels_it_claims():
    original = picture()
    image = np.asarray(
        compare.contact_sheet(
            {"a": original}, Keeper(), [codecs.rival("jpeg")], (0.5, 1.0), crop=32, corners={"a": (8, 16)}
        )
    )
    assert np.array_equal(image[:32, :32], original[8:40, 16:48])
    cell = image.shape[1] // 3
    # The smallest stream of the codec is the nearest to 0.5 bit per pixel.
    assert np.array_equal(image[:32, cell : cell + 32], (original // 32 * 32)[8:40, 16:48])
    assert (image[32:60] < 128).any()  # labels


def test_published_points_name_their_sources_and_count_only_for_their_own_variant():
    for other in plots.published():
        assert other.source
        assert other.points
        assert all(0 < point["bpp"] < 5 for point in other.points)
    paper = next(other for other in plots.published() if other.codec == "SODEC")
    assert len(paper.curve("lpips_vgg")) == 4
    assert paper.curve("ms_ssim") == []  # another implementation
    assert {other.codec for other in plots.published()} >= set(plots.DRAWN)


def test_published_points_are_drawn_on_kodak_alone(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [run.Mean("sodec", q, 24, 0.0, 0.1 * q, 0.0, 0.0, {"psnr": 24.0 + q}) for q in (1, 2)]
    for kodak in (True, False):
        svg = next(file for file in plots.curves(rows, "psnr", tmp_path, kodak=kodak) if file.suffix == ".svg")
        assert ("MS-ILLM (publ.)" in svg.read_text()) == kodak
