"""Every error that sodec raises on purpose, one class per broken rule.

All derive from `SodecError`. Where Python users expect a `ValueError`, an `OSError` or a
`RuntimeError`, the class is one of those too, so existing handlers keep working.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


class SodecError(Exception):
    """Base of all errors raised on purpose by sodec."""


class UnsupportedPictureError(SodecError, ValueError):
    """The input is not a picture that sodec can read (format, shape, dtype, NaN, animation)."""


class PictureTooLargeError(UnsupportedPictureError):
    """The picture, or the size that a stream's header claims, exceeds a stated limit."""


class CorruptStreamError(SodecError, ValueError):
    """The bytes are not a valid stream: truncated, altered, or never one."""


class NewerFormatError(SodecError, ValueError):
    """The stream is of a later format version, or carries a critical flag unknown here."""


class UnknownModelError(SodecError, ValueError):
    """No model of this name or fingerprint is installed."""


class WeightsError(SodecError, ValueError):
    """A weights file is missing, incomplete, of another configuration, or breaks a bound."""


class InvalidTableError(SodecError, ValueError):
    """A frequency table breaks a rule of the coder, or an index points outside the tables."""


class QualityError(SodecError, ValueError):
    """The quality is not a number from 1 to 100."""


class ViewError(SodecError, ValueError):
    """The part of a picture that is asked for can't be shown: region, scale, fidelity, mode or tile."""


class TargetError(SodecError, ValueError):
    """A requested size or rate can't be met."""


class DeviceError(SodecError, RuntimeError):
    """The requested device, dtype or kernel can't be served on this machine."""


class OutputError(SodecError, OSError):
    """The output can't be written, or a file is there that would be overwritten."""


class TrainingError(SodecError, RuntimeError):
    """Training can't go on: bad data folder, foreign checkpoint, or a NaN (step and tensor named)."""


class MissingPackageError(SodecError, ImportError):
    """A package of an extra is not installed, or the weights that it fetches can't be fetched."""


class DamageWarning(UserWarning):
    """Part of a stream is lost, where the caller asked for the rest of the picture instead of an error."""


@contextmanager
def item_named(items: str | None, number: int) -> Iterator[None]:
    """Makes an error that the block raises say which of several `items` it is about."""
    try:
        yield
    except (SodecError, TypeError) as error:
        if items is None:
            raise
        raise type(error)(f"{items}[{number}]: {error}") from error


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warns at the line outside of sodec that made the call, so that Python shows each such line once."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "sodec":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
