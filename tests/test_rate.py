"""Target sizes: within the limit, near it, in few passes, and a named error where none can be met.

pytest tests/test_rate.py
"""

import numpy as np
import pytest
from tiny import codec, photo

import sodec
from sodec import rate
from sodec.container import read
from sodec.errors import TargetError

PICTURE = photo(512, 384)


def bytes_at(quality):
    return len(codec().compress(PICTURE, quality))


@pytest.fixture
def counted(monkeypatch):
    """How often the networks and the coder run."""
    calls = {"analyse": 0, "encode": 0}
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
    counted.update(analyse=0, encode=0)
    limit = round(smallest + share * (largest - smallest))
    data = codec().compress(PICTURE, max_bytes=limit)
    assert counted["analyse"] == 1
    assert counted["encode"] <= rate.MAX_PASSES
    assert len(data) <= limit
    quality = sodec.inspect(data).quality
    # within 2 %, or else the next quality would be too large
    assert len(data) >= 0.98 * limit or quality == 100 or bytes_at(quality + 0.5) > limit
    assert data == codec().compress(PICTURE, quality), "a target gives the stream of some quality, and no other"


def test_target_bpp_counts_the_whole_stream():
    alpha = np.tile(np.arange(512, dtype=np.uint8), (384, 1))
    info = sodec.inspect(codec().compress(np.dstack([PICTURE, alpha]), target_bpp=0.15))
    assert info.bytes["alpha"] > 200
    assert 0.98 * 0.15 < info.bpp <= 0.15


def test_tiles_share_one_target(counted):
    data = codec().compress(photo(1030, 200), max_bytes=2500)
    assert counted["analyse"] == 2
    assert counted["encode"] <= 2 * rate.MAX_PASSES
    assert len(data) <= 2500
    # Within 2 % where the random weights have a quality there, else the last one that fits.
    following = codec().compress(photo(1030, 200), read(data).quality + 0.5)
    assert len(data) > 0.98 * 2500 or len(following) > 2500


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
    assert counted["analyse"] == 0


def test_max_bytes_are_whole_and_only_one_wish_is_taken():
    with pytest.raises(TargetError, match=r"1000\.5"):
        codec().compress(PICTURE, max_bytes=1000.5)
    for wishes in ({"quality": 50, "max_bytes": 99}, {"target_bpp": 1, "max_bytes": 99}):
        with pytest.raises(TargetError, match="only one"):
            codec().compress(PICTURE, **wishes)


@pytest.mark.parametrize("limit", range(199))
def test_the_search_finds_every_quality_in_eight_passes(limit):
    tried = []

    def code(quality):
        tried.append(quality)
        return round(2 * quality) * 1000

    best = rate.largest_within((limit + 2) * 1000 + 1, code, int)
    assert best == min(limit + 2, 200) * 1000 or best >= 0.98 * (limit + 2) * 1000
    assert len(tried) <= rate.MAX_PASSES
