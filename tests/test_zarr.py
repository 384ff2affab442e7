"""sodec inside numcodecs and zarr, where they are installed.

pytest tests/test_zarr.py
"""

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
from tiny import codec, photo

from sodec.errors import CorruptStreamError, QualityError, UnsupportedPictureError


@pytest.mark.usefixtures("tiny_as_lite")
def test_numcodecs_round_trips():
    numcodecs = pytest.importorskip("numcodecs")
    from sodec.integrations.numcodecs import Sodec

    made = Sodec(quality=30)
    assert numcodecs.get_codec(made.get_config()) == made
    assert made.get_config() == {"id": "sodec", "quality": 30, "model": "lite", "device": "cpu"}
    for chunk in (photo(40, 30), photo(40, 30)[None, None], photo(40, 30)[..., 0], photo(40, 3)[None, ..., 1]):
        data = made.encode(chunk)
        picture = chunk.reshape([n for i, n in enumerate(chunk.shape) if n > 1 or i > chunk.ndim - 3])
        expected = codec().decompress(codec().compress(picture, 30), output="numpy")
        assert np.array_equal(made.decode(data), expected)
        out = np.empty(chunk.shape, np.uint8)
        made.decode(np.frombuffer(data, np.uint8), out)
        assert np.array_equal(out.reshape(expected.shape), expected)
    for chunk in (photo(40, 30).astype(np.uint16), np.stack([photo(9, 9)] * 2), photo(9, 9)[:, 0, 0]):
        with pytest.raises(UnsupportedPictureError):
            made.encode(chunk)


@pytest.mark.usefixtures("tiny_as_lite")
def test_numcodecs_and_the_order_of_memory():
    pytest.importorskip("numcodecs")
    from sodec.integrations.numcodecs import Sodec

    codec_2 = Sodec(quality=30)
    expected = codec_2.decode(codec_2.encode(photo(40, 30)))
    with pytest.raises(UnsupportedPictureError, match="Fortran order"):
        codec_2.encode(np.asfortranarray(photo(40, 30)))
    assert np.array_equal(codec_2.decode(codec_2.encode(photo(40, 30)[::-1][::-1])), expected)
    out = np.empty((1, 30, 40, 3), np.uint8, order="F")
    assert codec_2.decode(codec_2.encode(photo(40, 30)), out) is out
    assert np.array_equal(out[0], expected)


def zarr_array(zarr, version, shape, chunks, store=None, **options):
    """An array of pictures with sodec as its codec, of zarr's format 2 or 3."""
    if version == 2:
        from sodec.integrations.numcodecs import Sodec

        options |= {"compressors": Sodec(quality=40)}
    else:
        from sodec.integrations.zarr import SodecCodec

        options |= {"serializer": SodecCodec(quality=40), "compressors": None}
    options = {"dtype": "u1", "zarr_format": version} | options
    return zarr.create_array({} if store is None else store, shape=shape, chunks=chunks, **options)


@pytest.mark.usefixtures("tiny_as_lite")
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("planes", [0, 3, 4])
def test_zarr_arrays(version, planes, tmp_path):
    zarr = pytest.importorskip("zarr")
    pictures = [np.dstack([photo(60, 40, seed), photo(60, 40, 9)[..., 0]]) for seed in range(2)]
    pictures = [picture[..., 0] if planes == 0 else picture[..., :planes] for picture in pictures]
    shape = pictures[0].shape
    array = zarr_array(zarr, version, (3, *shape), (1, *shape), tmp_path / "a.zarr", fill_value=7)
    array[:2] = np.stack(pictures)
    array = zarr.open_array(tmp_path / "a.zarr")  # what is stored finds the codec
    for number, picture in enumerate(pictures):
        expected = codec().decompress(codec().compress(picture, 40, alpha="lossless"), output="numpy")
        assert np.array_equal(array[number], expected)
    assert (array[2] == 7).all()  # never written
    array[0, :4] = 0  # a part of a chunk: it is read, changed and written
    assert array[0].shape == shape


@pytest.mark.usefixtures("tiny_as_lite")
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("planes", [3, 4])
def test_zarr_chunks_of_equal_planes_keep_their_shape(version, planes):
    zarr = pytest.importorskip("zarr")
    array = zarr_array(zarr, version, (70, 90, planes), (40, 60, planes))
    array[:] = np.repeat(photo(90, 70)[..., :1], planes, -1)
    assert array[:].shape == (70, 90, planes)


@pytest.mark.usefixtures("tiny_as_lite")
def test_zarr_in_fortran_order_is_refused_or_right():
    zarr = pytest.importorskip("zarr")
    picture = photo(60, 40)
    array = zarr_array(zarr, 2, (1, 40, 60, 3), (1, 40, 60, 3), order="F")
    with pytest.raises(UnsupportedPictureError, match='order="C"'):
        array[0] = picture
    array = zarr_array(zarr, 3, (1, 40, 60, 3), (1, 40, 60, 3), config={"order": "F"})
    array[:] = np.asfortranarray(picture[None])
    expected = codec().decompress(codec().compress(picture, 40), output="numpy")
    assert np.array_equal(array[0], expected)


@pytest.mark.usefixtures("tiny_as_lite")
def test_zarr_3_metadata_shards_and_what_it_refuses():
    zarr = pytest.importorskip("zarr", minversion="3")
    from sodec.integrations.zarr import SodecCodec

    array = zarr_array(zarr, 3, (80, 120, 3), (40, 60, 3), shards=(80, 120, 3))
    array[:] = photo(120, 80)
    assert np.array_equal(array[:40, 60:], decoded(photo(120, 80)[:40, 60:]))
    assert SodecCodec.from_dict(SodecCodec(30).to_dict()) == SodecCodec(30)
    assert SodecCodec.from_dict({"name": "sodec"}) == SodecCodec()
    assert SodecCodec(30).to_dict() == {"name": "sodec", "configuration": {"quality": 30, "model": "lite"}}
    for shape, chunks, options in (
        ((80, 120, 3), (40, 60, 3), {"dtype": "u2"}),
        ((2, 80, 120, 3), (2, 80, 120, 3), {}),
        ((80,), (80,), {}),
        ((80, 120, 2), (80, 120, 2), {}),
    ):
        with pytest.raises(UnsupportedPictureError, match="must be"):
            zarr_array(zarr, 3, shape, chunks, **options)
    with pytest.raises(QualityError, match="101"):
        SodecCodec(101)
    store = {}
    array = zarr_array(zarr, 3, (40, 60, 3), (40, 60, 3), store)
    array[:] = photo(60, 40)
    (name,) = [name for name in store if name.startswith("c/")]
    store[name] = type(store[name]).from_bytes(codec().compress(photo(30, 20)))
    with pytest.raises(CorruptStreamError, match=r"\(20, 30, 3\), not \(40, 60, 3\)"):
        array[:]


def decoded(chunk):
    return codec().decompress(codec().compress(chunk, 40), output="numpy")


def test_entry_points_name_the_codecs():
    pytest.importorskip("zarr", minversion="3")
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    named = re.findall(r'entry-points."(.+)"\]\nsodec = "(.+):(.+)"', project)
    assert [group for group, _, _ in named] == ["numcodecs.codecs", "zarr.codecs"]
    for _, module, name in named:
        assert getattr(importlib.import_module(module), name).__module__ == module
