"""One upload, coded as the page asks. Nothing here knows of gradio or of HTML."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from .. import picture
from ..errors import MissingPackageError, PictureTooLargeError, UnsupportedPictureError
from ..evaluate.codecs import ImageCodec, rival
from ..evaluate.compare import nearest
from ..evaluate.metrics import ms_ssim, psnr
from ..stream import MAGIC, container

if TYPE_CHECKING:
    from ..codec import Codec
    from ..picture import Picture

# Of the formats that Pillow opens, those of photos: others start programs (EPS) or are rarely fuzzed.
FORMATS = {"AVIF", "BMP", "GIF", "HEIF", "JPEG", "JXL", "MPO", "PNG", "PPM", "TIFF", "WEBP"}
# Of a larger picture MS-SSIM would hold more floats at once than a page is worth.
MS_SSIM_PIXELS = 4_000_000
RIVALS = {"avif": "AVIF", "webp": "WebP", "jpeg": "JPEG"}


@dataclass(frozen=True)
class Limits:
    """What is taken."""

    bytes: int = 20_000_000
    pixels: int = 16_000_000


@dataclass(frozen=True, eq=False)
class Upload:
    """A photo, or a stream: one of both is there."""

    name: str
    photo: Picture | None = None
    stream: bytes | None = None
    notes: tuple[str, ...] = ()  # what was converted
    rivals: dict[str, Remembering] = field(default_factory=dict)  # by name

    @property
    def nbytes(self) -> int:
        """Of memory, about."""
        held = 0 if self.photo is None else _bytes_of(self.photo)
        return held + len(self.stream or b"") + sum(rival.nbytes for rival in list(self.rivals.values()))


@dataclass(frozen=True)
class Wish:
    """What is asked of the codec: a quality, or the highest one within `max_bytes`."""

    quality: float | None = None
    max_bytes: int | None = None


@dataclass(frozen=True, eq=False)
class Trial:
    """What the codec made of an upload."""

    upload: Upload
    stream: bytes
    quality: float
    decoded: Picture
    fidelity: np.ndarray | None  # uint8 (H, W, 3): the fidelity picture, of a stream that came without its original
    encode_times: dict[str, float]  # seconds by stage; empty for a stream
    decode_times: dict[str, float]
    metrics: dict[str, float]  # by label; empty for a stream

    @property
    def nbytes(self) -> int:
        """Of memory, about, beside the upload's."""
        fidelity = 0 if self.fidelity is None else self.fidelity.nbytes
        return len(self.stream) + _bytes_of(self.decoded) + fidelity

    @property
    def bpp(self) -> float:
        """Bits of the stream per pixel."""
        width, height = self.decoded.size
        return 8 * len(self.stream) / (width * height)

    def png(self) -> bytes:
        """The decoded picture as a file."""
        buffer = io.BytesIO()
        picture.to_pil(self.decoded).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()


@dataclass(frozen=True, eq=False)
class Match:
    """A rival's picture at the setting nearest in bytes."""

    name: str
    setting: float
    bytes: int
    decoded: np.ndarray  # uint8 (H, W, 3)
    metrics: dict[str, float]


def open_upload(name: str, data: bytes, limits: Limits) -> Upload:
    """A file as it was dropped: a stream where it begins like one, else a photo.

    Raises
    ------
    PictureTooLargeError
        More bytes or pixels than `limits`, told before anything is decoded.
    UnsupportedPictureError, CorruptStreamError, NewerFormatError
        Neither a picture nor a stream.
    """
    if len(data) > limits.bytes:
        raise PictureTooLargeError(
            f"{name} has {len(data):,} bytes; this page takes {limits.bytes:,} at most (--max-mb)"
        )
    if data.startswith(MAGIC) or name.lower().endswith(".sodec"):
        try:
            container.read(data, limits.pixels)
        except PictureTooLargeError as error:
            header = container.peek(data[: container.PEEK_BYTES])
            _check_pixels(name, header.width, header.height, limits)
            # Its tiles are too large, which no option of the page changes.
            raise PictureTooLargeError(f"{name}: {str(error).partition(' (max_tile=')[0]}") from None
        return Upload(name, stream=data)
    file = io.BytesIO(data)
    file.name = name  # for messages
    frames = _checked(file, limits)
    file.seek(0)
    with _caught() as notes:
        photo = picture.load(file, first_frame=True)
    return Upload(name, photo, notes=(*(["the first of its frames"] if frames > 1 else []), *notes))


