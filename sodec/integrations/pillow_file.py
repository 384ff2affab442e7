"""A .sodec file as Pillow holds one, and as it saves one.

Size and mode come from the header, metadata and pixels when they are asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import IO, Any

from PIL import Image, ImageFile

from ..errors import CorruptStreamError, NewerFormatError, PictureTooLargeError, SodecError, UnknownModelError
from ..pipeline.view import SCALES
from ..stream import container, sections
from ..stream.header import MAX_PIXELS, MAX_SIDE, MAX_TILE, Header, check_limits

MODES = {(False, False): "RGB", (True, False): "L", (False, True): "RGBA", (True, True): "LA"}  # grey, alpha
SAVE_OPTIONS = ("quality", "target_bpp", "max_bytes", "model", "weights", "device")
PICTURE_OPTIONS = ("first_frame", "alpha", "flatten", "max_pixels")


class CorruptFileError(CorruptStreamError, OSError):
    """`CorruptStreamError`, and an `OSError` as Pillow's users expect of a file that can't be read."""


class NewerFileError(NewerFormatError, OSError):
    """`NewerFormatError`, and an `OSError`."""


class TooLargeFileError(PictureTooLargeError, OSError):
    """`PictureTooLargeError`, and an `OSError`."""


class UnknownModelFileError(UnknownModelError, OSError):
    """`UnknownModelError`, and an `OSError`."""


FILE_ERRORS = (CorruptFileError, NewerFileError, TooLargeFileError, UnknownModelFileError)


@contextmanager
def _errors_of_files() -> Iterator[None]:
    """What sodec raises because of a file's bytes is an `OSError` too, as of every other plugin of Pillow."""
    try:
        yield
    except OSError:
        raise
    except SodecError as error:
        for kind in FILE_ERRORS:
            if isinstance(error, kind.__bases__[0]):
                raise kind(str(error)) from None
        raise


class SodecImageFile(ImageFile.ImageFile):
    """Made by `Image.open`.

    `info` holds the metadata as soon as it is asked for, and pixels are decoded at `load`. What a file's bytes give
    rise to at opening, loading and verifying is an error of sodec's own and an `OSError`.

    Attributes
    ----------
    max_pixels, max_tile
        As for `Codec.decompress`. They stand in for `PIL.Image.MAX_IMAGE_PIXELS`, which is smaller.
    """

    format = "SODEC"
    format_description = "sodec, a learned image codec"
    max_pixels, max_tile = MAX_PIXELS, MAX_TILE  # Pillow passes no options: assign to the class to change them

    # A copy, which pickle and deepcopy build without opening a file, has its pixels and metadata.
    _decoded = True
    _has_metadata = False
    _shrink = 1
    _exclusive_fp = False
    fp: IO[bytes] | None = None

    def _open(self) -> None:
        assert self.fp is not None
        with _errors_of_files():
            try:
                header: Header = container.peek(self.fp.read(container.PEEK_BYTES))
            except NewerFormatError:
                container.parse(
                    self._bytes(), self.max_pixels, self.max_tile
                )  # a flipped bit is damage, no newer format
                raise
            check_limits(header, self.max_pixels, self.max_tile)
        self._size = header.width, header.height
        self._mode = MODES[header.grey, header.alpha]
        self._has_metadata = any(entry.tag in sections.METADATA_NAMES for entry in header.directory)
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

    @property
    def info(self) -> dict[str | tuple[int, int], Any]:
        """The metadata under Pillow's names: "exif", "icc_profile", "xmp". Of a damaged file they are missing."""
        if self._has_metadata and self.fp is not None:
            self._has_metadata = False
            self._info |= _metadata(self._bytes())
        return self._info

    @info.setter
    def info(self, info: dict[str | tuple[int, int], Any]) -> None:
        self._info = info

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

            with _errors_of_files():
                image: Image.Image = decompress(
                    self._bytes(), scale=1 / self._shrink, max_pixels=self.max_pixels, max_tile=self.max_tile
                )
                if image.size != self.size or image.mode != self.mode:
                    raise CorruptStreamError(f"the file is not the one that was opened: {image.size} {image.mode}")
            self.im = image.im
            self._has_metadata = False
            self._info |= {name: value for name, value in image.info.items() if name not in self._info}
            self._decoded = True
            if self._exclusive_fp and self.fp is not None:
                self.fp.close()
            self.fp = None
        return Image.Image.load(self)

    def verify(self) -> None:
        """Checks the whole file, decodes nothing, and closes it. Raises what `load` raises of a damaged one."""
        try:
            if not self._decoded:
                with _errors_of_files():
                    container.read(self._bytes(), self.max_pixels, self.max_tile)
        finally:
            super().verify()

    def _bytes(self) -> bytes:
        if self.fp is None:
            raise OSError("the image is closed, and its pixels were not loaded before that")
        self.fp.seek(0)
        return self.fp.read()


def encoded(image: Image.Image, options: Mapping[str, Any]) -> bytes:
    """The stream of an image that is saved with these options, which Pillow takes without a check of their names.

    They are those of `sodec.compress`, and `exif`, `xmp`, `icc_profile` and `dpi` as for a JPEG: what is given is kept,
    with `metadata` the image's own beside it. A profile that is given says what colours the pixels are in; they are
    converted where it is not sRGB.
    """
    from ..api import compress
    from ..picture import load
    from ..picture.metadata import given

    pictured: dict[str, Any] = {"alpha": "lossy"} | {name: options[name] for name in PICTURE_OPTIONS if name in options}
    with _profile(image, options):
        picture = load(image, metadata=True, **pictured)
    own = {name: data for name, data in picture.metadata.items() if options.get("metadata")}
    if "icc_profile" in options and "icc" in picture.metadata:
        own["icc"] = picture.metadata["icc"]
    picture = replace(picture, metadata=given(options, own))
    settings: dict[str, Any] = {name: options[name] for name in SAVE_OPTIONS if name in options}
    return compress(picture, **settings)


@contextmanager
def _profile(image: Image.Image, options: Mapping[str, Any]) -> Iterator[None]:
    """The image with the profile that is given, if one is, in place of its own."""
    if "icc_profile" not in options:
        yield
        return
    own = image.info.pop("icc_profile", None)
    if options["icc_profile"]:
        image.info["icc_profile"] = options["icc_profile"]
    try:
        yield
    finally:
        image.info.pop("icc_profile", None)
        if own is not None:
            image.info["icc_profile"] = own


def _metadata(data: bytes) -> dict[str | tuple[int, int], Any]:
    """What `info` shows of a stream's metadata; nothing where the stream is damaged, which `load` is to say."""
    from ..picture.metadata import pillow_info

    metadata = {}
    try:
        for section in container.parse(data, max_pixels=MAX_SIDE**2, max_tile=MAX_SIDE).sections:
            if section.tag in sections.METADATA_NAMES:
                name = sections.METADATA_NAMES[section.tag]
                metadata[name] = sections.unpack_metadata(section.body, name)
    except SodecError:
        return {}
    return pillow_info(metadata)
