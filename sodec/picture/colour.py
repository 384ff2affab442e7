"""Colour spaces to sRGB: ICC profiles, and the codes that PNG, AVIF and HEIF have for colour.

What a profile does decides, not its name: it is sRGB if it turns sRGB's colours into themselves.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms

from ..errors import warn

SAME = 2  # levels that a profile may change a colour by and still be sRGB
GAMMA, GAMMA_SRGB = 0.002, 0.45455  # PNG's gAMA of sRGB pictures, and how near it has to be
NEAR = 0.005  # of chromaticities
D65 = (0.3127, 0.3290)
SRGB = (0.640, 0.330, 0.300, 0.600, 0.150, 0.060)
# Chromaticities of white, red, green and blue by the code points of ITU-T H.273, table 2.
PRIMARIES = {
    1: (*D65, *SRGB), 2: (*D65, *SRGB),
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (*D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}  # fmt: skip
SRGB_TRANSFERS = {1, 2, 6, 13, 14, 15}  # those of video are shown as sRGB's
EXPONENTS = {4: 2.2, 5: 2.8, 8: 1.0}
HDR = {16: "PQ", 18: "HLG"}


class Conversion(NamedTuple):
    """How the pixels of an image become sRGB.

    Attributes
    ----------
    apply
        A band of the image, of its own mode, to uint8 (h, W, 3); of a grey one (h, W).
    source
        What is converted from, for the warning.
    """

    apply: Callable[[Image.Image], np.ndarray]
    source: str


def from_profile(image: Image.Image, icc: bytes) -> Conversion | None:
    """The conversion that a profile asks for; None where pixels are sRGB, or, with a warning, it is unusable."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        space = profile.profile.xcolor_space.strip()
        name = (ImageCms.getProfileDescription(profile) or "").strip() or space
        if space == "RGB" and _is_srgb(icc):
            return None
        grey = image.mode in ("1", "L") or image.mode.startswith("I;16")
        if space == "GRAY" and grey:
            return Conversion(_grey_transform(profile), name)
        mode = {"RGB": "RGB", "CMYK": "CMYK", "Lab": "LAB", "XYZ": "RGB"}.get(space)
        if mode is None or (mode == "CMYK") != (image.mode == "CMYK") or (mode == "LAB") != (image.mode == "LAB"):
            raise ImageCms.PyCMSError(f"a profile of {space} on a picture of {image.mode}")
        transform = _transform(profile, mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        warn(f"the colour profile can't be used ({error}); colours are taken as sRGB")
        return None
    convert = functools.partial(_coloured, transform, mode)
    return Conversion((lambda band: convert(band)[..., 1]) if grey else convert, name)


def from_codes(primaries: int, transfer: int, full: bool = True) -> Conversion | None:
    """The conversion for code points of H.273 (PNG's cICP, the nclx box); None, with a warning, where there is none."""
    if transfer in HDR:
        warn(f"the picture is HDR ({HDR[transfer]}); its colours are taken as sRGB, without tone mapping")
        return None
    if primaries not in PRIMARIES or transfer not in (*SRGB_TRANSFERS, *EXPONENTS):
        warn(f"colours of primaries {primaries} and transfer {transfer} are not converted; they are taken as sRGB")
        return None
    return from_chromaticities(PRIMARIES[primaries], EXPONENTS.get(transfer))


def from_chromaticities(chromaticities: tuple[float, ...], exponent: float | None) -> Conversion | None:
    """The conversion of RGB with these chromaticities (white, red, green, blue) and light = value ** exponent.

    None as exponent is sRGB's curve. None is returned where the pixels are sRGB already.
    """
    same_colours = np.allclose(chromaticities, (*D65, *SRGB), atol=NEAR)
    if same_colours and exponent is None:
        return None
    values = np.arange(256) / 255
    light = (_linear(values) if exponent is None else values**exponent).astype(np.float32)
    curve = np.round(_encoded(light) * 255).astype(np.uint8)
    matrix = None if same_colours else _matrix(chromaticities)

    def apply(band: Image.Image) -> np.ndarray:
        if band.mode in ("1", "L"):
            return curve[np.asarray(band.convert("L"))]
        pixels = np.asarray(band.convert("RGB"))
        if matrix is None:
            return curve[pixels]
        return np.round(_encoded(np.clip(light[pixels] @ matrix.T, 0, 1)) * 255).astype(np.uint8)

    gamma = "sRGB's curve" if exponent is None else f"gamma {exponent:.3g}"
    return Conversion(apply, f"RGB with {gamma}" + ("" if same_colours else " and other primaries"))


@functools.lru_cache(maxsize=16)
def _is_srgb(icc: bytes) -> bool:
    """Whether the profile leaves colours of sRGB where they are: 6x6x6 of them, and 256 greys."""
    steps = np.arange(0, 256, 51)
    cube = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    colours = np.concatenate([cube, np.arange(256)[:, None].repeat(3, 1)]).astype(np.uint8)[None]
    transform = _transform(ImageCms.ImageCmsProfile(io.BytesIO(icc)), "RGB")
    changed = _coloured(transform, "RGB", Image.fromarray(colours))
    return int(np.abs(changed.astype(int) - colours).max()) <= SAME


def _transform(profile: Any, mode: str) -> Any:
    # Optimised, Little CMS is off by 6 levels in the darks of a linear profile.
    return ImageCms.buildTransform(
        profile, ImageCms.createProfile("sRGB"), mode, "RGB", flags=ImageCms.Flags.NOOPTIMIZE
    )


def _coloured(transform: Any, mode: str, band: Image.Image) -> np.ndarray:
    converted = transform.apply(band if band.mode == mode else band.convert(mode))
    return np.asarray(converted)


def _grey_transform(profile: Any) -> Callable[[Image.Image], np.ndarray]:
    """Grey values through a grey profile: a table of all 65,536, since a linear one is steep in the darks."""
    transform = _transform(profile, "I;16")
    ramp = Image.fromarray(np.arange(65536, dtype=np.uint16).reshape(256, 256))
    table = np.asarray(transform.apply(ramp))[..., 1].reshape(-1)

    def apply(band: Image.Image) -> np.ndarray:
        if band.mode in ("1", "L"):
            return table[np.asarray(band.convert("L")).astype(np.uint16) * 257]
        return table[np.asarray(band).astype(np.uint16)]

    return apply


def _linear(value: np.ndarray) -> np.ndarray:
    """sRGB values in 0..1 to light (IEC 61966-2-1)."""
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _encoded(light: np.ndarray) -> np.ndarray:
    """Light in 0..1 to sRGB values (IEC 61966-2-1)."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def _matrix(chromaticities: tuple[float, ...]) -> np.ndarray:
    """Linear RGB of these primaries to that of sRGB, (3, 3) float32, white to white (Bradford; Lam, 1985)."""
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

    def xyz(x: float, y: float) -> np.ndarray:
        return np.array([x / y, 1.0, (1 - x - y) / y])

    def to_xyz(values: tuple[float, ...]) -> np.ndarray:
        primaries = np.stack([xyz(*values[i : i + 2]) for i in (2, 4, 6)], 1)
        return primaries * np.linalg.solve(primaries, xyz(*values[:2]))

    scale = (bradford @ xyz(*D65)) / (bradford @ xyz(*chromaticities[:2]))
    adapted = np.linalg.solve(bradford, scale[:, None] * bradford) @ to_xyz(chromaticities)
    return np.linalg.solve(to_xyz((*D65, *SRGB)), adapted).astype(np.float32)
