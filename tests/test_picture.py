"""Pictures as they come: what is converted, what is kept, what is refused by name.

pytest tests/test_picture.py
"""

import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from tiny import photo

from sodec import picture
from sodec.errors import PictureTooLargeError, SodecError, UnsupportedPictureError


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    buffer.seek(0)
    return buffer


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
        (np.zeros((4, 4, 2), np.uint8), r"\(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), "4x0"),
        (np.zeros(4, np.uint8), r"\(4,\)"),
        (torch.full((3, 4, 4), float("nan")), "nan"),
        (torch.full((3, 4, 4), 2.0), "2"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), "uint8"),
        (torch.zeros(2, 4, 4), r"\(2, 4, 4\)"),
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
    import struct
    import zlib

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
    assert dict(back) == {0x010F: "a camera"}
    assert picture.to_pil(kept).info == {"exif": kept.metadata["exif"], "icc_profile": profile, "xmp": b"<x/>"}
    file.seek(0)
    assert picture.load(file).metadata == {}


def test_a_profile_whose_pixels_are_converted_is_not_kept():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    lab = ImageCms.profileToProfile(
        Image.fromarray(photo(9, 9)), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    with pytest.warns(UserWarning, match="converted"):
        assert picture.load(saved(lab, "TIFF", icc_profile=profile), metadata=True).metadata.keys() <= {"exif"}
