"""The golden streams: the encoder still writes them, and the package's decoder and the reference decoder read them.

pytest tests/test_golden.py
"""

import hashlib
import json

import numpy as np
import pytest
from golden import make as recipes
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from reference import decoder as reference

import sodec
from sodec import _native, entropy
from sodec.errors import CorruptStreamError, NewerFormatError
from sodec.files import PHOTO
from sodec.stream import container, symbols
from sodec.weights import find

HERE = recipes.HERE
MODEL = json.loads((HERE / "model.json").read_text())
FILES = {kind: sorted((HERE / kind).iterdir()) for kind in ("payloads", "streams", "errors")}
LITE_CROP = (200, 100, 456, 292)  # of the bundled photo: what the streams in lite/ show
LITE_SYMBOLS = {"eb1e22": "1bcdc1934900a9973136a8da7e7c7bc30cafd3e399af0497694e3300306d29fb"}  # SHA-256 of z and y


@pytest.fixture(scope="module", autouse=True, params=_native.cpu()["supported"])
def instruction_set(request):
    """Runs every test of this file on every instruction set of this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SODEC_CPU", request.param)
        yield request.param


def package_tiles(data):
    """The package's reading of a stream: the container, and (z, y) of each tile as flat lists."""
    stream = container.read(data, max_tile=container.MAX_SIDE)  # the reference knows no limit of the caller's
    z_tables, y_tables = (recipes.native_tables(MODEL[name]) for name in ("z_tables", "y_tables"))
    network = recipes.native_network(MODEL)
    offset = np.array(MODEL["offsets"][round(2 * stream.quality) - 2], np.int32)
    side, tiles = 1 << stream.tile_log2, []
    corners = [(x, y) for y in range(0, stream.height, side) for x in range(0, stream.width, side)]
    for payload, (left, top) in zip(stream.payloads, corners, strict=True):
        rows, columns = -(-min(side, stream.height - top) // 16), -(-min(side, stream.width - left) // 16)
        channels = np.arange(3, dtype=np.uint8).reshape(3, 1, 1).repeat(-(-rows // 4), 1).repeat(-(-columns // 4), 2)
        decoder = entropy.Decoder(payload)
        z = decoder.read(channels, z_tables)
        indexes = network.indexes(z.transpose(1, 2, 0), offset)[:rows, :columns].transpose(2, 0, 1)
        y = decoder.read(np.where(indexes == 0, np.uint8(entropy.SKIP), indexes), y_tables)
        decoder.finish()
        tiles.append((z.ravel().tolist(), y.ravel().tolist()))
    return stream, tiles


def test_every_recipe_has_its_file_and_every_file_its_recipe():
    assert {path.stem for path in FILES["payloads"]} == set(recipes.PAYLOADS)
    assert {path.stem for path in FILES["streams"]} == set(recipes.STREAMS)
    assert {path.stem for path in FILES["errors"]} == set(ERRORS)


@pytest.mark.parametrize("path", FILES["payloads"], ids=lambda path: path.stem)
def test_payloads(path):
    data = path.read_bytes()
    sections, lanes = recipes.payload_case(path.stem)
    assert recipes.make_payload(path.stem) == data
    assert lanes in (0, entropy.payload_info(data)[0])
    native, plain = entropy.Decoder(data), reference.Payload(data)
    for expected, indexes, tables in sections:
        assert native.read(np.array(indexes, np.uint8), recipes.native_tables(tables)).tolist() == expected
        assert plain.read(indexes, tables) == expected
    native.finish()
    plain.finish()


@pytest.mark.parametrize("path", FILES["streams"], ids=lambda path: path.stem)
def test_streams(path):
    data = path.read_bytes()
    if path.stem not in recipes.READ_ONLY:
        assert recipes.make_stream(path.stem, MODEL) == data
    expected = [(z.ravel().tolist(), y.ravel().tolist()) for z, y, _ in recipes.stream_tiles(path.stem, MODEL)]
    fields = {"grey": False, "alpha": None} | recipes.STREAMS[path.stem]
    stream, tiles = package_tiles(data)
    fingerprint, width, height, quality, grey, alpha, plain_tiles = reference.decode(data, MODEL)
    assert tiles == plain_tiles == expected
    assert fingerprint == stream.fingerprint == recipes.FINGERPRINT
    for name, plain in (("width", width), ("height", height), ("quality", quality), ("grey", grey)):
        assert getattr(stream, name) == plain == fields[name]
    if fields["alpha"] is None:
        assert stream.alpha is alpha is None
    else:
        assert stream.alpha.ravel().tolist() == alpha == fields["alpha"].ravel().tolist()


def test_the_golden_tiles_have_coded_and_skipped_symbols_and_many_scales():
    indexes = np.concatenate(
        [tile[2].ravel() for name in recipes.STREAMS for tile in recipes.stream_tiles(name, MODEL)]
    )
    assert 0.05 < (indexes == entropy.SKIP).mean() < 0.6
    assert len(np.unique(indexes)) > 30


RELEASED = sorted((HERE / "lite").glob("*.sodec"))


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.stem)
def test_streams_of_released_codings_give_the_same_symbols_for_ever(path):
    info = sodec.inspect(path)
    assert (info.fingerprint, info.model) == (path.stem, "lite")
    stream = container.read(path.read_bytes())
    cells = (-(-stream.height // 16), -(-stream.width // 16))
    z, y = symbols.decode(find("lite").coding, stream.payloads[0], stream.quality, *cells)
    assert hashlib.sha256(z.astype("<i2").tobytes() + y.astype("<i2").tobytes()).hexdigest() == LITE_SYMBOLS[path.stem]


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.stem)
def test_streams_of_released_codings_are_painted_by_the_bundled_decoder(path):
    pytest.importorskip("torch")
    with Image.open(PHOTO) as photo:
        original = np.asarray(photo.convert("RGB").crop(LITE_CROP), float)
    error = np.square(sodec.decompress(path, output="numpy") - original).mean()
    assert 10 * np.log10(255**2 / error) > 22.5, "the first decoder of this coding has 23.5 dB"


ERRORS = {
    "truncated": (CorruptStreamError, "truncated or altered"),
    "wrong-magic": (CorruptStreamError, "89 50 4e"),
    "altered": (CorruptStreamError, "truncated or altered"),
    "version-2": (NewerFormatError, "version 2"),
    "version-0": (CorruptStreamError, "version 0"),
    "flag-3": (NewerFormatError, "flag 3"),
    "quality-201": (CorruptStreamError, "quality 100.5"),
    "no-width": (CorruptStreamError, "0x70"),
    "long-varint": (CorruptStreamError, "width: not the shortest"),
    "critical-flag": (NewerFormatError, "critical flag 0"),
    "tile-size": (CorruptStreamError, r"tile size 2\^5"),
    "critical-section": (NewerFormatError, "critical section 2"),
    "altered-header": (CorruptStreamError, "extended header"),
    "altered-tile": (CorruptStreamError, "the check of tile 5"),
    "payload-header": (CorruptStreamError, "header byte"),
    "payload-precision": (CorruptStreamError, "bits of precision"),
    "payload-end": (CorruptStreamError, ""),
    "payload-short": (CorruptStreamError, ""),
    "payload-long": (CorruptStreamError, "does not end where encoding started"),
}


@pytest.mark.parametrize("path", FILES["errors"], ids=lambda path: path.stem)
def test_errors(path):
    error, message = ERRORS[path.stem]
    with pytest.raises(error, match=message or None):
        package_tiles(path.read_bytes())
    with pytest.raises(reference.Newer if error is NewerFormatError else reference.Corrupt):
        reference.decode(path.read_bytes(), MODEL)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), name=st.sampled_from(sorted(recipes.STREAMS)))
def test_both_decoders_agree_about_altered_streams(data, name):
    stream = bytearray((HERE / "streams" / f"{name}.sodec").read_bytes())
    for _ in range(data.draw(st.integers(1, 2))):
        stream[data.draw(st.integers(0, len(stream) - 5))] ^= data.draw(st.integers(1, 255))
    stream = recipes.resealed(bytes(stream))
    try:
        plain = reference.decode(stream, MODEL)[-1]
    except (reference.Corrupt, reference.Newer) as error:
        expected = NewerFormatError if isinstance(error, reference.Newer) else CorruptStreamError
        with pytest.raises(expected):
            package_tiles(stream)
    else:
        assert package_tiles(stream)[1] == plain
