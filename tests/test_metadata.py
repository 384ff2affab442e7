"""EXIF, XMP, ICC profiles and resolutions: kept as bytes, and written to every format that can hold them.

pytest tests/test_metadata.py
"""

import io
import struct
import warnings

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin
from tiny import codec, photo

from sodec import picture
from sodec.errors import OutputError
from sodec.picture import exif, metadata
from sodec.picture.writing import encoded

ORIENTATION, MAKE, ARTIST, EXIF_DIRECTORY, VERSION = 0x0112, 0x010F, 0x013B, 0x8769, 0x9000
NAME = "Jörg Müller 山"
XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/">Jörg</x:xmpmeta>'.encode()
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
HOLDS = {
    "AVIF": {"exif", "xmp", "icc_profile"}, "JPEG": {"exif", "xmp", "icc_profile", "dpi"},
    "MPO": {"exif", "xmp", "icc_profile", "dpi"}, "PNG": {"exif", "xmp", "icc_profile", "dpi"},
    "TIFF": {"exif", "xmp", "icc_profile", "dpi"}, "WEBP": {"exif", "xmp", "icc_profile"}, "BMP": {"dpi"},
    "GIF": set(), "JPEG2000": set(), "PPM": set(), "TGA": set(), "PDF": set(),
}  # fmt: skip


def exif_block(order: str = ">", orientation: bytes | None = None, kind: int = 3, extra: bytes = b"") -> bytes:
    """EXIF of orientation 6 with a name in UTF-8 and an inner directory, written by hand."""
    name = NAME.encode() + b"\0"
    name += b"\0" * (len(name) % 2)
    count, place = 3, 8 + 2 + 3 * 12 + 4
    value = struct.pack(order + "HH", 6, 0) if orientation is None else orientation
    tags = struct.pack(order + "HHI", ORIENTATION, kind, 1) + value
    tags += struct.pack(order + "HHII", ARTIST, 2, len(NAME.encode()) + 1, place)
    tags += struct.pack(order + "HHII", EXIF_DIRECTORY, 4, 1, place + len(name))
    inner = struct.pack(order + "HHHI4sI", 1, VERSION, 7, 4, b"0232", 0)
    header = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(order + "IH", 8, count)
    return exif.PREFIX + header + tags + bytes(4) + name + inner + extra


def tags_of(raw: bytes) -> dict:
    tags = Image.Exif()
    tags.load(raw)
    found = dict(tags)
    found.pop(EXIF_DIRECTORY, None)
    return found | tags.get_ifd(EXIF_DIRECTORY)


def name_in(image: Image.Image) -> str:
    return image.getexif()[ARTIST].encode("latin-1").decode()  # as Pillow reads text


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("order", "<>")
def test_the_orientation_alone_is_patched(order):
    raw = exif_block(order)
    kept = picture.load(saved(Image.fromarray(photo(20, 10)), "JPEG", exif=raw), metadata=True)
    assert kept.size == (10, 20)
    changed = [place for place, (before, after) in enumerate(zip(raw, kept.metadata["exif"], strict=True))
               if before != after]  # fmt: skip
    assert len(changed) == 1
    assert exif.orientation(kept.metadata["exif"]) == 1


@pytest.mark.parametrize("order", "<>")
def test_tags_are_added_and_removed_around_those_that_stay(order):
    raw = exif_block(order)
    rest = {ARTIST: NAME.encode().decode("latin-1"), VERSION: b"0232"}
    assert tags_of(exif.without_orientation(raw)) == rest
    wider = exif.with_dpi(raw, (300, 150.5))
    assert tags_of(wider) == rest | {ORIENTATION: 6, 0x011A: 300, 0x011B: 150.5, 0x0128: 2}
    assert exif.dpi(wider) == (300, 150.5)
    assert exif.with_dpi(wider, (72, 72)) == wider
    assert exif.dpi(raw) is None
    assert exif.dpi(exif.with_dpi(b"", (96, 96))) == (96, 96)


BROKEN = [
    b"Exif\0\0II*\0", b"Exif\0\0XX*\0" + bytes(20), exif_block(kind=2, orientation=b"6\0\0\0"), b"Exif\0\0", b"E",
    b"II*\0\xff\xff\xff\xff", exif_block()[:30], bytes(100), exif_block(kind=5), exif_block(kind=99),
]  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
def test_broken_exif_is_left_out_with_a_warning(broken):
    image = Image.fromarray(photo(20, 10))
    image.info["exif"] = broken
    with pytest.warns(UserWarning, match="EXIF is broken"):
        assert picture.load(image, metadata=True).metadata == {}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("broken", BROKEN[:3])
