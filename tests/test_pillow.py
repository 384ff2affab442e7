"""The Pillow plugin: files open by their header, save like any format, and thumbnails decode the preview.

pytest tests/test_pillow.py
"""

import copy
import errno
import io
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageCms
from tiny import codec, photo

import sodec
from sodec._native import crc32c
from sodec.errors import (
    CorruptStreamError,
    NewerFormatError,
    PictureTooLargeError,
    QualityError,
    SodecError,
    TargetError,
    UnknownModelError,
)
from sodec.integrations import pillow_file

MAKE, ORIENTATION = 0x010F, 0x0112
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

pytestmark = pytest.mark.usefixtures("tiny_as_lite")


@pytest.fixture
def scales(monkeypatch):
    """The scales that are decoded."""
    decoded = []
    decompress = sodec.api.decompress

    def call(data, *, scale, **options):
        decoded.append(scale)
        return decompress(data, scale=scale, **options)

    monkeypatch.setattr("sodec.api.decompress", call)
    return decoded


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA"])
def test_every_mode_there_and_back(tmp_path, mode):
    original = Image.fromarray(np.dstack([photo(50, 40), photo(50, 40)[..., 0]])).convert(mode)
    original.save(tmp_path / "a.sodec", quality=30)
    assert (tmp_path / "a.sodec").read_bytes() == codec().compress(original, 30)
    with Image.open(tmp_path / "a.sodec") as opened:
        assert (opened.format, opened.mode, opened.size) == ("SODEC", mode, (50, 40))
        assert opened.get_format_mimetype() == "image/x-sodec"
        expected = codec().decompress((tmp_path / "a.sodec").read_bytes(), output="numpy")
        assert np.array_equal(np.asarray(opened), expected)
        assert np.array_equal(
            np.asarray(opened.convert("RGB").crop((0, 0, 9, 9)))[..., :1], expected[:9, :9].reshape(9, 9, -1)[..., :1]
        )


def test_opening_decodes_nothing(scales):
    data = codec().compress(photo(70, 50))
    opened = Image.open(io.BytesIO(data[:40] + bytes(len(data) - 40)))  # what follows the header is not looked at
    assert opened.size == (70, 50)
    assert scales == []
    with pytest.raises(CorruptStreamError):
        opened.load()


@pytest.mark.parametrize(("size", "scale"), [((17, 12), 1 / 4), ((16, 16), 1 / 2), ((8, 5), 1 / 8), ((60, 60), 1)])
def test_thumbnails_decode_the_preview(scales, size, scale):
    data = codec().compress(photo(140, 100))
    opened = Image.open(io.BytesIO(data))
    opened.thumbnail(size)
    assert scales == [scale]
    assert max(opened.size[0] / size[0], opened.size[1] / size[1]) == 1


def test_draft_is_taken_once_and_before_loading(scales):
    data = codec().compress(photo(133, 101))
    opened = Image.open(io.BytesIO(data))
    mode, box = opened.draft(None, (40, 40))
    assert (mode, opened.size, box) == ("RGB", (67, 51), (0, 0, 66.5, 50.5))
    assert opened.draft(None, (1, 1)) is None
    assert np.asarray(opened).shape == (51, 67, 3)
    assert opened.load() is not None
    assert scales == [1 / 2]


