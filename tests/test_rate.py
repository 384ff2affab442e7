"""Target sizes: within the limit and near it in few passes, or an error that names the smallest possible size.

pytest tests/test_rate.py
"""

import numpy as np
import pytest
from tiny import codec, photo

import sodec
from sodec.errors import TargetError
from sodec.pipeline import rate
from sodec.pipeline.tiles import grid

PICTURE = photo(512, 384)


def bytes_at(quality):
    return len(codec().compress(PICTURE, quality))


@pytest.fixture
def counted(monkeypatch):
    """Counts runs of the networks and the coder."""
    calls = {"begin_analysis": 0, "encode": 0}
    for name in calls:
        method = getattr(codec().engine, name)

        def call(*arguments, name=name, method=method):
            calls[name] += 1
            return method(*arguments)

        monkeypatch.setattr(codec().engine, name, call)
    return calls


@pytest.mark.parametrize("share", [0, 0.01, 0.2, 0.5, 0.8, 1, 1.5])
def test_max_bytes_is_met_closely_with_one_analysis(share, counted):
    smallest, largest = bytes_at(1), bytes_at(100)
    counted.update(begin_analysis=0, encode=0)
    limit = round(smallest + share * (largest - smallest))
    data = codec().compress(PICTURE, max_bytes=limit)
    assert counted["begin_analysis"] == 1
    assert counted["encode"] <= rate.MAX_PASSES
    assert len(data) <= limit
    assert len(data) >= 0.98 * min(limit, largest)


def test_target_bpp_counts_the_whole_stream():
    alpha = np.tile(np.arange(512, dtype=np.uint8), (384, 1))
    info = sodec.inspect(codec().compress(np.dstack([PICTURE, alpha]), target_bpp=0.15))
    assert info.bytes["alpha"] > 200
    assert 0.98 * 0.15 < info.bpp <= 0.15


def test_tiles_share_one_target(counted):
    data = codec().compress(photo(1030, 200), max_bytes=3500)
    assert counted["begin_analysis"] == 2
    assert counted["encode"] <= 2 * rate.MAX_PASSES
    assert len(data) <= 3500
    assert len(data) > 0.98 * 3500


def test_an_impossible_target_says_the_smallest_size():
    with pytest.raises(TargetError, match=f"{bytes_at(1)} bytes"):
        codec().compress(PICTURE, max_bytes=bytes_at(1) - 1)
    with pytest.raises(TargetError, match="smallest"):
        codec().compress(PICTURE, target_bpp=1e-9)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), -float("inf"), True, "12"])
@pytest.mark.parametrize("name", ["target_bpp", "max_bytes"])
def test_targets_that_are_no_sizes_are_named(name, value, counted):
    with pytest.raises(TargetError, match=f"{name} {value!r}"):
        codec().compress(PICTURE, **{name: value})
    assert counted["begin_analysis"] == 0


def test_max_bytes_are_whole_and_only_one_wish_is_taken():
    with pytest.raises(TargetError, match=r"1000\.5"):
        codec().compress(PICTURE, max_bytes=1000.5)
    for wishes in ({"quality": 50, "max_bytes": 99}, {"target_bpp": 1, "max_bytes": 99}):
        with pytest.raises(TargetError, match="only one"):
            codec().compress(PICTURE, **wishes)


CURVES = {
    "line": lambda q: 1000 + 100 * q,
    "ratios": lambda q: 1000 * 1.04**q,
    "root": lambda q: 3000 * (q + 9) ** 0.5,
    "power": lambda q: 1000 + q**2.5,
    "lite": lambda q: 11000 * np.interp(q, [1, 13, 25, 38, 50, 64, 82, 100], [38, 55, 88, 120, 143, 172, 235, 302]),
}


@pytest.mark.parametrize("curve", CURVES)
def test_the_search_ends_within_two_per_cent_in_eight_passes(curve):
    tried = []

    def code(point):
        tried.append(point)
        assert 0 <= point.deadzone < rate.DEADZONE
        assert 2 * point.quality == round(2 * point.quality)
        return round(CURVES[curve](point.quality - point.deadzone / rate.DEADZONE / 2))

    smallest, largest = CURVES[curve](1), CURVES[curve](100)
    for limit in np.geomspace(smallest + 1, 1.1 * largest, 300).astype(int):
        tried.clear()
        best = rate.largest_within(limit, code, int)
        assert 0.98 * min(limit, largest) <= best <= limit, limit
        assert len(tried) <= rate.MAX_PASSES


def test_a_dead_zone_saves_bytes_a_few_at_a_time():
    rgb = codec().engine.analyse(PICTURE, next(iter(grid(512, 384))))
    sizes = [len(codec().engine.encode(rgb, 60, deadzone)) for deadzone in (0.0, 0.01, 0.02)]
    assert sizes[0] > sizes[1] > sizes[2] > 0.8 * sizes[0]
