"""Pictures as they come (paths, PIL images, arrays, tensors) to 8-bit sRGB planes, and back."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Union

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from .errors import PictureTooLargeError, UnsupportedPictureError
from .stream.container import MAX_PIXELS, MAX_SIDE

if TYPE_CHECKING:
    import torch

PictureLike = Union[str, os.PathLike[str], IO[bytes], Image.Image, np.ndarray, "torch.Tensor"]

PILLOW_NAMES = {"exif": "exif", "icc": "icc_profile", "xmp": "xmp"}
# Of the files in a folder, those that are taken for pictures.
SUFFIXES = frozenset({".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".jxl", ".png", ".ppm", ".tif", ".tiff", ".webp"})
HIGH_DEPTH_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")


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


def load(source: PictureLike, *, first_frame: bool = False, metadata: bool = False) -> Picture:
    """Any one picture as 8-bit sRGB.

    EXIF orientation is applied. 16-bit, CMYK and pictures with another colour profile are converted, with one
    warning. Arrays are uint8 of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); tensors are (3, H, W) in 0..1.

    With `metadata`, EXIF (its orientation is done with), XMP and the ICC profile are kept, the last only where pixels
    are still in it: converted ones are sRGB.

    Raises
    ------
    UnsupportedPictureError
        Not a picture, an animation (unless `first_frame`), a wrong shape or dtype, NaN, values outside 0..1.
    PictureTooLargeError
        A side beyond 65,535 or more than 2^28 pixels.
    FileNotFoundError, PermissionError
        As the operating system says.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _from_pil(source, first_frame, metadata)
    if isinstance(source, (str, os.PathLike)) or hasattr(source, "read"):
        name = str(source) if isinstance(source, (str, os.PathLike)) else getattr(source, "name", "the stream")
        try:
            with warnings.catch_warnings():
                # Our own limit, checked before pixels are decoded, stands in for Pillow's warning.
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                with Image.open(_seekable(source)) as image:
                    return _from_pil(image, first_frame, metadata)
        except UnidentifiedImageError:
            raise UnsupportedPictureError(f"{name} is not a picture that Pillow can read") from None
        except Image.DecompressionBombError as error:
            raise PictureTooLargeError(f"{name}: {error}") from None
        except UnsupportedPictureError as error:
            raise type(error)(f"{name}: {error}") from None
        except (FileNotFoundError, PermissionError, IsADirectoryError):
            raise
        except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow raises on damaged files
            raise UnsupportedPictureError(f"{name} can't be decoded: {error}") from None
    if type(source).__module__.split(".")[0] == "torch":
        return _from_tensor(source)
    raise UnsupportedPictureError(f"a picture can't be made of {type(source).__name__}")


def _seekable(source: Any) -> Any:
    """Pillow seeks, and a pipe can't."""
    if hasattr(source, "read") and not (hasattr(source, "seekable") and source.seekable()):
        return io.BytesIO(source.read())
    return source


def to_pil(picture: Picture) -> Image.Image:
    """PIL image of mode RGB, L, RGBA or LA, whose `info` has the metadata under Pillow's names."""
    image = Image.fromarray(to_array(picture))
    image.info |= {PILLOW_NAMES[name]: data for name, data in picture.metadata.items()}
    return image


def to_array(picture: Picture) -> np.ndarray:
    """uint8 (H, W, 3); (H, W) where grey; a last plane more where there is alpha."""
    planes = picture.rgb[..., :1] if picture.grey else picture.rgb
    if picture.alpha is not None:
        planes = np.concatenate([planes, picture.alpha[..., None]], -1)
    return planes[..., 0] if planes.shape[-1] == 1 else planes


def to_tensor(picture: Picture) -> torch.Tensor:
    """float32 (C, H, W) in 0..1 with the planes of `to_array`."""
    import torch

    array = to_array(picture)
    planes = array[..., None] if array.ndim == 2 else array
    return torch.from_numpy(np.ascontiguousarray(planes.transpose(2, 0, 1))).float() / 255


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise UnsupportedPictureError(f"the picture has {width}x{height} pixels")
    if width > MAX_SIDE or height > MAX_SIDE or width * height > MAX_PIXELS:
        raise PictureTooLargeError(
            f"the picture has {width}x{height} pixels; limits are {MAX_SIDE} a side and {MAX_PIXELS} in all"
        )


