"""Pictures of all kinds: converted, kept unchanged, or refused by name.

pytest tests/test_picture.py
"""

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from picture_files import png, saved
from PIL import Image, ImageCms, ImageOps
from tiny import photo

from sodec import picture
from sodec.errors import PictureTooLargeError, SodecError, UnsupportedPictureError
from sodec.picture import opening
from sodec.stream import sections


def test_array_pil_and_tensor_give_the_same_picture():
    array = photo(31, 17)
    tensor = torch.from_numpy(array).permute(2, 0, 1).float() / 255
    for source in (array, Image.fromarray(array), tensor, saved(Image.fromarray(array), "PNG")):
        assert np.array_equal(picture.load(source).rgb, array)


def test_exif_orientation_is_applied_once():
    array = photo(20, 10)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    loaded = picture.load(saved(Image.fromarray(array), "PNG", exif=exif))
    assert loaded.size == (10, 20)
    assert np.array_equal(loaded.rgb, np.rot90(array, -1))


def test_grey_stays_grey():
    array = photo(9, 7)[..., 0]
    loaded = picture.load(saved(Image.fromarray(array), "PNG"))
    assert loaded.grey
    assert picture.to_pil(loaded).mode == "L"
    assert np.array_equal(picture.to_array(loaded), array)
    assert picture.to_tensor(loaded).shape == (1, 7, 9)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGBa"])
def test_alpha_is_kept(mode):
    rgba = Image.fromarray(np.dstack([photo(8, 6), np.arange(48, dtype=np.uint8).reshape(6, 8) * 5]), "RGBA")
    if mode == "P":
        image = Image.fromarray(photo(8, 6)).quantize(8)
        image.info["transparency"] = 3
        expected = np.where(np.asarray(image) == 3, 0, 255)
    else:
        image = rgba.convert(mode)
        expected = np.asarray(rgba.getchannel("A"))
    loaded = picture.load(image)
    assert np.array_equal(loaded.alpha, expected)
    assert picture.to_pil(loaded).mode == ("LA" if loaded.grey else "RGBA")


def test_animation_is_refused_unless_its_first_frame_will_do():
    frames = [Image.fromarray(photo(8, 8, seed)) for seed in range(3)]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(UnsupportedPictureError, match="3 frames"):
        picture.load(data)
    assert picture.load(data, first_frame=True).size == (8, 8)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4, 5), np.uint8), r"\(4, 4, 5\)"),
        (np.zeros((0, 4, 3), np.uint8), "4x0"),
        (np.zeros(4, np.uint8), r"\(4,\)"),
        (torch.full((3, 4, 4), float("nan")), "nan"),
        (torch.full((3, 4, 4), 2.0), "2"),
        (torch.zeros(3, 4, 4, dtype=torch.int32), "int32"),
        (torch.zeros(5, 4, 4), r"\(5, 4, 4\)"),
        (io.BytesIO(b""), "not a picture"),
        (io.BytesIO(b"no picture at all"), "not a picture"),
        (12, "int"),
    ],
)
def test_what_is_no_picture_is_refused_by_name(source, message):
    with pytest.raises(UnsupportedPictureError, match=message):
        picture.load(source)


