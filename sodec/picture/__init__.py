"""Pictures as they come (paths, bytes, PIL images, arrays, tensors) to 8-bit sRGB planes, and back.

`opening.py` opens files, `loading.py` makes planes of Pillow's pixels, `colour.py` converts to sRGB, `alpha.py` handles
transparency, `metadata.py` and `exif.py` what is not pixels, and `writing.py` writes files of other formats.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Union

import numpy as np
from PIL import Image, ImageFile

from .. import memory
from ..errors import PictureTooLargeError, UnsupportedPictureError, warn
from ..extras import require
from ..stream.header import MAX_PIXELS, MAX_SIDE
from . import alpha as transparency
from . import exif, loading, opening
from . import metadata as metadata_of
from .opening import suffixes as suffixes

if TYPE_CHECKING:
    import torch

PictureLike = Union[
    str, os.PathLike[str], bytes, bytearray, memoryview, IO[bytes], Image.Image, np.ndarray, "torch.Tensor", "Picture"
]

PAGES = ("TIFF", "DCX", "HEIF", "ICO", "ICNS", "PSD", "SPIDER")  # formats whose further frames are not frames in time
ADVICE = "a smaller picture, fewer workers at once, or a machine or container with more memory"


@dataclass(frozen=True)
class Picture:
    """8-bit sRGB."""

    rgb: np.ndarray  # (H, W, 3) uint8
    alpha: np.ndarray | None = None  # (H, W) uint8
    grey: bool = False  # the three planes of rgb are one
    metadata: Mapping[str, bytes] = field(default_factory=dict)  # "exif", "icc", "xmp"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.rgb.shape[1], self.rgb.shape[0]


def load(
    source: PictureLike,
    *,
    first_frame: bool = False,
    metadata: bool = False,
    alpha: str = "lossless",
    flatten: str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Picture:
    """Any one picture as 8-bit sRGB.

    Arrays are uint8 of shape (H, W), (H, W, 1), (H, W, 2), (H, W, 3) or (H, W, 4), the second and the fourth plane
    being alpha; tensors are (C, H, W), 1 to 4 planes, uint8 or floats in 0..1. EXIF orientation is applied to files and
    to opened images; an image that was edited in memory (rotated, converted, copied) is taken as its pixels are.
    Three equal planes are grey. Pictures with another colour profile, other colour codes, CMYK or more than 8 bits are
    converted, with a warning: values of 16-bit pictures are 0..65535, of 12-bit TIFFs 0..4095, of mode I the smallest
    of 0..255, 0..65535 and 0..2^31-1 that holds them, of mode F likewise 0..1, 0..255 or 0..65535.

    Parameters
    ----------
    first_frame
        Takes the first frame of an animation, which is refused otherwise.
    metadata
        Keeps EXIF, byte for byte but for its orientation, XMP, and the ICC profile where pixels are still in it.
    alpha
        "lossless", or "lossy": off by at most 4 of 255, fully transparent and opaque pixels exact.
    flatten
        A colour to put the picture on, such as "white" or "#ffffff", in place of keeping alpha.
    max_pixels
        More are refused before they are decoded.

    Raises
    ------
    UnsupportedPictureError
        Not a picture, an animation (unless `first_frame`), a wrong shape or dtype, NaN, values outside 0..1.
    PictureTooLargeError
        A side beyond 65,535, or more than `max_pixels`.
    FileNotFoundError, PermissionError
        As the operating system says.
    """
    if alpha not in transparency.MODES:
        raise UnsupportedPictureError(f"alpha must be one of {', '.join(transparency.MODES)} (got {alpha!r})")
    if isinstance(source, Picture):
        return source
    if isinstance(source, np.ndarray):
        picture = _from_array(source, max_pixels)
    elif isinstance(source, Image.Image):
        picture = _from_image(source, first_frame, metadata, max_pixels, opened=isinstance(source, ImageFile.ImageFile))
    elif is_tensor(source):
        picture = _from_tensor(source, max_pixels)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        picture = _from_file(io.BytesIO(source), "the picture", first_frame, metadata, max_pixels)
    elif isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            picture = _from_file(opening.seekable(file), str(source), first_frame, metadata, max_pixels)
    elif hasattr(source, "read"):
        name = str(getattr(source, "name", "the picture"))
        picture = _from_file(opening.seekable(source), name, first_frame, metadata, max_pixels)
    else:
        raise UnsupportedPictureError(
            "a picture must be a path, bytes, a binary file, a PIL image, an array or a tensor "
            f"(got {type(source).__name__})"
        )
    return _finished(picture, alpha, flatten, own=not (isinstance(source, np.ndarray) or is_tensor(source)))


def is_tensor(source: Any) -> bool:
    """Whether it is one of PyTorch's, which is not imported to find out."""
    return type(source).__module__.split(".")[0] == "torch"