@pytest.mark.parametrize("first", ["import sodec; from PIL import Image", "from PIL import Image; import sodec"])
def test_either_may_be_imported_first(tmp_path, first):
    (tmp_path / "a.sodec").write_bytes(codec().compress(photo(70, 50)))
    script = (
        f"import sys; {first}; image = Image.open('a.sodec'); "
        "assert image.format == 'SODEC'; assert 'torch' not in sys.modules; "
        "assert Image.__spec__.loader.get_source('PIL.Image'); "
        "assert not any(type(finder).__module__ == 'sodec.integrations.pillow' for finder in sys.meta_path)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)


def test_options_and_their_errors(tmp_path):
    image = Image.fromarray(photo(300, 200))
    image.save(tmp_path / "a.sodec", max_bytes=800)
    assert 700 < (tmp_path / "a.sodec").stat().st_size <= 800
    image.save(buffer := io.BytesIO(), "SODEC")
    assert sodec.inspect(buffer.getvalue()).quality == 50
    with pytest.raises(QualityError, match="101"):
        image.save(tmp_path / "b.sodec", quality=101)
    with pytest.raises(TargetError, match="smallest"):
        image.save(tmp_path / "b.sodec", max_bytes=1)
    assert not (tmp_path / "b.sodec").exists()


@pytest.fixture(scope="module")
def tagged():
    """A stream with EXIF, XMP and a profile."""
    exif = Image.Exif()
    exif[MAKE], exif[ORIENTATION] = "a camera", 6
    image = Image.fromarray(photo(30, 20))
    image.info |= {"exif": exif.tobytes(), "xmp": b"<x/>", "icc_profile": SRGB}
    return codec().compress(image, metadata=True)


@pytest.mark.parametrize("after_load", [False, True])
def test_metadata_is_there_with_and_without_pixels(scales, tagged, after_load):
    opened = Image.open(io.BytesIO(tagged))
    if after_load:
        opened.load()
    assert dict(opened.getexif()) == {MAKE: "a camera", ORIENTATION: 1}
    assert opened.info.keys() == {"exif", "xmp", "icc_profile"}
    assert opened.info["icc_profile"] == SRGB
    assert scales == [1] * after_load
    opened.info["mine"] = 1
    opened.load()
    assert opened.info["mine"] == 1
    assert opened.getexif()[MAKE] == "a camera"


def test_metadata_of_a_damaged_file_is_missing_and_pixels_are_an_error(tagged):
    opened = Image.open(io.BytesIO(tagged[:-1] + bytes([tagged[-1] ^ 1])))
    assert opened.info == dict(opened.getexif()) == {}
    with pytest.raises(CorruptStreamError):
        opened.load()


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda image: pickle.loads(pickle.dumps(image)), lambda image: image.copy()],
)
@pytest.mark.parametrize("loaded", [False, True])
def test_copies_have_pixels_and_metadata(tagged, duplicate, loaded):
    opened = Image.open(io.BytesIO(tagged))
    if loaded:
        opened.load()
    twin = duplicate(opened)
    opened.close()
    expected = codec().decompress(tagged, output="numpy")
    assert np.array_equal(np.asarray(twin), expected)
    assert twin.getpixel((3, 4)) == tuple(expected[4, 3])
    assert twin.resize((3, 2)).size == (3, 2)
    assert twin.getexif()[MAKE] == "a camera"
    assert np.array_equal(np.asarray(pickle.loads(pickle.dumps(twin))), expected)
    twin.verify()


def test_an_array_of_a_copy_that_was_never_loaded_has_its_shape(tagged):
    assert np.asarray(copy.deepcopy(Image.open(io.BytesIO(tagged)))).shape == (20, 30, 3)
    assert np.asarray(Image.open(io.BytesIO(tagged)))[..., 0].mean() > 0


def exif_of(make):
    exif = Image.Exif()
    exif[MAKE] = make
    return exif


def test_metadata_that_is_given_is_kept():
    image = Image.fromarray(photo(30, 20))
    image.info |= {"exif": exif_of("its own").tobytes(), "xmp": b"<own/>"}

    def saved(**options):
        image.save(buffer := io.BytesIO(), "SODEC", **options)
        found = Image.open(buffer)
        return found.getexif().get(MAKE), found.info.get("xmp"), found.info.get("icc_profile"), found.info.get("dpi")

    assert saved() == (None, None, None, None)
    assert saved(metadata=True) == ("its own", b"<own/>", None, None)
    assert saved(exif=exif_of("given"), dpi=(300, 300)) == ("given", None, None, (300, 300))
    assert saved(exif=exif_of("given").tobytes(), xmp="<given/>") == ("given", b"<given/>", None, None)
    assert saved(exif=exif_of("given"), icc_profile=SRGB, metadata=True) == ("given", b"<own/>", SRGB, None)
    assert saved(exif=b"", xmp=None, metadata=True) == (None, None, None, None)
    assert saved(exif=exif_of("M\u00fcller \u5c71"))[0].encode("latin-1").decode() == "M\u00fcller \u5c71"
    assert "icc_profile" not in image.info
    with pytest.warns(UserWarning, match="EXIF that is given is broken"):
        assert saved(exif=b"random bytes") == (None, None, None, None)
    with pytest.raises(TypeError, match="exif must be bytes"):
        saved(exif=7)


def test_a_profile_that_is_given_is_that_of_the_pixels():
    image = Image.fromarray(photo(30, 20))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    image.info["icc_profile"] = profile
    image.save(buffer := io.BytesIO(), "SODEC", icc_profile=SRGB)
    assert buffer.getvalue() == codec().compress(tagged_with(SRGB), metadata=True)
    assert image.info["icc_profile"] == profile
    image.save(buffer := io.BytesIO(), "SODEC", icc_profile=None)
    assert buffer.getvalue() == codec().compress(photo(30, 20))


def tagged_with(profile):
    image = Image.fromarray(photo(30, 20))
    image.info["icc_profile"] = profile
    return image