def test_broken_exif_of_a_file_is_left_out_with_a_warning(kind, broken):
    file = saved(Image.fromarray(photo(20, 10)), kind, exif=broken)
    with pytest.warns(UserWarning, match="EXIF is broken"):
        kept = picture.load(file, metadata=True)
    assert kept.size == (20, 10)
    assert kept.metadata == {}


def test_xmp_does_not_turn_the_picture_again():
    xmp = b'<rdf:Description tiff:Orientation="6" a="b"><tiff:Orientation>6</tiff:Orientation></rdf:Description>'
    kept = picture.load(saved(Image.fromarray(photo(20, 10)), "JPEG", exif=exif_block(), xmp=xmp), metadata=True)
    assert kept.metadata["xmp"] == xmp.replace(b"6", b"1")


@pytest.mark.parametrize(
    ("stored", "size"), [(None, (10, 20)), (b"", (10, 20)), (MAKE, (10, 20)), (ORIENTATION, (20, 10))]
)
def test_the_orientation_of_xmp_counts_where_exif_has_none(tmp_path, stored, size):
    tags = Image.Exif()
    if stored:
        tags[stored] = 1 if stored == ORIENTATION else "a camera"
    options = {} if stored is None else {"exif": tags.tobytes() if stored else b""}
    xmp = b'<rdf:Description tiff:Orientation="6"/>'
    file = saved(Image.fromarray(photo(20, 10)), "JPEG", xmp=xmp, **options)
    kept = picture.load(file, metadata=True)
    assert kept.size == size
    assert kept.metadata["xmp"] == xmp.replace(b"6", b"1")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("dpi", [(300, 300), (150, 75)])
def test_the_resolution_is_kept(kind, dpi):
    kept = picture.load(saved(Image.fromarray(photo(20, 10)), kind, dpi=dpi), metadata=True)
    back = Image.open(io.BytesIO(encoded(picture.to_pil(kept), kind)))
    assert back.info["dpi"] == pytest.approx(dpi, abs=0.02)


@pytest.mark.parametrize(
    "dpi", [(0, 0), (72, 72), (float("nan"), 1), (float("inf"), 1), (-3, 3), 300, (1,), "x", 1e300]
)
def test_resolutions_that_say_nothing_take_no_bytes(dpi):
    image = Image.fromarray(photo(20, 10))
    image.info["dpi"] = dpi
    assert picture.load(image, metadata=True).metadata == {}


def test_a_tiff_gives_its_tags_without_those_of_its_layout():
    file = saved(Image.fromarray(photo(20, 10)), "TIFF", exif=metadata._as_tags(exif_block()))
    image = Image.open(io.BytesIO(file))
    kept = picture.load(image, metadata=True).metadata
    resolution = {0x011A: 1, 0x011B: 1, 0x0128: 2}  # which Pillow writes
    assert tags_of(kept["exif"]) == resolution | {ARTIST: NAME.encode().decode("latin-1"), VERSION: b"0232"}
    image.getexif()[ORIENTATION] = 3
    picture.load(image, metadata=True)
    assert image.getexif()[ORIENTATION] == 3  # the caller's own


