"""A .sodec file as Pillow holds one: size and mode from the header, pixels when they are asked for."""

from __future__ import annotations

import sys
from typing import Any

from PIL import Image, ImageFile

from ..errors import CorruptStreamError
from ..pipeline.view import SCALES
from ..stream import container
from ..stream.container import MAX_PIXELS, MAX_TILE, Header

MODES = {(False, False): "RGB", (True, False): "L", (False, True): "RGBA", (True, True): "LA"}  # grey, alpha


class SodecImageFile(ImageFile.ImageFile):
    """Made by `Image.open`.

    A damaged or newer stream raises sodec's own errors; whole it must be only where pixels are read.

    Attributes
    ----------
    max_pixels, max_tile
        As for `Codec.decompress`. They stand in for `PIL.Image.MAX_IMAGE_PIXELS`, which is smaller.
    """

    format = "SODEC"
    format_description = "sodec, a learned image codec"
    max_pixels, max_tile = MAX_PIXELS, MAX_TILE  # Pillow passes no options: assign to the class to change them

    def _open(self) -> None:
        assert self.fp is not None
        header: Header = container.peek(self.fp.read(container.PEEK_BYTES))
        container.check_limits(header, self.max_pixels, self.max_tile)
        self._size = header.width, header.height
        self._mode = MODES[header.grey, header.alpha]
        self._shrink = 1
        self._decoded = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height.

        `Image.open` compares the size of what a plugin returns with the limit of the whole process, which would be
        a second limit below ours. It alone gets to see one pixel; under another name it would see the size again.
        """
        caller = sys._getframe(1)
        if caller.f_code.co_name == "_open_core" and caller.f_globals.get("__name__") == Image.__name__:
            return 1, 1
        width, height = self._size
        return width, height

    def draft(self, mode: str | None, size: tuple[int, int] | None) -> tuple[str, tuple[int, int, float, float]] | None:
        """Chooses the smallest preview that is no smaller than `size`."""
        if self._decoded or self._shrink > 1 or size is None:
            return None
        width, height = self.size
        least = min(width // max(1, size[0]), height // max(1, size[1]))
        self._shrink = max(shrink for shrink in SCALES if shrink <= max(1, least))
        self._size = -(-width // self._shrink), -(-height // self._shrink)
        return self.mode, (0, 0, width / self._shrink, height / self._shrink)

    def load(self) -> Any:
        """Decodes the picture, once."""
        if not self._decoded:
            from ..api import decompress

            assert self.fp is not None
            self.fp.seek(0)
            image: Image.Image = decompress(
                self.fp.read(), scale=1 / self._shrink, max_pixels=self.max_pixels, max_tile=self.max_tile
            )
            if image.size != self.size or image.mode != self.mode:
                raise CorruptStreamError(f"the file is not the one that was opened: {image.size} {image.mode}")
            self.im = image.im
            self.info |= image.info
            self._decoded = True
            if self._exclusive_fp:
                self.fp.close()
            self.fp = None
        return Image.Image.load(self)
