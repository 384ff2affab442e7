"""model.json, the description of a folder of weights: how it is read and checked, and the names that it holds."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import WeightsError

FORMAT = 2
NAME_BYTES = 3  # of a fingerprint and of a version
# What decides y_hat beside coding.safetensors: prefixes of tensors, and fields of the configuration.
CODING_NETWORKS = ("gain.", "mean.", "context.")
CODING_FIELDS = (
    "y_channels",
    "z_channels",
    "hyper",
    "context",
    "quality_anchors",
    "scale_min",
    "scale_max",
    "scale_count",
)
# Streams of these codings were written when fingerprints covered all weights, decoders included; they keep their name.
FORMER = {"af2359a286c0ee1f5feda524abf364d10f9a9b73d7c6a3908bc544abbc9a463d": bytes.fromhex("eb1e22")}
DESCRIPTION = "model.json"
MAX_DESCRIPTION = 1_000_000  # bytes; that of sd21 has 3,000
NAME = re.compile(rf"[0-9a-f]{{{2 * NAME_BYTES}}}")
SHA256 = re.compile(r"[0-9a-f]{64}")
FILE = re.compile(r"\w[\w.-]*\.safetensors")  # a name, never a path that leads out of the folder
CODING_FILE = "coding.safetensors"


def describe(folder: Path) -> dict[str, Any]:
    """The contents of model.json, whose every field has its type; the configuration is checked by `ModelConfig`."""
    path = folder / DESCRIPTION
    try:
        with open(path, "rb") as file:
            # No more memory than the file takes: a read takes what it is asked for.
            text = file.read(min(os.fstat(file.fileno()).st_size, MAX_DESCRIPTION) + 1)
        if len(text) > MAX_DESCRIPTION:
            raise WeightsError(f"{path} has more than {MAX_DESCRIPTION} bytes")
        description = json.loads(text.decode(), parse_constant=_refuse_constant)
    except WeightsError:
        raise
    except OSError as error:
        if (folder / "model_index.json").exists() or (folder / "config.json").exists():
            raise WeightsError(f"{folder} is a public checkpoint; `sodec init` makes weights of it") from None
        raise WeightsError(f"no weights in {folder}: {DESCRIPTION}: {error.strerror}") from None
    except RecursionError:
        raise WeightsError(f"{path} is not JSON of weights: it is nested too deeply") from None
    except ValueError as error:
        raise WeightsError(f"{path} is not JSON: {error}") from None
    if not isinstance(description, dict) or "format" not in description:
        raise WeightsError(f"{path} does not describe weights")
    if description["format"] != FORMAT:
        raise WeightsError(
            f"{path} is of format {description['format']}; this sodec reads {FORMAT}: export the checkpoint again"
        )
    if description.keys() != {"format", "fingerprint", "version", "config", "files"}:
        raise WeightsError(f"{path} does not describe weights")
    for field in ("fingerprint", "version"):
        if not (isinstance(value := description[field], str) and NAME.fullmatch(value)):
            raise WeightsError(f"{path}: {field} must be {2 * NAME_BYTES} hexadecimal digits (got {_short(value)})")
    files, config = description["files"], description["config"]
    if not isinstance(files, dict) or CODING_FILE not in files:
        raise WeightsError(f"{path}: files must be an object with {CODING_FILE} in it")
    for name, value in files.items():
        if not FILE.fullmatch(name):
            raise WeightsError(f"{path}: a file must have a plain name that ends in .safetensors (got {_short(name)})")
        if not (isinstance(value, str) and SHA256.fullmatch(value)):
            raise WeightsError(f"{path}: the SHA-256 of {name} must be 64 hexadecimal digits (got {_short(value)})")
    if not isinstance(config, dict) or not isinstance(config.get("name"), str):
        raise WeightsError(f"{path}: config must be an object with a name (got {_short(config)})")
    return description


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def fingerprint_of(arrays: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> bytes:
    """The name of a coding, of the arrays and fields that decide y_hat, whatever files they are in."""
    digest = hashlib.sha256(json.dumps({name: config.get(name) for name in CODING_FIELDS}).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return FORMER.get(digest.hexdigest(), digest.digest()[:NAME_BYTES])


def version_of(sums: Mapping[str, str], config: Mapping[str, Any]) -> str:
    """The name of all weights."""
    lines = "".join(f"{name} {sums[name]}\n" for name in sorted(sums)) + json.dumps(dict(config), sort_keys=True)
    return hashlib.sha256(lines.encode()).hexdigest()[: 2 * NAME_BYTES]
