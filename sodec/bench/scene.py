"""The picture that is timed, at any size: times must not depend on what a user happens to have."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ..files import PHOTO


def scene(width: int, height: int) -> np.ndarray:
    """The bundled photo, mirrored on and on, uint8 (height, width, 3): a photograph's symbols for the coder."""
    with Image.open(PHOTO) as image:
        photo = np.asarray(image.convert("RGB"))
    missing = (max(0, height - photo.shape[0]), max(0, width - photo.shape[1]))
    return np.ascontiguousarray(np.pad(photo, ((0, missing[0]), (0, missing[1]), (0, 0)), "symmetric")[:height, :width])
