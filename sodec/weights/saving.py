"""Writes a folder of weights; `bundle.py` says what is in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from safetensors.numpy import save

from .bundle import Bundle, Coding, find
from .description import CODING_FILE, CODING_NETWORKS, DESCRIPTION, FORMAT, fingerprint_of, version_of

MAX_FILE_BYTES = 15_000_000  # of a small model's files, which version control has to bear
MAX_FILE_BYTES_LARGE, LARGE = 2_000_000_000, 200_000_000  # of the files of a model of that size in all


def write(
    folder: Path,
    config: Mapping[str, Any],
    coding: Coding,
    networks: Mapping[str, np.ndarray],
    extra: Mapping[str, bytes] = MappingProxyType({}),
) -> Bundle:
    """Writes a folder of weights; networks are cut into files of at most `MAX_FILE_BYTES`. An old one is replaced.

    All is written beside the old files before the first is replaced, model.json last: an interrupted export leaves the
    old weights whole, or, in the moment of renaming, a folder that says that it is not.

    Parameters
    ----------
    config, coding, networks
        What the codec reads.
    extra
        Contents of files that the codec does not read, by name: part of neither fingerprint nor version.
    """
    folder.mkdir(parents=True, exist_ok=True)
    integers = coding_arrays(coding)
    shards = {CODING_FILE: integers}
    shards |= {f"network-{number}.safetensors": shard for number, shard in enumerate(_shards(networks), 1)}
    names = [*shards, *extra, DESCRIPTION]
    beside = {name: folder / f"{name}.partial" for name in names}
    try:
        sums = {}
        for name, arrays in shards.items():
            sums[name] = hashlib.sha256(data := save(arrays)).hexdigest()
            beside[name].write_bytes(data)
        means = {name: array for name, array in networks.items() if name.startswith(CODING_NETWORKS)}
        description = {
            "format": FORMAT, "fingerprint": fingerprint_of({**integers, **means}, config).hex(),
            "version": version_of(sums, config), "config": dict(config), "files": sums,
        }  # fmt: skip
        for name, data in {**extra, DESCRIPTION: (json.dumps(description, indent=2) + "\n").encode()}.items():
            beside[name].write_bytes(data)
    except BaseException:
        for path in beside.values():
            path.unlink(missing_ok=True)
        raise
    (folder / DESCRIPTION).unlink(missing_ok=True)
    for old in folder.glob("*.safetensors"):
        old.unlink()
    for name, path in beside.items():
        path.replace(folder / name)
    return find(str(config["name"]), folder)


def coding_arrays(coding: Coding) -> dict[str, np.ndarray]:
    """The tensors of coding.safetensors."""
    arrays = {"offsets": coding.offsets, "scale_network.layers": np.array([len(coding.layers)], np.int32)}
    sets = {f"z_tables.{number}" if number else "z_tables": one for number, one in enumerate(coding.z_tables)}
    for name, tables in {**sets, "y_tables": coding.y_tables}.items():
        for field in ("cumulative", "offsets", "minimums"):
            arrays[f"{name}.{field}"] = getattr(tables, field)
        arrays[f"{name}.precision"] = np.array([tables.precision], np.int32)
    for i, (weights, bias, multiplier, shift, upsample) in enumerate(coding.layers):
        arrays[f"scale_network.{i}.weights"] = weights
        arrays[f"scale_network.{i}.bias"] = bias
        arrays[f"scale_network.{i}.multiplier"] = multiplier
        arrays[f"scale_network.{i}.shift_upsample"] = np.array([shift, upsample], np.int32)
    return arrays


def _group(name: str) -> int:
    """Files of their own for what only the encoder reads, what both read, and what only the decoder reads."""
    return 0 if name.startswith(("analysis.", "hyper_analysis.")) else 1 if name.startswith(CODING_NETWORKS) else 2


def _shards(tensors: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    large = sum(array.nbytes for array in tensors.values()) >= LARGE
    limit = (MAX_FILE_BYTES_LARGE if large else MAX_FILE_BYTES) - 200_000  # for the files' headers
    shards: list[dict[str, np.ndarray]] = [{}]
    room = limit
    group = 0
    for name in sorted(tensors, key=lambda name: (_group(name), name)):
        size = tensors[name].nbytes
        if shards[-1] and (size > room or _group(name) != group):
            shards.append({})
            room = limit
        group = _group(name)
        shards[-1][name] = np.ascontiguousarray(tensors[name])
        room -= size
    return shards
