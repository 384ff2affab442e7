"""Evaluation of small pictures: rows, means, skipped pictures, and JSON.

pytest tests/test_evaluate.py
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from evaluating import Keeper, picture
from PIL import Image

from sodec.errors import UnsupportedPictureError
from sodec.evaluate import metrics, run


@pytest.fixture
def folder(tmp_path):
    for seed in range(2):
        Image.fromarray(picture(seed)).save(tmp_path / f"{seed}.png")
    return tmp_path


def test_evaluation_of_two_pictures(folder):
    chosen, _ = metrics.available(["psnr", "grid"])
    result = run.evaluate([Keeper()], run.find_pictures([folder]), chosen, progress=False)
    assert len(result.rows) == 8
    row = result.rows[0]
    assert (row.picture, row.width, row.height) == ("0.png", 80, 64)
    assert row.bytes == len(Keeper().encode(picture(0), 1))
    assert row.bpp == 8 * row.bytes / (64 * 80)
    assert row.metrics["psnr"] == metrics.psnr(picture(0), picture(0) // 32 * 32)
    means = run.means(result.rows)
    assert [mean.setting for mean in means] == [1, 2, 4, 8]
    expected = np.mean([metrics.psnr(picture(s), picture(s) // 32 * 32) for s in range(2)])
    assert means[0].metrics["psnr"] == pytest.approx(expected)
    assert means[0].pictures == 2
    text = run.table(means)
    assert f"{expected:.2f}" in text
    assert len({len(line) for line in text.splitlines()}) == 1


def test_bad_pictures_are_skipped_for_all_codecs_and_named(folder):
    (folder / "bad.png").write_bytes(b"no picture")
    chosen, _ = metrics.available(["psnr"])

    class Picky(Keeper):
        name = "picky"

        def encode(self, original, setting):
            if np.array_equal(original, picture(1)):
                raise ValueError("not this one")
            return super().encode(original, setting)

    result = run.evaluate([Keeper(), Picky()], run.find_pictures([folder]), chosen, progress=False)
    assert {Path(name).name for name in result.skipped} == {"bad.png", "1.png"}
    assert {row.picture for row in result.rows} == {"0.png"}
    (folder / "0.png").unlink()
    with pytest.raises(UnsupportedPictureError, match="none of 2 pictures"):
        run.evaluate([Picky()], run.find_pictures([folder]), chosen, progress=False)


def test_no_pictures(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(UnsupportedPictureError, match="no pictures found"):
        run.find_pictures([tmp_path])
    with pytest.raises(UnsupportedPictureError, match="does not exist"):
        run.find_pictures([tmp_path / "gone"])


def test_json_keeps_every_number(tmp_path):
    row = run.Row("a", "c", 1.0, 2, 3, 4, 5.0, 0.1, 0.2, {"psnr": math.inf, "ms_ssim": None, "grid": 0.25})
    result = run.Evaluation([row], {"b": "broken"}, {"lpips": "missing"})
    run.write_json(tmp_path / "rows.json", result)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    json.loads((tmp_path / "rows.json").read_text(), parse_constant=refuse)
    assert run.read_json(tmp_path / "rows.json") == result
