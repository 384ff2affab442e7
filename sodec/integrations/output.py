"""A folder of outputs on any filesystem: whole files only, and none that is there is made again."""

from __future__ import annotations

import contextlib
import functools
import re
import secrets
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ..errors import OutputError
from ..files import write_file

# Here a file appears once it is closed, whole, and renaming would copy it.
OBJECT_STORES = ("s3", "s3a", "gcs", "gs", "abfs", "az", "oss", "r2")


class Remote(NamedTuple):
    """A folder that pyarrow reaches."""

    filesystem: Any  # pyarrow.fs.FileSystem
    folder: str  # as the filesystem names it


class Output:
    """Where files go, and under which names; made anew in each worker that it is sent to.

    Parameters
    ----------
    folder
        A local path, or a URL of a filesystem that pyarrow knows (s3://bucket/folder, gs://..., hdfs://...) or else
        fsspec (memory://..., az://..., what is installed).
    suffix
        Of the files, as ".sodec".
    overwrite
        Replaces files that are there; else they are left as they are.

    Raises
    ------
    OutputError
        No such filesystem.
    """

    def __init__(self, folder: str | Path, suffix: str, *, overwrite: bool = False) -> None:
        self.suffix, self.overwrite = suffix, overwrite
        # Workers may be started in another folder.
        self.folder = str(folder) if "://" in str(folder) else str(Path(folder).absolute())
        if "://" in self.folder:
            remote(self.folder)

    def target(self, path: str) -> str:
        """Where the output of the file `path` goes: two names below the folder, those of its folder and of itself.

        `path` comes from elsewhere. Of its parts those count that are names; a backslash parts them too, and colons
        become underscores, since to Windows they mean drives and streams of a file.

        Raises `OutputError` where the file's name is none.
        """
        parts = [part for part in re.split(r"[/\\]", path.replace(":", "_")) if part not in ("", ".", "..")]
        if not parts or re.search(r"(^|[/\\])\.{0,2}$", path):
            raise OutputError("it has no name")
        for part in parts[-2:]:
            if re.search(r"[\x00-\x1f\x7f]", part):
                raise OutputError(f"{part!r} can't be the name of a file")
        name = f"{PurePosixPath(parts[-1]).stem}{self.suffix}"
        return "/".join([self.folder.rstrip("/"), *parts[-2:-1], name])

    def is_done(self, target: str) -> bool:
        """Whether there is nothing to do, since the file is there."""
        if self.overwrite:
            return False
        if "://" not in self.folder:
            return Path(target).is_file()
        from pyarrow import fs

        filesystem, path = self._place(target)
        return bool(filesystem.get_file_info(path).type == fs.FileType.File)

    def write(self, target: str, data: bytes) -> bool:
        """Writes a file so that its name never shows a part of it; False where another has written it meanwhile.

        Raises `OSError` as the filesystem says it.
        """
        if "://" not in self.folder:
            local = Path(target)
            local.parent.mkdir(parents=True, exist_ok=True)
            try:
                write_file(local, data, overwrite=self.overwrite)
            except OutputError:
                if self.overwrite or not local.is_file():
                    raise
                return False
            return True
        filesystem, path = self._place(target)
        if _is_object_store(filesystem):
            with filesystem.open_output_stream(path) as stream:
                stream.write(data)
            return True
        parent = path.rpartition("/")[0]
        filesystem.create_dir(parent, recursive=True)
        beside = f"{parent}/.sodec-{secrets.token_hex(8)}.part"
        try:
            with filesystem.open_output_stream(beside) as stream:
                stream.write(data)
            if self.is_done(target):
                filesystem.delete_file(beside)
                return False
            filesystem.move(beside, path)
        except BaseException:
            _delete(filesystem, beside)
            raise
        return True

    def _place(self, target: str) -> tuple[Any, str]:
        filesystem, folder = remote(self.folder)
        return filesystem, folder + target[len(self.folder.rstrip("/")) :]


@functools.lru_cache(maxsize=8)
def remote(url: str) -> Remote:
    """The filesystem of a URL, by pyarrow or else by fsspec. `OutputError` where neither knows it."""
    import pyarrow
    from pyarrow import fs

    try:
        filesystem, folder = fs.FileSystem.from_uri(url)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError):
        try:
            import fsspec

            inner, folder = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise OutputError(f"{url}: no filesystem of this kind is known here: {error}") from None
        filesystem = fs.PyFileSystem(fs.FSSpecHandler(inner))
    return Remote(filesystem, folder.rstrip("/"))


def _is_object_store(filesystem: Any) -> bool:
    return re.split(r"\W+", filesystem.type_name)[-1] in OBJECT_STORES


def _delete(filesystem: Any, path: str) -> None:
    with contextlib.suppress(OSError):  # it is gone, or the filesystem is
        filesystem.delete_file(path)
