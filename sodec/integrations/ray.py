"""Pictures to streams and back over Ray Data: files, folders or tar shards in, files out (extra: ray).

On one machine or on the cluster that `ray.init` has joined. Each worker holds a model of its own, writes what it makes,
and leaves out what is there, so that a job that died goes on. Pixels and streams never pass through the driver.
"""

from __future__ import annotations

import errno
import functools
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow
import ray.data

from ..errors import SodecError, UnsupportedPictureError
from ..picture import suffixes
from .output import Output

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # what no further file would get past
STREAMS = frozenset({".sodec"})
AT_ONCE = 8  # pictures in a batch


def read(paths: str | list[str], *, streams: bool = False) -> ray.data.Dataset:
    """Rows {"path", "bytes"}: the pictures in files, folders and .tar shards ("shard.tar/name.jpg").

    `streams` reads .sodec files instead. Paths may be URLs of filesystems that Ray reads, as s3://bucket/folder.
    """
    wanted = STREAMS if streams else suffixes()
    return ray.data.read_binary_files(paths, include_paths=True).flat_map(functools.partial(_files_of, wanted=wanted))


def compress(
    dataset: ray.data.Dataset, *, to: str | Path | None = None, overwrite: bool = False, workers: int = 2,
    num_gpus: float | None = None, codec: dict[str, Any] | None = None, **options: Any,
) -> ray.data.Dataset:  # fmt: skip
    """Streams of rows {"path", "bytes"}. Nothing is done until rows are asked for: `errors` does it all.

    Parameters
    ----------
    to
        A folder, local or a URL as `Output` takes, that workers write to, each stream under its picture's name. The
        rows then are {"path", "target", "status", "bytes", "error"}: status is "written", "skipped" (the file is there)
        or "failed", bytes is the size of what was written. Without it they are {"path", "stream", "error"}: one of
        stream and error is empty.
    overwrite
        Makes and replaces files that are there.
    workers
        Processes, each with a codec of its own.
    num_gpus
        GPUs that a worker takes; by default one where `codec` asks for CUDA. Several may share one: 0.5.
    codec
        Arguments of `sodec.Codec`, the same on all machines: `weights` must be a path that each of them has.
    options
        Arguments of `Codec.compress`: quality, target_bpp, max_bytes, ...
    """
    output = None if to is None else Output(to, ".sodec", overwrite=overwrite)
    return _mapped(dataset, _Compressor, workers, num_gpus, codec or {}, options, output)


def decompress(
    dataset: ray.data.Dataset, *, to: str | Path | None = None, overwrite: bool = False, suffix: str = ".png",
    workers: int = 2, num_gpus: float | None = None, codec: dict[str, Any] | None = None, **options: Any,
) -> ray.data.Dataset:  # fmt: skip
    """Pictures of rows {"path", "bytes"} of streams, as files of the format that `suffix` names.

    `options` are those of `Codec.decompress`, the others as in `compress`. Without `to` the rows are {"path",
    "picture", "error"}, the picture being the bytes of its file.

    Raises `OutputError` where Pillow writes no such format.
    """
    from ..picture.writing import format_of

    output = None if to is None else Output(to, suffix, overwrite=overwrite)
    return _mapped(dataset, _Decompressor, workers, num_gpus, codec or {}, options, output, format_of(suffix))


def write(streams: ray.data.Dataset, folder: str | Path, *, overwrite: bool = False) -> list[str]:
    """Writes the streams that `compress` made without `to`, in tasks beside it, and returns `errors`."""
    writer = functools.partial(_written, output=Output(folder, ".sodec", overwrite=overwrite))
    return errors(streams.map_batches(writer, batch_size=AT_ONCE))


def errors(rows: ray.data.Dataset) -> list[str]:
    """Does all that is to be done for these rows, and returns one line for each file that failed.

    A second file whose output has the name of another's is an error too: one of both was written.
    """
    found: list[str] = []
    taken: dict[str, str] = {}
    for row in rows.iter_rows():
        path, error, target = row["path"], row["error"], row.get("target")
        if not error and target:
            if target in taken:
                error = f"{taken[target]} already goes to {target}"
            taken.setdefault(target, path)
        if error:
            found.append(_one_line(f"{path}: {error}"))
    return found