def to_pil(picture: Picture) -> Image.Image:
    """PIL image of mode RGB, L, RGBA or LA, whose `info` has the metadata under Pillow's names."""
    image = Image.fromarray(to_array(picture))
    info: dict[Any, Any] = image.info  # Pillow has keys of several kinds
    info |= metadata_of.pillow_info(picture.metadata)
    return image


def to_array(picture: Picture) -> np.ndarray:
    """uint8 (H, W, 3); (H, W) where grey; a last plane more where there is alpha."""
    planes = picture.rgb[..., :1] if picture.grey else picture.rgb
    if picture.alpha is not None:
        planes = np.concatenate([planes, picture.alpha[..., None]], -1)
    return planes[..., 0] if planes.shape[-1] == 1 else planes


def to_tensor(picture: Picture) -> torch.Tensor:
    """float32 (C, H, W) in 0..1 with the planes of `to_array`. `MissingPackageError` without PyTorch."""
    torch: Any = require("torch", "output='torch'", "'sodec[torch]'")

    array = to_array(picture)
    planes = array[..., None] if array.ndim == 2 else array
    return torch.from_numpy(np.ascontiguousarray(planes.transpose(2, 0, 1))).float() / 255


def check_size(width: int, height: int, max_pixels: int) -> None:
    """`PictureTooLargeError` beyond 65,535 pixels a side or `max_pixels` in all."""
    if width < 1 or height < 1:
        raise UnsupportedPictureError(f"the picture has {width}x{height} pixels")
    if width > MAX_SIDE or height > MAX_SIDE:
        raise PictureTooLargeError(f"the picture has {width}x{height} pixels; a side has at most {MAX_SIDE}")
    if width * height > max_pixels:
        raise PictureTooLargeError(
            f"the picture has {width}x{height} pixels, {width * height} in all; the limit is {max_pixels} "
            "(max_pixels=, --max-pixels)"
        )


def _finished(picture: Picture, alpha: str, flatten: str | None, *, own: bool) -> Picture:
    """Grey where three planes are one; alpha put on a colour, or made cheaper; colour under it filled.

    `own`: the colours are in no array of the caller's, so they may be filled in place.
    """
    rgb, mask = picture.rgb, picture.alpha
    if mask is not None and flatten is not None:
        rgb, mask = transparency.flattened(rgb, mask, flatten), None
    elif mask is not None:
        mask = transparency.lossy(mask) if alpha == "lossy" else mask
        rgb = transparency.fill_transparent(rgb, mask, in_place=own)
    return Picture(rgb, mask, _is_grey(rgb), picture.metadata)


def _is_grey(rgb: np.ndarray) -> bool:
    for part in (rgb[::64, ::64], *(rgb[rows] for rows in loading.in_bands(*rgb.shape[:2]))):
        if not (np.array_equal(part[..., 0], part[..., 1]) and np.array_equal(part[..., 0], part[..., 2])):
            return False
    return True


def _from_array(array: np.ndarray, max_pixels: int) -> Picture:
    if array.dtype != np.uint8:
        raise UnsupportedPictureError(f"an array must be uint8 (got {array.dtype})")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4):
        raise UnsupportedPictureError(f"an array must be (H, W) or (H, W, 1 to 4) (got {array.shape})")
    check_size(array.shape[1], array.shape[0], max_pixels)
    planes = array.shape[2]
    alpha = np.ascontiguousarray(array[..., -1]) if planes in (2, 4) else None
    return Picture(np.repeat(array[..., :1], 3, -1) if planes < 3 else array[..., :3], alpha)