def test_given_exif_turns_nothing_a_second_time(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(photo(30, 20)).save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as image:
        image.save(tmp_path / "a.sodec", exif=image.info["exif"])
    with Image.open(tmp_path / "a.sodec") as opened:
        assert opened.size == (20, 30)
        assert opened.getexif()[ORIENTATION] == 1


@pytest.mark.parametrize("name", [str, os.fsencode, lambda path: path])
@pytest.mark.parametrize(
    "options",
    [{"quality": 101}, {"quality": "high"}, {"max_bytes": 1}, {"exif": 7}, {"flatten": "no colour"}, {"alpha": "none"},
     {"model": "none"}],
)  # fmt: skip
def test_a_save_that_fails_leaves_the_file_as_it_was(tmp_path, options, name):
    path = tmp_path / "A.SODEC"
    image = Image.fromarray(np.dstack([photo(300, 200), photo(300, 200)[..., 0]]))
    image.save(path)
    before = path.read_bytes()
    with pytest.raises((SodecError, TypeError, ValueError)):
        image.save(name(path), **options)
    with pytest.raises((SodecError, TypeError, ValueError)):
        image.save(name(path), "sodec", **options)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["A.SODEC"]


def test_a_file_is_saved_onto_itself(tmp_path, tagged):
    path = tmp_path / "a.sodec"
    path.write_bytes(tagged)
    with Image.open(path) as opened:
        opened.save(path, quality=20, metadata=True)
    with Image.open(path) as opened:
        assert opened.getexif()[MAKE] == "a camera"
        assert opened.load() is not None


def test_where_a_file_can_not_be_saved_the_error_is_that_of_open(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        Image.fromarray(photo(30, 20)).save(tmp_path / "none" / "a.sodec")
    assert caught.value.errno == errno.ENOENT
    assert caught.value.filename == str(tmp_path / "none" / "a.sodec")
    (tmp_path / "b.sodec").mkdir()
    with pytest.raises(OSError, match="folder"):
        Image.fromarray(photo(30, 20)).save(tmp_path / "b.sodec")


def test_other_formats_are_saved_as_ever(tmp_path):
    Image.fromarray(photo(30, 20)).save(tmp_path / "a.png")
    Image.fromarray(photo(30, 20)).save(tmp_path / "a.sodec", format="PNG")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "a.sodec").read_bytes()
    with pytest.raises(ValueError, match="unknown file extension"):
        Image.fromarray(photo(30, 20)).save(tmp_path / "a.unknown")


@pytest.mark.parametrize("place", range(0, 1000, 7))
def test_verify_finds_every_damage(tagged, place):
    Image.open(io.BytesIO(tagged)).verify()
    damaged = bytearray(tagged)
    damaged[place % len(tagged)] ^= 16
    with pytest.raises(OSError):  # noqa: PT011  # a foreign file is Pillow's UnidentifiedImageError
        Image.open(io.BytesIO(damaged)).verify()
    with pytest.raises(OSError):  # noqa: PT011
        Image.open(io.BytesIO(tagged[: place % len(tagged)])).verify()


def newer(data):
    start = data[:3] + bytes([data[3] & 15 | 0xF0]) + data[4:-4]
    return start + crc32c(start).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (lambda data: data[:12], CorruptStreamError), (lambda data: data[:-5], CorruptStreamError),
        (lambda data: data + b"x", CorruptStreamError), (newer, NewerFormatError),
        (lambda data: data[:3] + bytes([data[3] ^ 0x20]) + data[4:], CorruptStreamError),
        (lambda data: data[:3] + bytes([data[3] ^ 0x08]) + data[4:], CorruptStreamError),
        (lambda data: data[:8] + b"\xff\xff\x03\xff\xff\x03" + data[10:], PictureTooLargeError),
    ],
)  # fmt: skip
@pytest.mark.parametrize("use", [Image.Image.load, Image.Image.verify, np.asarray, copy.deepcopy])
def test_what_is_wrong_with_a_file_is_an_os_error_too(tmp_path, data, kind, use):
    path = tmp_path / "a.sodec"
    path.write_bytes(data(codec().compress(photo(30, 20))))
    with pytest.raises(kind) as caught, Image.open(path) as opened:
        use(opened) if use is np.asarray or use is copy.deepcopy else getattr(opened, use.__name__)()
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value, SodecError)
    assert type(pickle.loads(pickle.dumps(caught.value))) is type(caught.value)
    assert "\n" not in str(caught.value)


def test_foreign_weights_are_an_os_error_too(tagged):
    opened = Image.open(io.BytesIO(codec().compress(photo(30, 20))[:-4].replace(tagged[4:7], b"abc")))
    with pytest.raises(OSError):  # noqa: PT011  # its check fails first
        opened.load()
    with pytest.raises(UnknownModelError) as caught, pillow_file._errors_of_files():
        raise UnknownModelError("weights abc")
    assert isinstance(caught.value, OSError)


def test_a_closed_image_says_so(tagged):
    with Image.open(io.BytesIO(tagged)) as opened:
        pass
    with pytest.raises(OSError, match="closed"):
        opened.load()
