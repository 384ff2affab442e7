"""Colours of all kinds become 8-bit sRGB: profiles, colour codes, gamma, and more than 8 bits.

pytest tests/test_colour.py
"""

import struct
import warnings

import numpy as np
import pytest
from picture_files import png, saved
from PIL import Image, ImageCms
from tiny import photo

from sodec import picture


def grey_profile(gamma=None, table=None, name=b"grey"):
    """An ICC profile of grey with a gamma, or with a tone curve of 16-bit values."""
    s15 = lambda value: struct.pack(">i", round(value * 65536))  # noqa: E731
    if table is None:
        curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    else:
        curve = b"curv\0\0\0\0" + struct.pack(f">I{len(table)}H", len(table), *table) + b"\0" * (2 * len(table) % 4)
    description = b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name + b"\0" + b"\0" * 78
    description += b"\0" * (-len(description) % 4)
    white = b"XYZ \0\0\0\0" + s15(0.9642) + s15(1) + s15(0.8249)
    tags = {b"desc": description, b"wtpt": white, b"kTRC": curve}
    start, body, directory = 132 + 12 * len(tags), b"", struct.pack(">I", len(tags))
    for tag, data in tags.items():
        directory += tag + struct.pack(">II", start + len(body), len(data))
        body += data
    header = struct.pack(">I4sI4s4s4s", start + len(body), b"lcms", 0x02100000, b"mntr", b"GRAY", b"XYZ ")
    header = (header + b"\0" * 12 + b"acsp" + b"\0" * 28 + s15(0.9642) + s15(1) + s15(0.8249)).ljust(128, b"\0")
    return header + directory + body


