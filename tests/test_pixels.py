"""8-bit pixels from the floats of a decoder: the native pass and the one on a device equal a definition in NumPy.

pytest tests/test_pixels.py
"""

import numpy as np
import pytest
import torch

from sodec import _native
from sodec.pipeline.engine import Planes
from sodec.pipeline.torch_pixels import all_planes, in_8_bits, rounded


def folded(fold, height, width, layout="planes", seed=0):
    """A picture of `height` x `width` places as the networks lay it out, some of it beyond 0..1."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 3 * fold * fold, height, width, generator=generator)
    if layout == "channels":
        x = x.contiguous(memory_format=torch.channels_last)
    return x[0].unflatten(0, (3, fold, fold))


def expected(values, offset, top, left, shrink, grey, height, width):
    """The definition, in float64."""
    picture = values.astype(np.float64).transpose(3, 1, 4, 2, 0)  # rows, i, columns, j, colours
    picture = picture.reshape(picture.shape[0] * picture.shape[1], -1, 3)
    picture = (picture + offset).clip(0, 1)[top : top + height * shrink, left : left + width * shrink]
    picture = picture.reshape(height, shrink, width, shrink, 3).mean((1, 3))
    if grey:
        picture = np.repeat((picture @ [0.299, 0.587, 0.114])[..., None], 3, -1)
    return picture * 255


CASES = [(1, 1, 0, 0), (4, 1, 0, 0), (4, 1, 3, 5), (4, 2, 6, 4), (4, 8, 8, 0), (1, 4, 2, 3), (2, 3, 1, 1)]


@pytest.mark.parametrize("layout", ["planes", "channels"])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize(("fold", "shrink", "top", "left"), CASES)
def test_both_ways_round_as_defined(fold, shrink, top, left, grey, layout):
    values = folded(fold, 40 // fold, 56 // fold, layout)
    height, width = (40 - top) // shrink, (56 - left) // shrink
    wanted = expected(values.numpy(), 0.5, top, left, shrink, grey, height, width)
    native = np.zeros((height + 2, width + 3, 3), np.uint8)
    _native.pixels(values.numpy(), 0.5, top, left, shrink, grey, native[1:-1, 2:-1])
    device = rounded(Planes(values, 0.5), top, left, shrink, grey, height, width).numpy()
    for pixels in (native[1:-1, 2:-1], device):
        assert np.abs(pixels - wanted).max() <= 0.5 + 1e-3
    native[1:-1, 2:-1] = 0
    assert not native.any(), "nothing beside the part is written"


def test_bfloat16_is_read_as_it_is():
    values = folded(4, 6, 5, "channels").bfloat16()
    out, wanted = np.empty((2, 24, 20, 3), np.uint8)
    _native.pixels(values.view(torch.uint16).numpy(), 0.5, 0, 0, 1, False, out)
    _native.pixels(values.float().numpy(), 0.5, 0, 0, 1, False, wanted)
    assert np.array_equal(out, wanted)


def test_halves_go_to_the_even_neighbour_and_nan_to_zero():
    values = np.array([0.5, 1.5, 2.5, 253.5, 254.5, 300, -9, np.nan, np.inf], np.float32) / np.float32(255)
    # What is a half after the multiplication in float32 is one here too.
    halves = values * np.float32(255)
    planes = np.zeros((3, 1, 1, 1, len(values)), np.float32)
    planes[:] = values
    out = np.empty((1, len(values), 3), np.uint8)
    _native.pixels(planes, 0.0, 0, 0, 1, False, out)
    assert out[0, :, 0].tolist() == [*np.round(halves[:5]).astype(int), 255, 0, 0, 255]


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"planes": np.zeros((3, 4, 4, 2, 2))}, TypeError, "float32"),
        ({"planes": np.zeros((3, 4, 2, 2, 2), np.float32)}, ValueError, "fold"),
        ({"planes": np.zeros((4, 4, 4, 2, 2), np.float32)}, ValueError, "shape"),
        ({"planes": np.zeros((48, 2, 2), np.float32)}, ValueError, "shape"),
        ({"out": np.zeros((8, 8, 3), np.int8)}, ValueError, "uint8"),
        ({"out": np.zeros((8, 8, 4), np.uint8)}, ValueError, "uint8"),
        ({"out": np.zeros((8, 16, 3), np.uint8)[:, ::2]}, ValueError, "contiguous"),
        ({"out": np.zeros((9, 8, 3), np.uint8)}, ValueError, "beyond"),
        ({"top": 1}, ValueError, "beyond"), ({"left": 9}, ValueError, "beyond"), ({"shrink": 2}, ValueError, "beyond"),
        ({"left": 2**64 - 1}, ValueError, "beyond"), ({"shrink": 0}, ValueError, "shrink"),
        ({"top": -1}, TypeError, "incompatible"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_refused(change, error, named):
    arguments = {
        "planes": np.zeros((3, 4, 4, 2, 2), np.float32), "offset": 0.5, "top": 0, "left": 0, "shrink": 1,
        "grey": False, "out": np.zeros((8, 8, 3), np.uint8),
    } | change  # fmt: skip
    with pytest.raises(error, match=named):
        _native.pixels(**arguments)


def test_a_read_only_output_is_refused():
    out = np.zeros((8, 8, 3), np.uint8)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="writable"):
        _native.pixels(np.zeros((3, 4, 4, 2, 2), np.float32), 0.5, 0, 0, 1, False, out)


@pytest.mark.parametrize(("fold", "dtype"), [(4, torch.bfloat16), (4, torch.float32), (1, torch.float32)])
def test_a_batch_is_rounded_as_its_pictures(fold, dtype):
    pictures = [folded(fold, 5, 7, seed=seed).flatten(0, 2) for seed in range(3)]
    batch = torch.stack(pictures).to(dtype).contiguous(memory_format=torch.channels_last)
    whole = in_8_bits(batch)
    for planes, pixels in zip(all_planes(batch), whole, strict=True):
        assert torch.equal(rounded(planes, 0, 0, 1, False, 5 * fold, 7 * fold), pixels)
