"""Checkpoints as diffusers and transformers write them: config.json and safetensors files, whole or in shards."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import WeightsError
from .bundle import sha256

if TYPE_CHECKING:
    from torch import Tensor

STEMS = ("diffusion_pytorch_model", "model")  # of diffusers, of transformers
MAX_HEADER = 100_000_000  # bytes, safetensors' own limit


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. `WeightsError` where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(f"{path} can't be read: {error.strerror}") from None
    except ValueError as error:
        raise WeightsError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise WeightsError(f"{path} is not a JSON object")
    return value


def require(path: Path, config: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """`WeightsError` that names the first field of `config` which is not as `wanted`; one left out counts as right."""
    for name, value in wanted.items():
        if config.get(name, value) != value:
            raise WeightsError(f"{path}: {name} is {config[name]!r}, this model needs {value!r}")


def read_tensors(folder: Path, sums: Collection[str] = ()) -> dict[str, Tensor]:
    """Every tensor of the checkpoint in `folder`, by name. Pickled files are never read.

    Raises `WeightsError` where a file is missing or only half there, or, if there are `sums`, where its SHA-256 is
    none of them.
    """
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for path in _files(folder):
        check_whole(path)
        if sums and (found := sha256(path)) not in sums:
            raise WeightsError(f"{path}: SHA-256 {found} is not one that was given")
        tensors |= load_file(path)
    return tensors


def check_whole(path: Path) -> None:
    """`WeightsError` where a safetensors file is shorter or longer than its header says, or is none at all."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            # of something else, or cut short, this may be any number
            header = json.loads(file.read(length if length <= min(size - 8, MAX_HEADER) else 0))
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    except OSError as error:
        raise WeightsError(f"{path} can't be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise WeightsError(f"{path} is not a safetensors file, or ends within its header") from None
    if size != (promised := 8 + length + max(ends, default=0)):
        raise WeightsError(f"{path} has {size} bytes, its header says {promised}: was it downloaded completely?")


def _files(folder: Path) -> list[Path]:
    for stem in STEMS:
        if (path := folder / f"{stem}.safetensors").exists():
            return [path]
        if (index := folder / f"{stem}.safetensors.index.json").exists():
            shards = read_json(index).get("weight_map")
            if not isinstance(shards, dict):
                raise WeightsError(f"{index} has no weight_map")
            return [folder / name for name in sorted(set(shards.values()))]
    pickles = sorted(path.name for path in folder.glob("*") if path.suffix in (".bin", ".ckpt", ".pt", ".pth"))
    note = f"; {pickles[0]} is a pickle, which is never read" if pickles else ""
    raise WeightsError(f"{folder} has no {STEMS[0]}.safetensors or {STEMS[1]}.safetensors{note}")