def linear_profile(name):
    """sRGB's primaries with gamma 1.0, under any name."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack_from(">I", profile, 128)[0]
    for entry in range(132, 132 + 12 * count, 12):
        tag, at, size = struct.unpack_from(">4sII", profile, entry)
        if tag in (b"rTRC", b"gTRC", b"bTRC"):
            profile[at : at + size] = (b"curv\0\0\0\0" + struct.pack(">IH", 1, 256)).ljust(size, b"\0")
        elif tag == b"desc":
            text = name.encode("utf-16-be")
            body = b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(text), 28) + text
            struct.pack_into(">II", profile, entry + 4, len(profile), len(body))
            profile += body.ljust(len(body) + -len(body) % 4, b"\0")
    struct.pack_into(">I", profile, 0, len(profile))
    return bytes(profile)


def encoded(light):
    """Light in 0..1 as sRGB in 0..255."""
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def test_sixteen_bits_are_rounded_to_eight_with_one_warning():
    values = np.linspace(0, 65535, 48).astype(np.uint16).reshape(6, 8)
    with pytest.warns(UserWarning, match="16") as caught:
        loaded = picture.load(saved(Image.fromarray(values), "PNG"))
    assert len(caught) == 1
    assert np.array_equal(loaded.rgb[..., 0], np.round(values / 257).astype(np.uint8))


def test_cmyk_and_foreign_profiles_are_converted_with_one_warning():
    cmyk = Image.fromarray(photo(16, 16)).convert("CMYK")
    with pytest.warns(UserWarning, match="CMYK") as caught:
        picture.load(saved(cmyk, "TIFF"))
    assert len(caught) == 1
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ"))
    with pytest.warns(UserWarning, match="colour") as caught:
        picture.load(saved(Image.fromarray(photo(16, 16)), "PNG", icc_profile=lab.tobytes()))
    assert len(caught) == 1
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = picture.load(saved(Image.fromarray(photo(16, 16)), "PNG", icc_profile=srgb.tobytes()))
    assert np.array_equal(loaded.rgb, photo(16, 16))


def test_a_profile_whose_pixels_are_converted_is_not_kept():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    lab = ImageCms.profileToProfile(
        Image.fromarray(photo(9, 9)), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    with pytest.warns(UserWarning, match="converted"):
        assert picture.load(saved(lab, "TIFF", icc_profile=profile), metadata=True).metadata.keys() <= {"exif"}


@pytest.mark.parametrize("name", ["GIMP built-in Linear sRGB", "sRGB-elle-V2-g10", "anything"])
def test_profiles_are_judged_by_what_they_do(name):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(np.dstack([values, values.T, values[::-1]]))
    with pytest.warns(UserWarning, match="converted"):
        loaded = picture.load(saved(image, "PNG", icc_profile=linear_profile(name)))
    assert np.abs(loaded.rgb - encoded(np.asarray(image) / 255)).max() < 2


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("curve", ["1.0", "1.75", "dot gain 20 %"])
def test_grey_profiles_are_converted(bits, curve):
    ramp = np.linspace(0, 1, 1024)
    if curve[0] == "1":
        profile, light = grey_profile(gamma=float(curve)), ramp ** float(curve)
    else:
        light = np.clip(1 - (1 - ramp) ** 0.8, 0, 1)  # some curve that is no power
        profile = grey_profile(table=np.round(light * 65535).astype(int))
    values = np.linspace(0, 1, 256)
    stored = np.round(values * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16).reshape(16, 16)
    with pytest.warns(UserWarning, match="converted from 'grey'"):
        loaded = picture.load(saved(Image.fromarray(stored), "PNG", icc_profile=profile))
    assert loaded.grey
    expected = encoded(np.interp(values, ramp, light)).reshape(16, 16)
    assert np.abs(loaded.rgb[..., 0] - expected).max() < 2


def test_png_gamma_chromaticities_and_codes_are_converted():
    colours = np.array([[10, 200, 30], [250, 40, 90]], np.uint8)
    rows = [colours.tobytes()]
    plain = picture.load(png(2, 1, 8, 2, rows)).rgb
    srgb_gamma = png(2, 1, 8, 2, rows, (b"gAMA", struct.pack(">I", 45455)))
    assert np.array_equal(picture.load(srgb_gamma).rgb, plain)
    with pytest.warns(UserWarning, match="gamma 1"):
        linear = picture.load(png(2, 1, 8, 2, rows, (b"gAMA", struct.pack(">I", 100000)))).rgb
    assert np.abs(linear[0] - encoded(colours / 255)).max() < 2
    # Display P3's red is outside of sRGB: green and blue fall to 0
    red = [np.array([[255, 0, 0], [128, 128, 128]], np.uint8).tobytes()]
    for chunk in ((b"cICP", bytes([12, 13, 0, 1])),
                  (b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))):  # fmt: skip
        with pytest.warns(UserWarning, match="primaries"):
            wide = picture.load(png(2, 1, 8, 2, red, chunk)).rgb[0]
        assert wide[0].tolist() == [255, 0, 0]
        assert np.abs(wide[1].astype(int) - 128).max() <= 1, "greys stay grey"
    with pytest.warns(UserWarning, match="HDR"):
        picture.load(png(2, 1, 8, 2, rows, (b"cICP", bytes([9, 16, 0, 1]))))


def test_avif_colour_codes_are_converted():
    data = saved(Image.fromarray(photo(32, 32)), "AVIF", quality=100).getvalue()
    place = data.index(b"colrnclx") + 8
    p3 = data[:place] + struct.pack(">HH", 12, 13) + data[place + 4 :]
    with pytest.warns(UserWarning, match="primaries"):
        assert not np.array_equal(picture.load(p3).rgb, picture.load(data).rgb)
    with pytest.warns(UserWarning, match="PQ"):
        picture.load(data[:place] + struct.pack(">HH", 9, 16) + data[place + 4 :])


@pytest.mark.parametrize(
    ("mode", "values", "top"),
    [("I", [0, 255], 255), ("I", [0, 65535], 65535), ("I", [0, 2**31 - 1], 2**31 - 1), ("F", [0.0, 1.0], 1),
     ("F", [0.0, 255.0], 255), ("F", [0.0, 65535.0], 65535)],
)  # fmt: skip
def test_deep_modes_have_a_stated_range(mode, values, top):
    image = Image.fromarray(np.array([values], np.float32 if mode == "F" else np.int32))
    with pytest.warns(UserWarning, match=rf"0\.\.{top} "):
        assert picture.load(image).rgb[0, :, 0].tolist() == [0, 255]
