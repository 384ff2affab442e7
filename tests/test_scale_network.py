"""The integer scale network against exact integer arithmetic written another way, on every instruction set.

pytest tests/test_scale_network.py
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sodec import _native
from sodec.errors import WeightsError

SETS = _native.cpu()["supported"]


def network(monkeypatch, name, layers):
    monkeypatch.setenv("SODEC_CPU", name)
    made = _native.ScaleNetwork(layers)
    assert made.cpu == name
    return made


def expected(layers, z, offset):
    """The arithmetic of FORMAT.md in int64, one shifted image per tap."""
    image = np.clip(z.astype(np.int64) + 128, 0, 255)
    for number, (weights, bias, multiplier, shift, upsample) in enumerate(layers):
        k = weights.shape[1]
        height, width = image.shape[:2]
        padded = np.pad(image, ((k // 2, k // 2), (k // 2, k // 2), (0, 0)))
        sums = bias.astype(np.int64) + sum(
            np.einsum("yxi,oi->yxo", padded[dy : dy + height, dx : dx + width], weights[:, dy, dx].astype(np.int64))
            for dy in range(k)
            for dx in range(k)
        )
        assert np.abs(sums).max(initial=0) < 2**31
        r = (sums * multiplier.astype(np.int64) + (1 << shift >> 1)) // (1 << shift)
        if number == len(layers) - 1:
            return np.clip((np.clip(r, -(2**31), 2**31 - 1) + offset + 8) // 16, 0, 63).astype(np.uint8)
        image = np.clip(r, 0, 255)
        if upsample == 2:
            image = image.reshape(height, width, -1, 2, 2).transpose(0, 3, 1, 4, 2).reshape(2 * height, 2 * width, -1)
    raise AssertionError("no layers")


def layer(rng, inputs, outputs, kernel, upsample=1, last=False, extreme=False):
    """Random weights whose results spread over the range of what follows, or the largest of all."""
    shape = (outputs, kernel, kernel, inputs)
    taps = inputs * kernel * kernel
    if extreme:
        weights = rng.choice(np.array([-128, 127], np.int8), shape)
    else:
        weights = rng.integers(-128, 128, shape).astype(np.int8)
    spread = 40 * taps**0.5 * 80  # about the standard deviation of a sum
    bias = rng.normal(size=outputs) * spread
    unit = (400 if last else 100) / spread * rng.uniform(0.5, 2, outputs)
    multiplier = np.rint(unit * 2.0**24)
    return weights, bias.astype(np.int32), multiplier.astype(np.int32), 24, upsample


def shipped_sizes(rng, **options):
    """Layers as in sodec/models/scale_network.py, with the sizes of the shipped model."""
    return [
        layer(rng, 64, 96, 1, **options), layer(rng, 96, 256, 3, 2, **options), layer(rng, 64, 256, 3, 2, **options),
        layer(rng, 64, 128, 1, last=True, **options),
    ]  # fmt: skip


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (3, 2), (8, 12), (5, 17)])
@pytest.mark.parametrize("extreme", [False, True])
def test_the_shipped_sizes(monkeypatch, name, height, width, extreme):
    rng = np.random.default_rng(height * 100 + width)
    layers = shipped_sizes(rng, extreme=extreme)
    z = rng.integers(-20, 21, (height, width, 64)).astype(np.int16)
    if extreme:
        z = rng.choice(np.array([-32768, -129, -128, 127, 128, 32767], np.int16), z.shape)
    offset = rng.integers(-200, 201, 128).astype(np.int32)
    indexes = network(monkeypatch, name, layers).indexes(z, offset)
    assert indexes.shape == (4 * height, 4 * width, 128)
    assert indexes.dtype == np.uint8
    assert extreme or len(np.unique(indexes)) > 20  # the test would see nothing if all were clamped
    np.testing.assert_array_equal(indexes, expected(layers, z, offset))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    channels=st.lists(st.integers(1, 21), min_size=2, max_size=4),
    size=st.tuples(st.integers(1, 11), st.integers(1, 11)),
    extreme=st.booleans(),
)
def test_any_sizes(seed, channels, size, extreme):
    rng = np.random.default_rng(seed)
    layers, inputs = [], channels[0]
    for number, outputs in enumerate(channels[1:]):
        last = number == len(channels) - 2
        upsample = 1 if last else int(rng.integers(1, 3))
        kernel = 1 if number == 0 else int(rng.choice([1, 3]))
        layers.append(layer(rng, inputs, outputs * upsample**2, kernel, upsample, last, extreme))
        inputs = outputs
    z = rng.integers(-140, 140, (*size, channels[0])).astype(np.int16)
    offset = rng.integers(-300, 300, channels[-1]).astype(np.int32)
    right = expected(layers, z, offset)
    with pytest.MonkeyPatch.context() as patch:
        for name in SETS:
            np.testing.assert_array_equal(network(patch, name, layers).indexes(z, offset), right, err_msg=name)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(
    ("z_size", "size"), [((1, 1), (1, 1)), ((2, 3), (7, 9)), ((5, 9), (20, 36)), ((5, 9), (17, 33)), ((3, 4), (0, 5))]
)
def test_planes_are_the_indexes_in_the_order_of_the_coder(monkeypatch, name, z_size, size):
    rng = np.random.default_rng(sum(size))
    made = network(monkeypatch, name, shipped_sizes(rng))
    z = rng.integers(-20, 21, (64, *z_size)).astype(np.int16)
    offset = rng.integers(-400, 401, 128).astype(np.int32)
    indexes = made.indexes(z.transpose(1, 2, 0), offset)[: size[0], : size[1]].transpose(2, 0, 1)
    assert not indexes.size or 0 in indexes
    wanted = np.where(indexes == 0, 255, indexes)
    for layout in (z, np.asfortranarray(z)):
        planes = made.planes(layout, offset, *size, 255)
        assert planes.dtype == np.uint8
        assert planes.flags.c_contiguous
        np.testing.assert_array_equal(planes, wanted)


def single(weight=1, bias=0, multiplier=16, shift=1, upsample=1, inputs=1, outputs=1, kernel=1):
    """A layer of equal numbers; by default the index is (z + 128) / 2, rounded up at .5."""
    return (
        np.full((outputs, kernel, kernel, inputs), weight, np.int8), np.full(outputs, bias, np.int32),
        np.full(outputs, multiplier, np.int32), shift, upsample,
    )  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_rounding_clamping_and_offsets_by_hand(monkeypatch, name):
    z = np.array([-129, -128, -127, -126, -60, -2, 127, 400], np.int16).reshape(1, -1, 1)
    made = network(monkeypatch, name, [single()])

    def at(offset):
        return made.indexes(z, np.array([offset], np.int32)).ravel().tolist()

    assert at(0) == [0, 0, 1, 1, 34, 63, 63, 63]  # 68 / 2 at z = -60
    assert at(16) == [1, 1, 2, 2, 35, 63, 63, 63]
    assert at(8) == [1, 1, 1, 2, 35, 63, 63, 63]  # half an index up: 0.5, 1, 1.5
    assert at(7) == [0, 0, 1, 1, 34, 63, 63, 63]
    assert at(-16) == [0, 0, 0, 0, 33, 62, 63, 63]
    assert at(-(1 << 20)) == [0] * 8
    assert at(1 << 20) == [63] * 8


@pytest.mark.parametrize("name", SETS)
def test_the_largest_sums_and_multipliers(monkeypatch, name):
    # 4096 inputs of 255 * 127 stay in 32 bits with a bias up to the bound; 64-bit products reach 2^62.
    reach = 4096 * 255 * 127
    for sign in (1, -1):
        bias = sign * (2**31 - 1 - reach)
        for multiplier in (-(2**31), -1, 1, 2**31 - 1):
            layers = [single(sign * 127, bias, multiplier, inputs=4096)]
            z = np.full((1, 2, 4096), 127, np.int16)
            offset = np.zeros(1, np.int32)
            right = expected(layers, z, offset)
            np.testing.assert_array_equal(network(monkeypatch, name, layers).indexes(z, offset), right)


def test_z_may_have_any_layout():
    rng = np.random.default_rng(0)
    made = _native.ScaleNetwork([layer(rng, 5, 3, 1, last=True)])
    z = rng.integers(-9, 9, (5, 4, 6)).astype(np.int16)  # (channel, row, column), as it is coded
    offset = np.zeros(3, np.int32)
    indexes = made.indexes(z.transpose(1, 2, 0), offset)
    np.testing.assert_array_equal(indexes, made.indexes(np.ascontiguousarray(z.transpose(1, 2, 0)), offset))
    assert made.indexes(np.zeros((0, 4, 5), np.int16), offset).shape == (0, 4, 3)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "no layers"),
        ([single(kernel=3)], "layer 0: kernel is 3, not 1$"),
        ([single(), single(kernel=2)], "layer 1: kernel is 2, not 1 or 3"),
        ([single(kernel=5)], r"layer 0: weights are not of the shape \(out, k, k, in\)"),
        ([single(shift=0)], "layer 0: shift is 0, not 1 to 46"),
        ([single(shift=47)], "layer 0: shift is 47"),
        ([single(upsample=2, outputs=4)], "layer 0: can't upsample 4 channels by 2 in the last layer"),
        ([single(upsample=2, outputs=6), single()], "layer 0: can't upsample 6 channels by 2$"),
        ([single(upsample=3, outputs=9), single()], "by 3"),
        ([single(outputs=2), single()], "layer 1: takes 1 channels but is given 2"),
        ([single(upsample=2, outputs=8), single(inputs=8)], "layer 1: takes 8 channels but is given 2"),
        ([single(inputs=4097)], "4097 inputs"),
        ([single(inputs=0)], "0 inputs"),
        ([single(weight=127, bias=2**31 - 255 * 127)], "layer 0: output 0 can reach 2147483648, beyond 32 bits"),
        ([single(), single(bias=-(2**31))], "layer 1: output 0 can reach 2147483903"),
        ([single()[:4]], "layer 0 is not a tuple of"),
        ([list(single())], "layer 0 is not a tuple of"),
        ([(*single()[:3], 1.5, 1)], "layer 0: shift is not an integer"),
        ([(*single()[:3], 1 << 40, 1)], "layer 0: shift is not an integer"),
        ([(single()[0].astype(np.int16), *single()[1:])], "weights is not a contiguous 4-D array of int8"),
        ([(single()[0][0], *single()[1:])], "weights is not a contiguous 4-D array"),
        ([(single()[0], np.zeros(1, np.int64), *single()[2:])], "bias is not a contiguous 1-D array of int32"),
        ([(*single()[:2], np.zeros((1, 1), np.int32), 1, 1)], "multiplier is not a contiguous 1-D"),
        ([(single()[0], np.zeros(2, np.int32), *single()[2:])], "do not agree in size"),
    ],
)
def test_broken_weights_are_named(layers, message):
    with pytest.raises(WeightsError, match=message):
        _native.ScaleNetwork(layers)


@pytest.mark.parametrize(
    ("z", "offset", "error", "message"),
    [
        (np.zeros((2, 2, 2), np.int16), np.zeros(1, np.int32), ValueError, r"z is not of the shape \(h, w, 1\)"),
        (np.zeros((2, 2), np.int16), np.zeros(1, np.int32), ValueError, "z is not"),
        (np.zeros((2, 2, 1), np.int32), np.zeros(1, np.int32), TypeError, "z is int32, not int16"),
        (np.zeros((2, 2, 1), np.int16), np.zeros(2, np.int32), ValueError, r"offset is not of the shape \(1,\)"),
        (np.zeros((2, 2, 1), np.int16), np.zeros(1, np.int64), TypeError, "offset is int64, not int32"),
        (np.zeros((0, 2**20 + 1, 1), np.int16), np.zeros(1, np.int32), ValueError, r"larger than 2\^20 on a side"),
        (np.zeros((2, 2, 1), np.int16), np.array([2**20 + 1], np.int32), ValueError, "1048577 of channel 0"),
        (np.zeros((2, 2, 1), np.int16), np.array([-(2**20) - 1], np.int32), ValueError, "-1048577 of channel 0"),
    ],
)
def test_broken_arguments_are_named(z, offset, error, message):
    with pytest.raises(error, match=message):
        _native.ScaleNetwork([single()]).indexes(z, offset)


@pytest.mark.parametrize(
    ("z", "offset", "size", "message"),
    [
        (np.zeros((2, 2, 2), np.int16), np.zeros(1, np.int32), (1, 1), r"z is not of the shape \(1, h, w\)"),
        (np.zeros((1, 2), np.int16), np.zeros(1, np.int32), (1, 1), "z is not"),
        (np.zeros((1, 2, 3), np.int16), np.zeros(2, np.int32), (1, 1), r"offset is not of the shape \(1,\)"),
        (np.zeros((1, 2**20 + 1, 0), np.int16), np.zeros(1, np.int32), (1, 0), r"larger than 2\^20 on a side"),
        (np.zeros((1, 2, 3), np.int16), np.zeros(1, np.int32), (3, 3), "for 2 rows and 3 columns, not 3 and 3"),
        (np.zeros((1, 2, 3), np.int16), np.zeros(1, np.int32), (2, 4), "for 2 rows and 3 columns, not 2 and 4"),
    ],
)
def test_broken_arguments_of_planes_are_named(z, offset, size, message):
    with pytest.raises(ValueError, match=message):
        _native.ScaleNetwork([single()]).planes(z, offset, *size, 255)
