"""`sodec demo`: one picture there and back, what it cost, and both side by side."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .. import picture
from ..files import PHOTO

if TYPE_CHECKING:
    from ..codec import Codec


def run_demo(
    codec: Codec,
    source: Path | None,
    output: Path,
    quality: float,
    write: Callable[[Path, bytes], None],
    say: Callable[[str], None],
) -> None:
    """Compresses and decompresses `source`, or the bundled photo if None; says bytes, times and metrics.

    `output` gets both pictures side by side, as PNG.
    """
    from ..codec import Report

    original = picture.load(PHOTO if source is None else source)
    width, height = original.size
    codec.decompress(codec.compress(picture.to_pil(original), quality))  # the first run pays for set-up
    encoding, decoding = Report(), Report()
    start = time.perf_counter()
    data = codec.compress(picture.to_pil(original), quality, report=encoding)
    encoded = time.perf_counter()
    decoded = picture.load(codec.decompress(data, report=decoding))
    encode, decode = encoded - start, time.perf_counter() - encoded

    say(f"{source or PHOTO.name}: {width}x{height}, quality {quality:g}, model {codec.bundle.name} on {codec.device}")
    say(f"  {len(data)} bytes, {len(data) * 8 / (width * height):.4f} bit per pixel, "
        f"1:{width * height * 3 / len(data):.0f} of the raw pixels")  # fmt: skip
    say(f"  encode {encode * 1000:.0f} ms: {_listed(encoding.times)}")
    say(f"  decode {decode * 1000:.0f} ms: {_listed(decoding.times)}")
    say(f"  {_metrics(original.rgb, decoded.rgb)}")
    pair = np.concatenate([original.rgb, np.full((height, 4, 3), 255, np.uint8), decoded.rgb], axis=1)
    buffer = io.BytesIO()
    Image.fromarray(pair).save(buffer, "PNG")
    write(output, buffer.getvalue())
    say(f"  original | decoded: {output}")


def _listed(times: dict[str, float]) -> str:
    return ", ".join(f"{name} {seconds * 1000:.0f}" for name, seconds in times.items())


def _metrics(a: np.ndarray, b: np.ndarray) -> str:
    from ..evaluate.metrics import ms_ssim, psnr

    decibels = f"PSNR {psnr(a, b):.2f} dB"
    try:
        structure = ms_ssim(a, b)
    except ImportError:
        return f"{decibels} (MS-SSIM: pip install 'sodec[eval]')"
    return decibels + ("" if structure is None else f", MS-SSIM {structure:.4f}")