def test_truncated_file_is_refused():
    data = saved(Image.fromarray(photo(64, 64)), "PNG").getvalue()
    with pytest.raises(UnsupportedPictureError, match="decoded"):
        picture.load(io.BytesIO(data[: len(data) // 2]))


def test_decompression_bomb_is_refused_before_it_is_decoded():
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(PictureTooLargeError):
        picture.load(io.BytesIO(bomb))


def test_missing_file_is_the_usual_error():
    with pytest.raises(FileNotFoundError):
        picture.load("there/is/none.png")


def test_every_refusal_is_a_sodec_error_and_a_value_error():
    assert issubclass(UnsupportedPictureError, SodecError)
    assert issubclass(UnsupportedPictureError, ValueError)


def test_metadata_is_kept_on_demand_without_the_orientation():
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    file = saved(Image.fromarray(photo(20, 10)), "JPEG", exif=exif, icc_profile=profile, xmp=b"<x/>")
    kept = picture.load(file, metadata=True)
    assert kept.size == (10, 20)
    assert kept.metadata.keys() == {"exif", "icc", "xmp"}
    back = Image.Exif()
    back.load(kept.metadata["exif"])
    assert dict(back) == {0x0112: 1, 0x010F: "a camera"}
    assert picture.to_pil(kept).info == {"exif": kept.metadata["exif"], "icc_profile": profile, "xmp": b"<x/>"}
    file.seek(0)
    assert picture.load(file).metadata == {}


# -- the kinds of trouble that people report of image codecs


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_files_and_opened_images_is_that_of_pillow(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = saved(Image.fromarray(photo(20, 10)), "PNG", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(file)))
    file.seek(0)
    assert np.array_equal(picture.load(file).rgb, expected)
    file.seek(0)
    assert np.array_equal(picture.load(Image.open(file)).rgb, expected)


@pytest.mark.parametrize(
    "edit",
    [
        lambda image: image.rotate(270, expand=True),
        lambda image: image.transpose(Image.Transpose.ROTATE_90),
        lambda image: image.copy(),
        lambda image: image.resize((7, 9)),
        ImageOps.mirror,
    ],
)
def test_stale_orientation_of_an_edited_image_is_not_applied(edit):
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(saved(Image.fromarray(photo(20, 10)), "JPEG", exif=exif, quality=100)) as image:
        edited = edit(image)
    assert np.array_equal(picture.load(edited).rgb, np.asarray(edited))


def test_three_equal_planes_are_grey_whatever_they_came_in():
    plane = photo(24, 16)[..., 0]
    rgb = plane[..., None].repeat(3, -1)
    opaque = np.dstack([rgb, np.full(plane.shape, 9, np.uint8)])
    palette = Image.fromarray(plane).convert("P")
    sources = [rgb, Image.fromarray(rgb), torch.from_numpy(rgb).permute(2, 0, 1), saved(Image.fromarray(rgb), "PNG"),
               saved(Image.fromarray(rgb), "WEBP", lossless=True), opaque, palette]  # fmt: skip
    for source in sources:
        loaded = picture.load(source)
        assert loaded.grey
        assert np.array_equal(loaded.rgb[..., 0], plane)
    rgb[3, 4, 1] ^= 1
    assert not picture.load(rgb).grey


GREY_ROWS = {1: bytes([0b01010101]), 2: bytes([0b00011011, 0b00011011]), 4: bytes([0x01, 0x23, 0x45, 0x67])}


@pytest.mark.parametrize(
    ("depth", "kind", "row", "hidden", "transparent"),
    [
        (1, 0, GREY_ROWS[1], (1,), [0, 1, 0, 1, 0, 1, 0, 1]),
        (2, 0, GREY_ROWS[2], (2,), [0, 0, 1, 0, 0, 0, 1, 0]),
        (4, 0, GREY_ROWS[4], (3,), [0, 0, 0, 1, 0, 0, 0, 0]),
        (8, 0, bytes(range(8)), (5,), [0, 0, 0, 0, 0, 1, 0, 0]),
        (16, 0, struct.pack(">8H", *range(1790, 1798)), (1795,), [0, 0, 0, 0, 0, 1, 0, 0]),
        (8, 2, bytes(range(24)), (6, 7, 8), [0, 0, 1, 0, 0, 0, 0, 0]),
        (16, 2, struct.pack(">24H", *range(0, 24 * 256, 256)), (6 * 256, 7 * 256, 8 * 256), [0, 0, 1, 0, 0, 0, 0, 0]),
    ],
)
@pytest.mark.filterwarnings("ignore:the picture is of mode")
def test_transparent_colours_of_every_depth_are_transparent(depth, kind, row, hidden, transparent):
    data = png(8, 1, depth, kind, [row], (b"tRNS", struct.pack(f">{len(hidden)}H", *hidden)))
    loaded = picture.load(data)
    assert loaded.alpha is not None
    assert (loaded.alpha[0] == 0).tolist() == [bool(value) for value in transparent]


def test_colour_under_full_transparency_is_filled_from_around():
    rgba = np.zeros((96, 128, 4), np.uint8)
    y, x = np.mgrid[:96, :128]
    disc = (y - 48) ** 2 + (x - 64) ** 2 < 30**2
    rgba[disc] = (220, 30, 20, 255)
    loaded = picture.load(rgba)
    assert np.array_equal(loaded.alpha, rgba[..., 3])
    assert np.abs(loaded.rgb.astype(int) - (220, 30, 20)).max() <= 1, "no dark ring: nothing else is seen anywhere"


def test_lossy_alpha_is_within_its_error_and_smaller():
    y, x = np.mgrid[:256, :256]
    soft = np.clip(320 - 2 * np.hypot(y - 128, x - 128), 0, 255).astype(np.uint8)
    noisy = np.clip(soft.astype(int) + np.random.default_rng(0).integers(-30, 31, soft.shape), 0, 255).astype(np.uint8)
    for mask, share in ((soft, 1.01), (noisy, 0.75)):
        rgba = np.dstack([photo(256, 256), mask])
        lossy = picture.load(rgba, alpha="lossy").alpha
        assert np.abs(lossy.astype(int) - mask).max() <= 4
        assert np.array_equal(lossy == 0, mask == 0)
        assert np.array_equal(lossy == 255, mask == 255)
        assert np.array_equal(picture.load(rgba).alpha, mask)
        assert len(sections.pack_alpha(lossy)) < share * len(sections.pack_alpha(mask))
    with pytest.raises(UnsupportedPictureError, match="alpha must be one of"):
        picture.load(rgba, alpha="exact")


def test_flatten_puts_the_picture_on_a_colour():
    rgba = np.full((8, 8, 4), (200, 100, 0, 128), np.uint8)
    loaded = picture.load(rgba, flatten="#ffffff")
    assert loaded.alpha is None
    assert loaded.rgb[0, 0].tolist() == [227, 177, 127]
    with pytest.raises(UnsupportedPictureError, match="flatten must be a colour"):
        picture.load(rgba, flatten="colourless")


def test_only_frames_in_time_are_an_animation(tmp_path):
    frames = [Image.fromarray(photo(16, 16, seed)) for seed in range(2)]
    camera = saved(frames[0], "MPO", save_all=True, append_images=frames[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert picture.load(camera).size == (16, 16)
    pages = tmp_path / "pages.tif"
    first, second = (Image.fromarray(photo(16, 16, seed)) for seed in range(2))
    first.save(pages, save_all=True, append_images=[second])
    with pytest.warns(UserWarning, match="2 pictures; the first"):
        assert np.array_equal(picture.load(pages).rgb, photo(16, 16))
    for kind in ("WEBP", "GIF", "PNG", "AVIF"):
        with pytest.raises(UnsupportedPictureError, match="animation of 2 frames"):
            picture.load(saved(frames[0], kind, save_all=True, append_images=frames[1:]))


def test_first_frame_is_the_first_whichever_is_shown():
    frames = [Image.fromarray(photo(16, 16, seed)) for seed in range(3)]
    image = Image.open(saved(frames[0], "PNG", save_all=True, append_images=frames[1:]))
    image.seek(2)
    assert np.array_equal(picture.load(image, first_frame=True).rgb, photo(16, 16))
    assert image.tell() == 2


def test_own_outputs_are_taken_as_inputs():
    for source in (photo(12, 9), photo(12, 9)[..., 0], np.dstack([photo(12, 9)[..., :1], photo(12, 9, 1)[..., :1]]),
                   np.dstack([photo(12, 9), photo(12, 9, 1)[..., :1]])):  # fmt: skip
        loaded = picture.load(source)
        for again in (picture.to_array(loaded), picture.to_tensor(loaded), picture.to_pil(loaded)):
            same = picture.load(again)
            assert np.array_equal(picture.to_array(same), picture.to_array(loaded))
    data = saved(Image.fromarray(photo(12, 9)), "PNG").getvalue()
    for source in (data, bytearray(data), memoryview(data), torch.from_numpy(photo(12, 9)).permute(2, 0, 1)):
        assert np.array_equal(picture.load(source).rgb, photo(12, 9))


@pytest.mark.parametrize(
    "chunk",
    [
        (b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 2_000_000)),
        (b"iCCP", b"name\0\0" + zlib.compress(b"\0" * 1_500_000)),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"y" * 3_000_000)),
        (b"eXIf", b"II*\0"),
        (b"eXIf", b"XX*\0\x08\0\0\0"),
        (b"tIME", b"\0"),
    ],
)
def test_what_is_no_pixels_never_fails_a_picture(chunk):
    data = png(4, 2, 8, 2, [photo(4, 2)[row].tobytes() for row in range(2)], chunk)
    broken = bytearray(data)
    broken[data.index(chunk[0]) + 4 + len(chunk[1])] ^= 0xFF  # its check
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for metadata in (False, True):
            assert np.array_equal(picture.load(data, metadata=metadata).rgb, photo(4, 2))
        assert np.array_equal(picture.load(bytes(broken)).rgb, photo(4, 2))


@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0", b"Exif\0\0XX*\0\x08\0\0\0", b"Exif\0\0", b"junk",
                                  b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0abc\0"])  # fmt: skip
def test_broken_exif_is_left_out_or_kept_as_it_is(exif):
    data = saved(Image.fromarray(photo(16, 16)), "JPEG", exif=exif).getvalue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert picture.load(data, metadata=True).size == (16, 16)


def test_exif_is_kept_byte_for_byte_but_for_the_orientation():
    name = "José Ångström".encode()
    entries = [(0x0112, 3, 1, struct.pack("<HH", 6, 0)), (0x013B, 2, len(name) + 1, struct.pack("<I", 38))]
    body = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + body + b"\0\0\0\0" + name + b"\0"
    kept = picture.load(saved(Image.fromarray(photo(20, 10)), "JPEG", exif=exif), metadata=True)
    assert kept.size == (10, 20)
    changed = [at for at, (old, new) in enumerate(zip(exif, kept.metadata["exif"], strict=True)) if old != new]
    assert changed == [6 + 8 + 2 + 8]
    assert name in kept.metadata["exif"]


def test_no_program_is_started_for_a_picture(tmp_path, monkeypatch):
    path = tmp_path / "x.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")
    monkeypatch.setattr("subprocess.Popen", lambda *a, **k: pytest.fail("a program was started"))
    with pytest.raises(UnsupportedPictureError, match=r"x\.jpg is EPS"):
        picture.load(path)


@pytest.mark.parametrize(("start", "kind", "package"), [
    (b"\0\0\0\x18ftypheic\0\0\0\0heic", "HEIF", "pillow-heif"),
    (b"\xff\x0a" + b"\0" * 20, "JXL", "pillow-jxl-plugin"),
    (b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0" * 20, "JXL", "pillow-jxl-plugin"),
])  # fmt: skip
def test_a_format_that_needs_a_plugin_names_it(start, kind, package, monkeypatch):
    monkeypatch.setattr(opening, "PLUGINS", {})
    monkeypatch.delitem(Image.OPEN, kind, raising=False)  # where the plugin is installed and an earlier test used it
    with pytest.raises(UnsupportedPictureError, match=f"pip install {package}"):
        picture.load(start + b"\0" * 64)


@pytest.mark.parametrize(("raised", "said"), [("broken \n  see the log", "broken"), ("", "ValueError")])
def test_what_a_plugin_raises_is_shown_in_one_line(raised, said, monkeypatch):
    def fail(file, name):
        raise ValueError(raised)

    Image.init()
    monkeypatch.setitem(Image.OPEN, "QOI", (fail, lambda start: start.startswith(b"qoif")))
    with pytest.raises(UnsupportedPictureError, match=f"^the picture can't be decoded: {said}$"):
        picture.load(b"qoif" + bytes(60))


def test_one_limit_of_pixels_and_no_warning_of_pillow():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PictureTooLargeError, match="the limit is 100 "):
            picture.load(photo(11, 10), max_pixels=100)
        with pytest.raises(PictureTooLargeError, match="max-pixels"):
            picture.load(saved(Image.fromarray(photo(11, 10)), "PNG"), max_pixels=100)
        wide = png(20000, 10000, 1, 0, [b"\0" * 2500] * 10000)  # more than Pillow's 179 million
        assert picture.load(wide).size == (20000, 10000)


def test_threads_leave_the_warning_filters_alone():
    files = [saved(Image.fromarray(photo(30, 20)), "PNG").getvalue() for _ in range(40)]
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(picture.load, files))
    assert warnings.filters == before


def test_suffixes_are_those_that_can_be_opened():
    found = picture.suffixes()
    assert {".jpg", ".jfif", ".jpe", ".png", ".tga", ".jp2", ".pgm", ".mpo", ".avif"} <= found
    assert not {".eps", ".pdf", ".mpg", ".sodec"} & found


def test_the_limit_that_pillow_keeps_for_tiff_is_named(monkeypatch):
    data = saved(Image.new("L", (40, 30)), "TIFF", compression="tiff_deflate")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(PictureTooLargeError, match=r"more than 200 pixels \(twice PIL\.Image\.MAX_IMAGE_PIXELS\)"):
        picture.load(data)
