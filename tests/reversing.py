"""What the workers of test_folders.py do: it is pickled by name, and imports no torch, so that they begin at once."""

import os

from sodec.cli.folders import Converted
from sodec.errors import UnsupportedPictureError


def reverse(**_):
    return reversed_bytes


def reversed_bytes(path):
    if path.stem == "bad":
        raise UnsupportedPictureError("not a picture")
    if path.stem == "bug":
        raise ZeroDivisionError("oh")
    if path.stem == "dies":
        os._exit(1)
    return Converted(path.read_bytes()[::-1], "reversed")
