"""Pictures to streams over Ray Data: files, folders or tar shards in, streams out (extra: ray).

On one machine or on the cluster that `ray.init` has joined; each worker holds a model of its own.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import ray.data

from ..errors import SodecError
from ..files import write_file
from ..picture import suffixes


def read(paths: str | list[str]) -> ray.data.Dataset:
    """Rows {"path", "bytes"}: the pictures in files, folders and .tar shards ("shard.tar/name.jpg")."""
    return ray.data.read_binary_files(paths, include_paths=True).flat_map(_pictures_of)


def compress(
    dataset: ray.data.Dataset, *, workers: int = 2, codec: dict[str, Any] | None = None, **options: Any
) -> ray.data.Dataset:
    """Rows {"path", "stream", "error"} of rows {"path", "bytes"}: one of stream and error is empty.

    Parameters
    ----------
    workers
        Processes, each with a codec of its own.
    codec
        Arguments of `sodec.Codec`.
    options
        Arguments of `Codec.compress`: quality, target_bpp, max_bytes, ...
    """
    return dataset.map_batches(
        _Compressor, fn_constructor_args=(codec or {}, options), batch_size=8,
        compute=ray.data.ActorPoolStrategy(size=workers),
        # Half a core is asked for, so that reading has its share where there are no more cores than workers.
        num_cpus=0.5,
    )  # fmt: skip


def write(streams: ray.data.Dataset, folder: str | Path) -> list[str]:
    """Writes every stream under its picture's name and returns the errors, one line for each bad picture.

    Each goes into a folder of the name of the one that it came from; a second picture of a name there is an error.
    """
    errors: list[str] = []
    taken: dict[Path, str] = {}
    for row in streams.iter_rows():
        if row["error"]:
            errors.append(f"{row['path']}: {row['error']}")
            continue
        path = PurePosixPath(row["path"])
        target = Path(folder) / path.parent.name / f"{path.stem}.sodec"
        if target in taken:
            errors.append(f"{row['path']}: {taken[target]} already goes to {target}")
            continue
        taken[target] = row["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        write_file(target, row["stream"])
    return errors


def _pictures_of(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    path = row["path"]
    if not path.lower().endswith(".tar"):
        if PurePosixPath(path).suffix.lower() in suffixes():
            yield row
        return
    with tarfile.open(fileobj=io.BytesIO(row["bytes"])) as shard:
        for member in shard:
            file = shard.extractfile(member) if member.isfile() else None
            if file is not None and PurePosixPath(member.name).suffix.lower() in suffixes():
                yield {"path": f"{path}/{member.name}", "bytes": file.read()}


class _Compressor:
    """One worker."""

    def __init__(self, codec: dict[str, Any], options: dict[str, Any]) -> None:
        from ..codec import Codec

        self.codec, self.options = Codec(**codec), options

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        streams, errors = [], []
        for data in batch["bytes"]:
            try:
                streams.append(self.codec.compress(io.BytesIO(data), **self.options))
                errors.append("")
            except SodecError as error:
                streams.append(b"")
                errors.append(str(error))
        return {"path": batch["path"], "stream": streams, "error": errors}