def _from_tensor(tensor: Any, max_pixels: int) -> Picture:
    import torch

    if tensor.ndim != 3 or tensor.shape[0] not in (1, 2, 3, 4):
        raise UnsupportedPictureError(f"a tensor must be (1 to 4, H, W) (got {tuple(tensor.shape)})")
    check_size(tensor.shape[2], tensor.shape[1], max_pixels)
    values = tensor.detach().cpu()
    if tensor.is_floating_point():
        values = values.float()
        low, high = float(values.min()), float(values.max())
        if not (low >= -1e-3 and high <= 1 + 1e-3):  # also false where NaN
            raise UnsupportedPictureError(f"a tensor's values must be within 0..1 (got {low:g} to {high:g})")
        values = (values * 255).round().clamp(0, 255).byte()
    elif tensor.dtype != torch.uint8:
        raise UnsupportedPictureError(f"a tensor must be uint8, or floats in 0..1 (got {tensor.dtype})")
    return _from_array(values.permute(1, 2, 0).numpy(), max_pixels)


def _from_file(file: IO[bytes], name: str, first_frame: bool, metadata: bool, max_pixels: int) -> Picture:
    """The picture in a seekable file. Where data that is no pixels fails Pillow, once more without that data."""
    start = file.tell()
    try:
        try:
            return _opened(file, first_frame, metadata, max_pixels)
        except (UnsupportedPictureError, MemoryError):
            raise
        except Exception:
            file.seek(start)
            pixels_alone = opening.without_ancillary(file.read())
            if pixels_alone is None:
                raise
            return _opened(io.BytesIO(pixels_alone), first_frame, metadata, max_pixels)
    except Image.DecompressionBombError:  # some plugins keep Pillow's limit of the whole process while they load
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise PictureTooLargeError(
            f"{name}: Pillow reads no file of this format with more than {limit} pixels (twice "
            "PIL.Image.MAX_IMAGE_PIXELS); PNG and JPEG have no such limit"
        ) from None
    except UnsupportedPictureError as error:
        joint = " " if str(error).startswith("is ") else ": "
        raise type(error)(f"{name}{joint}{error}") from None
    except MemoryError:
        raise
    except Exception as error:  # plugins raise many kinds on damaged files
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0].strip()
        raise UnsupportedPictureError(f"{name} can't be decoded: {first_line}") from None


def _opened(file: IO[bytes], first_frame: bool, metadata: bool, max_pixels: int) -> Picture:
    codes = opening.colour_codes(file)
    image = opening.open_image(file)
    return _from_image(image, first_frame, metadata, max_pixels, opened=True, codes=codes, free=True)


def _from_image(
    image: Image.Image, first_frame: bool, metadata: bool, max_pixels: int, *, opened: bool,
    codes: tuple[int, int] | None = None, free: bool = False,
) -> Picture:  # fmt: skip
    """The picture in a PIL image.

    `opened`: it comes from a file and was not changed since. `free`: its own pixels are not needed afterwards.
    """
    check_size(*image.size, max_pixels)
    _check_frames(image, first_frame)
    frame = image.tell() if opened else 0
    if frame:
        image.seek(0)
    try:
        depth = loading.depth_of(image)
        if opened:
            what = f"reading {image.width}x{image.height} pixels of {image.format or image.mode}"
            memory.check(loading.bytes_to_load(image), what, ADVICE)
        image.load()
        raw, turned = metadata_of.orientation_of(image)
        conversion = loading.conversion_of(image, codes)
        kept = metadata_of.read(image, raw) if metadata else {}
        icc = image.info.get("icc_profile")
        if metadata and icc and conversion is None and image.mode in ("RGB", "RGBA"):
            kept |= metadata_of.checked({"icc": icc})
        rgb, alpha = loading.planes_of(image, depth, conversion, free)
        if opened:  # views: no copy of the pixels
            rgb = _upright(rgb, turned)
            alpha = None if alpha is None else _upright(alpha, turned)
        return Picture(rgb, alpha, metadata=kept)
    finally:
        if frame and not free:
            image.seek(frame)


def _check_frames(image: Image.Image, first_frame: bool) -> None:
    """Refuses animations; of formats with several pictures in a file the first is taken, with a warning if needed."""
    frames = int(getattr(image, "n_frames", 1))
    if frames == 1 or first_frame or image.format == "MPO":  # further pictures of an MPO are previews or the other eye
        return
    if image.format in PAGES:
        warn(f"the file holds {frames} pictures; the first is taken")
        return
    raise UnsupportedPictureError(
        f"is an animation of {frames} frames; first_frame=True (--first-frame) takes the first"
    )


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    transpose, rows, columns = exif.UPRIGHT[orientation]
    pixels = pixels.swapaxes(0, 1) if transpose else pixels
    return pixels[:: -1 if rows else 1, :: -1 if columns else 1]