def _checked(file: io.BytesIO, limits: Limits) -> int:
    """The number of frames; refuses a picture too large, or of a format that only a trusted file should have."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow's own limit
            with Image.open(file) as image:
                kind, (width, height), frames = image.format, image.size, getattr(image, "n_frames", 1)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        return 1  # `picture.load` says what is wrong with it
    if kind not in FORMATS:
        raise UnsupportedPictureError(f"{file.name} is {kind}; this page takes {', '.join(sorted(FORMATS))}")
    _check_pixels(file.name, width, height, limits)
    return 1 if kind == "MPO" else frames  # the further frames of an MPO are previews, or the other eye's view


def _check_pixels(name: str, width: int, height: int, limits: Limits) -> None:
    if width * height > limits.pixels:
        raise PictureTooLargeError(
            f"{name} has {width}x{height} pixels; this page takes {limits.pixels / 1e6:g} million at most "
            "(--max-megapixels)"
        )


def run_trial(codec: Codec, upload: Upload, wish: Wish, max_pixels: int = Limits.pixels) -> Trial:
    """A photo there and back, or a stream decoded; of a stream the fidelity picture is there to compare with.

    Streams of more than `max_pixels` are refused. Raises what `Codec.compress` and `Codec.decompress` raise.
    """
    from ..codec import Report

    stream, encoding, decoding = upload.stream, Report(), Report()
    if upload.photo is not None:
        stream = codec.compress(picture.to_pil(upload.photo), wish.quality, max_bytes=wish.max_bytes, report=encoding)
    assert stream is not None
    decoded = picture.load(codec.decompress(stream, max_pixels=max_pixels, report=decoding))
    fidelity = None
    if upload.photo is None:
        fidelity = picture.load(codec.decompress(stream, max_pixels=max_pixels, mode="fidelity")).rgb
    quality = container.peek(stream[: container.PEEK_BYTES]).quality
    metrics = _metrics(upload.photo.rgb, decoded.rgb) if upload.photo is not None else {}
    return Trial(upload, stream, quality, decoded, fidelity, encoding.times, decoding.times, metrics)


def match(trial: Trial, name: str) -> Match | None:
    """The codec `name`, of `RIVALS`, at the bytes nearest to the trial's; None where there is no original to code.

    Raises `MissingPackageError` where this machine can't write the format.
    """
    upload = trial.upload
    if upload.photo is None:
        return None
    codec = upload.rivals.setdefault(name, Remembering(rival(name)))
    setting, data = nearest(codec, upload.photo.rgb, len(trial.stream))
    decoded = codec.decode(data)
    return Match(RIVALS[name], setting, len(data), decoded, _metrics(upload.photo.rgb, decoded))


class Remembering:
    """A codec of one picture that encodes it only once at each setting: a moved slider asks for the same again."""

    def __init__(self, codec: ImageCodec) -> None:
        self.name, self.settings = codec.name, codec.settings
        self.decode = codec.decode
        self._codec = codec
        self._coded: dict[float, bytes] = {}

    def encode(self, picture: np.ndarray, setting: float) -> bytes:
        """The stream at `setting`."""
        if setting not in self._coded:
            self._coded[setting] = self._codec.encode(picture, setting)
        return self._coded[setting]

    @property
    def nbytes(self) -> int:
        """Of all streams that are kept."""
        return sum(map(len, list(self._coded.values())))


def available_rivals() -> list[str]:
    """Those of `RIVALS` whose format can be written here."""
    found = []
    for name in RIVALS:
        try:
            found.append(rival(name).name)
        except MissingPackageError:
            continue
    return found


def _bytes_of(photo: Picture) -> int:
    return photo.rgb.nbytes + (0 if photo.alpha is None else photo.alpha.nbytes)


def _metrics(original: np.ndarray, decoded: np.ndarray) -> dict[str, float]:
    """PSNR, and MS-SSIM where its package is installed and the picture is neither too small nor too large for it."""
    found = {"PSNR, dB": psnr(original, decoded)}
    if original.shape[0] * original.shape[1] > MS_SSIM_PIXELS:
        return found
    try:
        structure = ms_ssim(original, decoded)
    except MissingPackageError:
        return found
    return found if structure is None else {**found, "MS-SSIM": structure}


@contextmanager
def _caught() -> Iterator[list[str]]:
    """What the package warns of inside, to be said on the page."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield notes
        notes += [str(one.message) for one in caught if one.category is UserWarning]
