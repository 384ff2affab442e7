"""The work of test_folders.py's worker processes: pickled by name, and without torch, so that they start fast."""

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
