"""Damage: an error by default; on demand all that is whole comes back, and what is lost is filled and told.

pytest tests/test_salvage.py
"""

import functools
import warnings

import numpy as np
import pytest
import torch
from tiny import codec, photo

import sodec
from sodec.errors import CorruptStreamError, DamageWarning, SodecError
from sodec.pipeline import decoder
from sodec.stream import container

WIDTH, HEIGHT = 2100, 1090  # 3 x 2 tiles
LAST = (2048, 1024, 52, 66)
TOP_MIDDLE = (1024, 0, 1024, 1024)


@functools.cache
def stream(alpha=False):
    rgb = photo(WIDTH, HEIGHT)
    return codec().compress(np.dstack([rgb, rgb[..., 0]]) if alpha else rgb, 80)


def damaged(number, data):
    """`data` with a byte of the payload of tile `number` altered."""
    payload = container.read(data, salvage=True).payloads[number]
    place = data.index(payload) + len(payload) // 2
    return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]


def salvaged(data, **options):
    """The picture, the rectangles, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = sodec.Report()
        picture = codec().decompress(data, output="numpy", on_error="conceal", report=report, **options).astype(int)
    assert all(issubclass(one.category, DamageWarning) for one in caught)
    return picture, report.lost, [str(one.message) for one in caught]


def test_damage_is_an_error_unless_asked_otherwise():
    with pytest.raises(CorruptStreamError, match="altered"):
        codec().decompress(damaged(1, stream()))
    with pytest.raises(ValueError, match="'ignore'"):
        codec().decompress(stream(), on_error="ignore")


def test_a_lost_tile_is_told_and_the_others_are_what_they_were():
    whole = codec().decompress(stream(), output="numpy", mode="fidelity").astype(int)
    picture, lost, messages = salvaged(damaged(1, stream()), mode="fidelity")
    assert lost == [TOP_MIDDLE]
    assert len(messages) == 1
    assert "1024,0,1024,1024" in messages[0]
    assert picture.shape == whole.shape
    # the tiny fidelity decoder sees 76 pixels: what is further from the tile is the same to the bit
    assert np.array_equal(picture[:, :948], whole[:, :948])
    inside = (slice(100, 900), slice(1200, 1900))
    assert not np.array_equal(picture[inside], whole[inside])
    full, lost, _ = salvaged(damaged(1, stream()))
    assert lost == [TOP_MIDDLE]
    assert full.shape == whole.shape


def test_a_whole_stream_is_salvaged_without_a_word():
    picture, lost, messages = salvaged(stream())
    assert lost == []
    assert messages == []
    assert np.array_equal(picture, codec().decompress(stream(), output="numpy"))


def test_what_is_cut_off_is_lost_and_the_rest_is_not():
    data = stream()
    _, lost, _ = salvaged(data[:-6])
    assert lost == [LAST]
    assert salvaged(data[:-2])[1] == [], "only the check itself is cut off"
    index = data.index(container.read(data).payloads[0])
    with pytest.raises(CorruptStreamError, match="every tile"):
        salvaged(data[: index + 1])
    with pytest.raises(CorruptStreamError):
        salvaged(data[: index - 1])


def test_tiles_that_pass_the_check_but_can_not_be_decoded_are_lost_too():
    whole = container.read(stream())
    payloads = (*whole.payloads[:5], whole.payloads[5][:-1])
    data = container.write(container.Stream(**{**vars(whole), "payloads": payloads}))
    with pytest.raises(CorruptStreamError):
        codec().decompress(data)
    assert salvaged(data)[1] == [LAST]


def test_neighbours_that_are_lost_together_and_a_lone_tile():
    data = stream()
    for number in (0, 1, 3, 4):
        data = damaged(number, data)
    _, lost, messages = salvaged(data, mode="fidelity")
    assert len(lost) == len(messages) == 4
    one_tile = codec().compress(photo(40, 30))
    with pytest.raises(CorruptStreamError, match="altered"):
        salvaged(damaged(0, one_tile))
    with_alpha = codec().compress(np.dstack([photo(40, 30), photo(40, 30)[..., 0]]))
    with pytest.raises(CorruptStreamError, match="every tile"):
        salvaged(damaged(0, with_alpha))


def test_a_region_tells_only_what_it_needs_and_is_the_same_as_in_the_whole():
    data = damaged(1, stream())
    whole, _, _ = salvaged(data)
    assert salvaged(data, region=(10, 10, 100, 100))[1] == [TOP_MIDDLE], "it is in the halo of tile 0"
    assert salvaged(data, region=(2090, 1080, 10, 10))[1] == [TOP_MIDDLE], "and in that of tile 5"
    part, _, _ = salvaged(data, region=(1000, 1000, 60, 60))
    assert np.abs(part - whole[1000:1060, 1000:1060]).max() <= 2


def test_a_lost_alpha_is_told_and_the_picture_is_opaque():
    data = stream(alpha=True)
    place = data.index(container.read(data).payloads[0]) - 5  # the alpha section ends there
    data = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    picture, lost, messages = salvaged(data)
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert lost == []
    assert messages == ["section 1 of the stream is damaged and left out"]


def test_the_filling_runs_from_edge_to_edge():
    left, right = torch.full((1, 2, 6, 3), 1.0), torch.full((1, 2, 6, 3), 5.0)
    filled = decoder.fill(6, 9, {"left": left, "right": right})
    assert filled.shape == (1, 2, 6, 9)
    assert (filled.diff(dim=-1) > 0).all()
    assert filled[0, 0, 0, 4] == 3
    assert 1 < filled[..., 0].max() < 1.5
    top = torch.arange(9.0).expand(1, 2, 4, 9)
    torch.testing.assert_close(decoder.fill(6, 9, {"top": top}), torch.arange(9.0).expand(1, 2, 6, 9))


def test_whatever_is_altered_gives_a_picture_or_our_error():
    random = np.random.default_rng(0)
    data = codec().compress(np.dstack([photo(60, 40), photo(60, 40)[..., 0]]))
    for _ in range(120):
        altered = bytearray(data)
        for _ in range(random.integers(1, 4)):
            altered[random.integers(len(altered))] = random.integers(256)
        altered = altered[: random.integers(1, len(altered) + 1)] if random.random() < 0.3 else altered
        try:
            picture, _, _ = salvaged(bytes(altered))
        except SodecError:
            continue
        assert picture.shape[:2] == (40, 60)