def _from_array(array: np.ndarray) -> Picture:
    if array.dtype != np.uint8:
        raise UnsupportedPictureError(f"the array is {array.dtype}, not uint8")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        raise UnsupportedPictureError(f"the array has shape {array.shape}, not (H, W), (H, W, 3) or (H, W, 4)")
    _check_size(array.shape[1], array.shape[0])
    if array.ndim == 2:
        return Picture(np.repeat(array[..., None], 3, -1), grey=True)
    alpha = np.ascontiguousarray(array[..., 3]) if array.shape[2] == 4 else None
    return Picture(np.ascontiguousarray(array[..., :3]), alpha)


def _from_tensor(tensor: Any) -> Picture:
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3, 4):
        raise UnsupportedPictureError(f"the tensor has shape {tuple(tensor.shape)}, not (3, H, W)")
    _check_size(tensor.shape[2], tensor.shape[1])
    if not tensor.is_floating_point():
        raise UnsupportedPictureError(f"the tensor is {tensor.dtype}, not floating point in 0..1")
    values = tensor.detach().float().cpu()
    low, high = float(values.min()), float(values.max())
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # also false where NaN
        raise UnsupportedPictureError(f"the tensor's values run from {low:g} to {high:g}, not within 0..1")
    return _from_array((values * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy())


def _from_pil(image: Image.Image, first_frame: bool, metadata: bool) -> Picture:
    _check_size(*image.size)
    if getattr(image, "n_frames", 1) > 1 and not first_frame:
        raise UnsupportedPictureError(
            f"it is an animation of {getattr(image, 'n_frames', 0)} frames; ask for its first frame if that will do"
        )
    icc = image.info.get("icc_profile")
    # The orientation first: exif_transpose also drops the tag, so that nothing turns the picture again.
    image = ImageOps.exif_transpose(image)
    kept = _metadata(image) if metadata else {}
    if image.mode in HIGH_DEPTH_MODES:
        return Picture(np.repeat(_to_8_bits(image)[..., None], 3, -1), grey=True, metadata=kept)
    alpha = None
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("LA" if image.mode in ("1", "L", "LA", "La") else "RGBA")
        alpha = np.asarray(image.getchannel("A"))
        image = image.convert("L" if image.mode == "LA" else "RGB")
    grey = image.mode in ("1", "L")
    if icc and not grey:
        converted = _to_srgb(image, icc)
        if metadata and converted is image and image.mode == "RGB":
            kept["icc"] = icc
        image = converted
    elif image.mode not in ("1", "L", "P", "RGB", "RGBX"):
        _warn(f"the picture is {image.mode}; it is converted to 8-bit sRGB")
    return Picture(np.array(image.convert("RGB")), alpha, grey, kept)


def _metadata(image: Image.Image) -> dict[str, bytes]:
    """EXIF and XMP, as far as there are."""
    xmp = image.info.get("xmp", b"")
    exif = image.getexif()
    found = {"exif": exif.tobytes() if exif else b"", "xmp": xmp if isinstance(xmp, bytes) else str(xmp).encode()}
    return {name: data for name, data in found.items() if data}


def _to_8_bits(image: Image.Image) -> np.ndarray:
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise UnsupportedPictureError("the picture has NaN or infinite values")
    # Pillow keeps 16-bit grey in 32-bit integers at times; a float picture is taken as 0..1 or else as 0..255.
    if image.mode == "F":
        top = 1.0 if values.max(initial=0) <= 1 else 255.0
    else:
        top = 65535.0 if values.max(initial=0) > 255 or image.mode != "I" else 255.0
    _warn(f"the picture is of mode {image.mode}; it is converted to 8 bits")
    return np.clip(np.round(values * (255 / top)), 0, 255).astype(np.uint8)


def _to_srgb(image: Image.Image, icc: bytes) -> Image.Image:
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        name = ImageCms.getProfileDescription(profile).strip()
        if "srgb" in name.lower() and image.mode == "RGB":
            return image
        target = ImageCms.createProfile("sRGB")
        source = image if image.mode in ("RGB", "CMYK", "LAB") else image.convert("RGB")
        converted = ImageCms.profileToProfile(source, profile, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        _warn(f"the colour profile can't be used ({error}); colours are taken as sRGB")
        return image
    _warn(f"the colours are converted from {name!r} to sRGB")
    assert converted is not None  # only in-place conversions return None
    return converted


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=4)