def _mapped(
    dataset: ray.data.Dataset, worker: type[_Worker], workers: int, num_gpus: float | None, codec: dict[str, Any],
    *arguments: Any,
) -> ray.data.Dataset:  # fmt: skip
    if num_gpus is None:
        num_gpus = float(str(codec.get("device", "")).startswith("cuda"))
    return dataset.map_batches(
        worker, fn_constructor_args=(codec, *arguments), batch_size=AT_ONCE,
        compute=ray.data.ActorPoolStrategy(size=workers), num_gpus=num_gpus or None,
        # Half a core is asked for, so that reading has its share where there are no more cores than workers.
        num_cpus=0.5,
    )  # fmt: skip


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _files_of(row: dict[str, Any], wanted: frozenset[str]) -> Iterator[dict[str, Any]]:
    """The row, or a row for each file in a shard, of these suffixes. Damaged shards and members give a row without
    bytes.
    """
    path = row["path"]
    if not path.lower().endswith(".tar"):
        if PurePosixPath(path).suffix.lower() in wanted:
            yield row
        return
    try:
        # Packed shards are refused: a few kilobytes could become gigabytes.
        with tarfile.open(fileobj=io.BytesIO(row["bytes"]), mode="r:") as shard:
            for member in shard:
                if PurePosixPath(member.name).suffix.lower() in wanted and member.isfile():
                    whole = not member.issparse()  # one that is holes for the most part may claim any size
                    file = shard.extractfile(member) if whole else None
                    name = member.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
                    yield {"path": f"{path}/{name}", "bytes": b"" if file is None else file.read()}
    except (tarfile.TarError, EOFError, OSError, ValueError):
        yield {"path": path, "bytes": b""}


class _Worker:
    """One process with a model: files to files."""

    made = ""  # the name of the column of what is made

    def __init__(self, codec: dict[str, Any], options: dict[str, Any], output: Output | None) -> None:
        from .. import Codec

        self.codec, self.options, self.output = Codec(**codec), options, output

    def converted(self, data: bytes) -> bytes:
        """What becomes of a file."""
        raise NotImplementedError

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        if self.output is None:
            pairs = [self._converted_or_error(data) for data in batch["bytes"]]
            return {"path": batch["path"], self.made: [data for data, _ in pairs], "error": [text for _, text in pairs]}
        rows = [
            _put(self.output, path, functools.partial(self._converted_or_error, data))
            for path, data in zip(batch["path"], batch["bytes"], strict=True)
        ]
        return _columns(batch, rows)

    def _converted_or_error(self, data: bytes) -> tuple[bytes, str]:
        try:
            if not data:
                raise UnsupportedPictureError("its bytes can't be read: the file or its shard is empty or damaged")
            return self.converted(data), ""
        except SodecError as error:
            return b"", str(error)


class _Compressor(_Worker):
    made = "stream"

    def converted(self, data: bytes) -> bytes:
        return self.codec.compress(io.BytesIO(data), **self.options)


class _Decompressor(_Worker):
    made = "picture"

    def __init__(self, codec: dict[str, Any], options: dict[str, Any], output: Output | None, kind: str) -> None:
        super().__init__(codec, options, output)
        self.kind = kind

    def converted(self, data: bytes) -> bytes:
        from ..picture.writing import encoded

        return encoded(self.codec.decompress(data, **self.options), self.kind)


def _written(batch: dict[str, np.ndarray], output: Output) -> dict[str, Any]:
    """Writes rows {"path", "stream", "error"}."""
    made = zip(batch["stream"], batch["error"], strict=True)
    rows = [_put(output, path, lambda one=one: one) for path, one in zip(batch["path"], made, strict=True)]
    return _columns(batch, rows)


def _put(output: Output, path: str, make: Any) -> tuple[str, str, int, str]:
    """Target, status, size and error of a file. `make` gives its bytes and an error, and is not asked if it exists."""
    target = ""
    try:
        target = output.target(path)
        if output.is_done(target):
            return target, "skipped", 0, ""
        data, error = make()
        if error:
            return target, "failed", 0, error
        return (target, "written", len(data), "") if output.write(target, data) else (target, "skipped", 0, "")
    except OSError as error:
        if error.errno in FULL:
            raise
        return target, "failed", 0, str(error).replace("--overwrite", "overwrite=True")
    except (SodecError, pyarrow.ArrowException, ValueError) as error:  # ValueError: of a name that no file can have
        return target, "failed", 0, str(error)


def _columns(batch: dict[str, np.ndarray], rows: list[tuple[str, str, int, str]]) -> dict[str, Any]:
    names = ("target", "status", "bytes", "error")
    return {"path": batch["path"], **{name: np.array([row[k] for row in rows]) for k, name in enumerate(names)}}