@pytest.mark.parametrize("kind", HOLDS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_every_format_gets_what_it_holds_and_a_warning_names_the_rest(kind, mode):
    Image.init()
    raw = exif.upright(exif_block())
    image = Image.fromarray(photo(20, 10)).convert(mode)
    image.info |= {"exif": raw, "xmp": XMP, "icc_profile": SRGB, "dpi": (300.0, 300.0)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        file = encoded(image, kind)
    text = " ".join(str(warning.message) for warning in caught)
    for name, title in metadata.TITLES.items():
        assert (title in text) == (name not in HOLDS[kind] and name != "dpi")
    if kind == "PDF":
        return
    back = Image.open(io.BytesIO(file))
    if "exif" in HOLDS[kind]:
        assert name_in(back) == NAME
        assert back.getexif().get_ifd(EXIF_DIRECTORY)[VERSION] == b"0232"
        assert back.getexif().get(ORIENTATION, 1) == 1
    if "xmp" in HOLDS[kind]:
        assert back.info["xmp"] == XMP
    if "icc_profile" in HOLDS[kind]:
        assert back.info["icc_profile"] == SRGB
    if "dpi" in HOLDS[kind]:
        assert back.info["dpi"] == pytest.approx((300, 300), abs=0.01)
    if kind in ("JPEG", "PNG", "WEBP"):
        assert back.info["exif"].removeprefix(exif.PREFIX) == raw.removeprefix(exif.PREFIX)


@pytest.mark.parametrize("kind", ["AVIF", "JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_of_an_orientation_alone_raises_no_alarm(kind):
    exif_alone = Image.Exif()
    exif_alone[ORIENTATION] = 1
    image = Image.fromarray(photo(20, 10))
    image.info["exif"] = exif_alone.tobytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoded(image, kind)


def _hostile() -> dict[str, dict[str, bytes]]:
    random = np.random.default_rng(0)
    little = exif.PREFIX + b"II*\0\x08\0\0\0"
    loop = little + struct.pack("<HHHIII", 1, EXIF_DIRECTORY, 4, 1, 8, 8)
    far = little + struct.pack("<HHHIII", 1, ARTIST, 2, 2**31, 2**31, 0)
    huge = exif.upright(exif_block(extra=bytes(70_000)))
    return {
        "EXIF of 70 KB": {"exif": huge},
        "XMP of 100 KB": {"xmp": b"x" * 100_000},
        "random EXIF": {"exif": random.bytes(500)},
        "random tags": {"exif": little + struct.pack("<H", 20) + random.bytes(2000)},
        "a directory within itself": {"exif": loop},
        "text far behind the end": {"exif": far},
        "text as orientation": {"exif": exif_block(kind=2)},
        "XMP that is no text": {"xmp": random.bytes(5000)},
        "a random profile": {"icc": random.bytes(5000)},
        "a profile of 3 MB": {"icc": random.bytes(3_000_000)},
        "all too long": {"exif": huge, "xmp": bytes(100_000), "icc": random.bytes(3_000_000)},
    }


@pytest.mark.parametrize("kind", [*HOLDS, "DIB", "ICO", "IM", "PCX", "QOI", "SGI", "DDS"])
def test_metadata_breaks_no_writer(kind):
    Image.init()
    bare = Image.fromarray(photo(16, 16))
    for what, stored in _hostile().items():
        image = bare.copy()
        image.info |= metadata.pillow_info(stored)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file = encoded(image, kind)
        if kind in Image.OPEN:
            assert Image.open(io.BytesIO(file)).size == (16, 16), what


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("JPEG", "EXIF of 70 KB"), ("JPEG", "XMP of 100 KB"), ("PDF", "EXIF of 70 KB"), ("TIFF", "random EXIF"),
        ("AVIF", "random EXIF"), ("PNG", "a profile of 3 MB"), ("WEBP", "text as orientation"),
    ],
)  # fmt: skip
def test_what_is_left_out_is_named(kind, what):
    image = Image.fromarray(photo(16, 16))
    stored = _hostile()[what]
    image.info |= metadata.pillow_info(stored)
    (name,) = stored
    with pytest.warns(
        UserWarning, match=rf"{metadata.TITLES[metadata.PILLOW_NAMES[name]]} \({len(stored[name])} bytes"
    ):
        encoded(image, kind)


def test_what_is_too_long_for_a_stream_is_left_out_with_a_warning():
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", b"x" * ((1 << 24) + 1))
    file = saved(Image.fromarray(photo(20, 10)), "PNG", pnginfo=text, exif=exif.upright(exif_block()))
    with pytest.warns(UserWarning, match="XMP of 16777217 bytes"):
        data = codec().compress(file, metadata=True)
    assert set(codec().decompress(data).info) == {"exif"}


@pytest.mark.parametrize(("kind", "size"), [("WEBP", (65_520, 1)), ("ICO", (300, 2)), ("ICNS", (20, 10))])
def test_a_picture_that_a_format_has_no_room_for_is_an_error_of_one_line(kind, size):
    Image.init()
    with pytest.raises(OutputError, match=rf"^{kind} can't hold .*$"):
        encoded(Image.new("RGB", size), kind)
