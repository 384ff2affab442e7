"""The page that decodes streams in a browser: put together from viewer/, the weights and ONNX Runtime's files.

Weights are stored once, in the package; a page holds those tensors that its graphs name.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from safetensors.numpy import save

from ..errors import MissingPackageError, WeightsError
from ..files import exists_error, write_file
from ..weights import Bundle, graphs
from ..weights.description import CODING_FILE

RUNTIME = "onnxruntime-web@1.30.0"  # MIT; from npm, since its files are larger than all of ours
RUNTIME_INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
# The first pair for every browser, the second for those with WebGPU. A visitor's browser fetches one of them.
RUNTIME_FILES = (
    "ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm",
)  # fmt: skip
NPM_SECONDS = 300
GRAPHS = ("dequantise", "fidelity", "decoder")
PAGE_SUFFIXES = (".css", ".html", ".js", ".svg")
NOT_OF_THE_PAGE = ("node", "test")  # folders of viewer/
MANIFEST = "weights.json"

Files = dict[str, bytes]  # by their path in the page's folder


def assemble(
    folder: Path, bundle: Bundle, *, runtime: Path | None = None, overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> None:  # fmt: skip
    """Writes the page into a folder, for any server of files.

    Parameters
    ----------
    runtime
        An unpacked onnxruntime-web, as in node_modules/. Without it the package comes from npm.
    overwrite
        Replaces files that exist; without it one is an `OutputError`, before anything is written.
    say
        Is called with a line for each step.

    Raises
    ------
    WeightsError
        There are no graphs of these weights.
    MissingPackageError
        npm is missing, or did not give the package.
    """
    files = page_files() | weights_files(bundle)
    names = [*files, *(f"onnxruntime/{name}" for name in RUNTIME_FILES)]
    for name in names:
        if not overwrite and (folder / name).exists():
            raise exists_error(folder / name)
    if runtime is None:
        say(f"fetching {RUNTIME} from npm ...")
    for name, data in (runtime_from_npm() if runtime is None else runtime_from_folder(runtime)).items():
        files[f"onnxruntime/{name}"] = data
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_file(folder / name, data, overwrite=overwrite)
    weights = sum(len(data) for name, data in files.items() if name.startswith("weights/"))
    say(f"{folder}: {len(files)} files, of which weights of {bundle.name} {bundle.version} {weights / 1e6:.1f} MB")


def source() -> Path:
    """The folder of the page's own files: in the installed package, or beside it in a clone."""
    package = Path(__file__).parents[1]
    installed = package / "viewer"
    return installed if installed.exists() else package.parent / "viewer"


def page_files() -> Files:
    """What the page is made of, but for weights and ONNX Runtime."""
    root = source()
    paths = [path.relative_to(root) for path in sorted(root.rglob("*")) if path.suffix in PAGE_SUFFIXES]
    return {path.as_posix(): (root / path).read_bytes() for path in paths if path.parts[0] not in NOT_OF_THE_PAGE}


def weights_files(bundle: Bundle) -> Files:
    """Integers, tensors and graphs of a model, and the list of them that the page reads first.

    Tensors are in a file for each graph, of those that no graph before it needs: the fidelity picture waits for 6 MB of
    them, the full one for 18.
    """
    paths = graphs.find(bundle, by_name=True)
    if missing := [name for name in GRAPHS if name not in paths]:
        folder_of_graphs = next(iter(paths.values())).parent
        raise WeightsError(
            f"{folder_of_graphs} has no graph {missing[0]}: `sodec export-onnx --without-weights` writes it"
        )
    found = {name: paths[name].read_bytes() for name in GRAPHS}
    tensors, folder = bundle.tensors(), PurePosixPath("weights")
    files = {str(folder / CODING_FILE): (bundle.folder / CODING_FILE).read_bytes()}
    parts: list[str] = []  # paths of the files of tensors; a graph needs the first so many of them
    counts = {}
    for name, graph in found.items():
        files[str(folder / graphs.file_of(name))] = graph
        if new := {tensor: tensors.pop(tensor) for tensor in graphs.weights_of(graph) if tensor in tensors}:
            parts.append(str(folder / f"{name}.packed"))
            files[parts[-1]] = packed(save(new))
        counts[name] = len(parts)
    listed = {path: {"path": path, **_identified(data)} for path, data in files.items()}
    manifest = {
        "model": bundle.name, "version": bundle.version, "fingerprint": bundle.fingerprint.hex(),
        "coding": listed[str(folder / CODING_FILE)], "tensors": [listed[path] for path in parts],
        "graphs": {
            name: {**listed[str(folder / graphs.file_of(name))], "tensors": count} for name, count in counts.items()
        },
    }  # fmt: skip
    return {MANIFEST: (json.dumps(manifest, indent=2) + "\n").encode(), **files}


def _identified(data: bytes) -> dict[str, int | str]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def packed(data: bytes) -> bytes:
    """16-bit floats as a zlib stream of all low bytes, then of all high bytes: 14 % less than they take, without loss.

    Of `lite` 18.4 of 21.4 MB; zlib alone leaves 19.7. viewer/networks/store.js has the inverse.
    """
    padded = data + bytes(len(data) % 2)
    return zlib.compress(padded[::2] + padded[1::2], 9)


def runtime_from_folder(package: Path) -> Files:
    """ONNX Runtime's files of an unpacked package."""
    try:
        return {name: (package / "dist" / name).read_bytes() for name in RUNTIME_FILES}
    except OSError as error:
        raise MissingPackageError(f"{error.filename}: {error.strerror}; the page is made with {RUNTIME}") from None


def kept_runtime(folder: Path) -> Path:
    """An unpacked package below `folder`, which npm fetches if it is not there."""
    package = folder / RUNTIME
    if not all((package / "dist" / name).exists() for name in RUNTIME_FILES):
        files = runtime_from_npm()
        (package / "dist").mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_file(package / "dist" / name, data)
    return package


def runtime_from_npm() -> Files:
    """ONNX Runtime's files, by npm, of an archive with the right sum."""
    npm = shutil.which("npm")
    if npm is None:
        raise MissingPackageError(
            f"{RUNTIME} comes from npm, which is not installed; --onnxruntime takes an unpacked copy of that package"
        )
    with tempfile.TemporaryDirectory() as folder:
        try:
            subprocess.run(
                [npm, "pack", "--silent", RUNTIME], cwd=folder, capture_output=True, text=True, check=True,
                timeout=NPM_SECONDS,
            )  # fmt: skip
            (archive,) = Path(folder).glob("*.tgz")
        except (subprocess.SubprocessError, OSError, ValueError) as error:
            said = str(getattr(error, "stderr", "") or error).strip().splitlines()
            raise MissingPackageError(f"npm can't fetch {RUNTIME}: {said[-1] if said else 'no reason given'}") from None
        data = archive.read_bytes()
    found = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    if found != RUNTIME_INTEGRITY:
        raise MissingPackageError(f"{RUNTIME} must have the sum {RUNTIME_INTEGRITY} (got {found})")
    with tarfile.open(fileobj=io.BytesIO(data)) as packed:
        members = {name: packed.extractfile(f"package/dist/{name}") for name in RUNTIME_FILES}
        return {name: member.read() for name, member in members.items() if member is not None}
