"""Pictures to streams over Ray Data: files, folders or tar shards in, streams out (extra: ray).

On one machine or on the cluster that `ray.init` has joined; each worker holds a model of its own.
"""

from __future__ import annotations

import errno
import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import ray.data

from ..errors import OutputError, SodecError, UnsupportedPictureError
from ..files import write_file
from ..picture import suffixes

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # what no further file would get past


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


def write(streams: ray.data.Dataset, folder: str | Path, *, overwrite: bool = False) -> list[str]:
    """Writes every stream under its picture's name and returns the errors, one line for each bad picture.

    Each goes into a folder of the name of the one that it came from, whatever the names in a shard are: nothing lands
    outside of `folder`. A second picture of a name there is an error, and so is a file that exists, unless `overwrite`.
    """
    errors: list[str] = []
    taken: dict[Path, str] = {}
    for row in streams.iter_rows():
        path = row["path"]
        try:
            if row["error"]:
                raise OutputError(row["error"])
            target = _target(Path(folder), path)
            if target in taken:
                raise OutputError(f"{taken[target]} already goes to {target}")
            target.parent.mkdir(parents=True, exist_ok=True)
            write_file(target, row["stream"], overwrite=overwrite)
            taken[target] = path
        except OSError as error:
            if error.errno in FULL:
                raise
            text = str(error).replace("--overwrite", "overwrite=True")
            errors.append(_one_line(f"{path}: {text}"))
    return errors


def _target(folder: Path, path: str) -> Path:
    """Where the stream of the picture `path` goes: two names below `folder`, those of its folder and of itself.

    `path` comes from elsewhere. Of its parts those count that are names; a backslash parts them too, and colons become
    underscores, since to Windows they mean drives and streams of a file.

    Raises `OutputError` where the picture's name is none.
    """
    parts = [part for part in re.split(r"[/\\]", path.replace(":", "_")) if part not in ("", ".", "..")]
    if not parts or re.search(r"(^|[/\\])\.{0,2}$", path):
        raise OutputError("it has no name")
    for part in parts[-2:]:
        if re.search(r"[\x00-\x1f\x7f]", part):
            raise OutputError(f"{part!r} can't be the name of a file")
    return Path(folder, *parts[-2:-1], f"{PurePosixPath(parts[-1]).stem}.sodec")


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _pictures_of(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The row, or a row for each picture in a shard. Damaged shards and members give a row without bytes."""
    path = row["path"]
    if not path.lower().endswith(".tar"):
        if PurePosixPath(path).suffix.lower() in suffixes():
            yield row
        return
    try:
        # Packed shards are refused: a few kilobytes could become gigabytes.
        with tarfile.open(fileobj=io.BytesIO(row["bytes"]), mode="r:") as shard:
            for member in shard:
                if PurePosixPath(member.name).suffix.lower() in suffixes() and member.isfile():
                    whole = not member.issparse()  # one that is holes for the most part may claim any size
                    file = shard.extractfile(member) if whole else None
                    name = member.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
                    yield {"path": f"{path}/{name}", "bytes": b"" if file is None else file.read()}
    except (tarfile.TarError, EOFError, OSError, ValueError):
        yield {"path": path, "bytes": b""}


class _Compressor:
    """One worker."""

    def __init__(self, codec: dict[str, Any], options: dict[str, Any]) -> None:
        from ..codec import Codec

        self.codec, self.options = Codec(**codec), options

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        streams, errors = [], []
        for data in batch["bytes"]:
            try:
                if not data:
                    raise UnsupportedPictureError("its bytes can't be read: the file or its shard is empty or damaged")
                streams.append(self.codec.compress(io.BytesIO(data), **self.options))
                errors.append("")
            except SodecError as error:
                streams.append(b"")
                errors.append(str(error))
        return {"path": batch["path"], "stream": streams, "error": errors}
