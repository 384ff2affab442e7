"""The decoder's noise: as FORMAT.md defines it, of the place alone, and switched off on demand.

pytest tests/test_noise.py
"""

import numpy as np
import pytest
import torch
from tiny import codec, photo

import sodec
from sodec.errors import ViewError
from sodec.models.noise import place_noise, place_noise_on


def plain(channel, row, column):
    """The value at one place, by the words of FORMAT.md in Python's integers."""

    def mix(x):
        x ^= x >> 16
        x = x * 0x7FEB352D % 2**32
        x ^= x >> 15
        x = x * 0x846CA68B % 2**32
        return x ^ x >> 16

    a = mix((mix((mix(channel) + row) % 2**32) + column) % 2**32)
    b = mix(a ^ 0x5BD1E995)
    return (sum(a.to_bytes(4, "big")) + sum(b.to_bytes(4, "big")) - 1020) / 43690**0.5


@pytest.mark.parametrize(("top", "left"), [(0, 0), (5, 9), (16380, 7)])
def test_values_are_those_of_the_format(top, left):
    noise = place_noise(4, 5, 6, top, left)
    assert noise.dtype == np.float32
    expected = [[[plain(c, top + r, left + s) for s in range(6)] for r in range(5)] for c in range(4)]
    np.testing.assert_allclose(noise, expected, rtol=1e-6)


@pytest.mark.parametrize("place", [(4, 5, 6, 0, 0), (3, 40, 50, 16380, 7), (1, 1, 1, 2**31, 2**32 - 1)])
def test_a_device_makes_the_same_to_the_last_bit(place):
    assert np.array_equal(place_noise_on("cpu", *place).numpy(), place_noise(*place))


def test_a_part_is_the_part_of_the_whole():
    whole = place_noise(3, 40, 50)
    assert np.array_equal(place_noise(3, 7, 11, 20, 30), whole[:, 20:27, 30:41])


def test_it_is_white_and_nearly_gaussian():
    noise = place_noise(4, 256, 256).astype(float)
    assert abs(noise.mean()) < 0.01
    assert noise.std() == pytest.approx(1, abs=0.01)
    assert (noise**4).mean() == pytest.approx(3 - 1.2 / 8, abs=0.05)  # as of a sum of eight uniform numbers
    power = np.abs(np.fft.fft2(noise)) ** 2 / 256**2
    power[:, 0, 0] = 1
    assert power.max() < 25, "no frequency stands out (e^-25 times 262,144 places)"
    for a in range(4):
        for b in range(a):
            assert abs((noise[a] * noise[b]).mean()) < 0.02


def test_it_can_be_turned_down_and_off():
    data = codec().compress(photo(96, 64), 50)
    loud, half, calm = (codec().decompress(data, output="torch", noise=noise) for noise in (1, 0.5, 0))
    assert (loud - calm).abs().max() > 2 / 255
    assert not torch.equal(half, loud)
    assert not torch.equal(half, calm)
    assert torch.equal(calm, codec().decompress(data, output="torch", noise=0))
    faithful = [codec().decompress(data, output="torch", mode="fidelity", noise=noise) for noise in (0, 1)]
    assert torch.equal(*faithful)


@pytest.mark.parametrize("noise", [-0.1, 1.1, True, "loud", None, float("nan")])
def test_a_wrong_loudness_is_named(noise):
    data = codec().compress(photo(32, 32), 50)
    with pytest.raises(ViewError, match="noise must be a number from 0 to 1"):
        codec().decompress(data, noise=noise)


@pytest.mark.parametrize("region", [(0, 0, 40, 40), (130, 70, 65, 33), (5, 141, 190, 12)])
def test_a_region_has_the_noise_of_its_place(region):
    """Of the bundled model: the crop of the whole picture, but for roundings at the halo's end."""
    x, y, width, height = region
    data = sodec.compress(photo(200, 160), 20)
    whole = sodec.decompress(data, output="numpy").astype(int)
    part = sodec.decompress(data, output="numpy", region=region).astype(int)
    assert np.abs(part - whole[y : y + height, x : x + width]).max() <= 1
