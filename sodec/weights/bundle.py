"""A folder of weights: model.json, coding.safetensors and network-N.safetensors.

model.json holds the configuration, the SHA-256 of every other file, and two names, each the start of a SHA-256. The
fingerprint, which streams carry, covers what decides y_hat: the integers of coding.safetensors, the networks of means
and gains, and the fields of the configuration that they depend on. The version covers everything. A stream can
therefore be read by any later decoder of the same coding. coding.safetensors is read without torch; networks are
16-bit floats.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..errors import UnknownModelError, WeightsError

FORMAT = 2
NAME_BYTES = 3  # of a fingerprint and of a version
QUALITIES = 199  # 1 to 100 in steps of a half
MAX_OFFSET = 1 << 20  # of a quality, FORMAT.md section 6
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
MAX_FILE_BYTES = 15_000_000  # of a small model's files, which version control has to bear
MAX_FILE_BYTES_LARGE, LARGE = 2_000_000_000, 200_000_000  # of the files of a model of that size in all
DESCRIPTION = "model.json"
MAX_DESCRIPTION = 1_000_000  # bytes; that of sd21 has 3,000
NAME = re.compile(rf"[0-9a-f]{{{2 * NAME_BYTES}}}")
SHA256 = re.compile(r"[0-9a-f]{64}")
FILE = re.compile(r"\w[\w.-]*\.safetensors")  # a name, never a path that leads out of the folder
CODING_FILE = "coding.safetensors"
BUNDLED = Path(__file__).parent
SEPARATE = "sd21"  # the model whose weights are too large for the package


class Place(NamedTuple):
    """Where a tensor's bytes are: a file of the folder, and what is in it where."""

    file: str
    offset: int
    length: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Coding:
    """What entropy coding needs of a model: integers alone, the same on every machine."""

    z_tables: tuple[Any, ...]  # entropy.Tables, one table per channel of z, in sets of 255
    y_tables: Any  # entropy.Tables, one per scale index
    layers: list[tuple[np.ndarray, np.ndarray, np.ndarray, int, int]]  # of the scale network
    offsets: np.ndarray  # int32 (qualities, Cy): what each stored quality adds to the index, in 1/16

    @functools.cached_property
    def scale_network(self) -> Any:
        """The native network, packed for this processor."""
        from .. import _native

        return _native.ScaleNetwork(self.layers)


@dataclass(frozen=True, eq=False)
class Bundle:
    """A folder of weights whose files are whole. `find` gives the same one again while the files stay as they are."""

    folder: Path
    config: Mapping[str, Any]  # fields of models.ModelConfig
    fingerprint: bytes  # of the coding: what streams carry
    version: str  # of all weights and the configuration, in hexadecimal digits
    files: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the model, as `config` gives it."""
        return str(self.config["name"])

    @functools.cached_property
    def coding(self) -> Coding:
        """The integers of coding. `WeightsError` where one is missing, breaks a bound or does not fit the others."""
        path = self.folder / CODING_FILE
        arrays = _load(path)
        for name, array in arrays.items():
            expected = np.int8 if name.endswith(".weights") else np.int32
            if array.dtype != expected:
                raise WeightsError(f"{path}: {name} must be {np.dtype(expected)} (got {array.dtype})")
        try:
            coding = self._coding(arrays)
            _check_coding(coding, self.config)
        except KeyError as error:
            raise WeightsError(f"{path} has no tensor {error.args[0]!r}") from None
        except (IndexError, TypeError, ValueError) as error:  # of tables and layers, by the rule that they break
            raise WeightsError(f"{path}: {error}") from None
        return coding

    @staticmethod
    def _coding(arrays: Mapping[str, np.ndarray]) -> Coding:
        count = int(arrays["scale_network.layers"][0])
        if count < 1:
            raise ValueError(f"the scale network must have a layer (got {count})")
        layers = [
            (
                arrays[f"scale_network.{i}.weights"], arrays[f"scale_network.{i}.bias"],
                arrays[f"scale_network.{i}.multiplier"], *arrays[f"scale_network.{i}.shift_upsample"].tolist(),
            )
            for i in range(count)
        ]  # fmt: skip
        z_tables = tuple(_tables(arrays, name) for name in _z_sets(arrays))
        return Coding(z_tables, _tables(arrays, "y_tables"), layers, arrays["offsets"])

    def made(self) -> Any:
        """The model, where it is not in files; None of a folder."""
        return None

    @property
    def size(self) -> int:
        """Bytes of the networks' files."""
        return sum((self.folder / name).stat().st_size for name in self.files if name != CODING_FILE)

    def tensors(self) -> dict[str, np.ndarray]:
        """Every tensor of the networks by name, float16. `WeightsError` names one of another dtype, or not finite."""
        tensors: dict[str, np.ndarray] = {}
        for file in self.files:
            if file == CODING_FILE:
                continue
            for name, tensor in _load(self.folder / file).items():
                if tensor.dtype != np.float16:
                    raise WeightsError(f"{self.folder / file}: {name} must be float16 (got {tensor.dtype})")
                # All bits of the exponent are set in NaN and infinities: 3 ms for lite, where np.isfinite takes 30.
                if tensor.size and int((tensor.view(np.uint16) & 0x7C00).max()) == 0x7C00:
                    raise WeightsError(f"{self.folder / file}: {name} has NaN or infinite values")
                tensors[name] = tensor
        return tensors

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor of the networks by name, of which the files' headers alone are read."""
        shapes: dict[str, tuple[int, ...]] = {}
        for file in self.files:
            if file != CODING_FILE:
                with _opened(self.folder / file) as tensors:
                    shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
        return shapes

    def places(self) -> dict[str, Place]:
        """Where in the files the bytes of every tensor of the networks are, for readers without safetensors."""
        places: dict[str, Place] = {}
        for file in self.files:
            if file == CODING_FILE:
                continue
            data = (self.folder / file).read_bytes()
            start = 8 + int.from_bytes(data[:8], "little")  # the header's length, then the header, as JSON
            for name, entry in json.loads(data[8:start]).items():
                if name != "__metadata__":
                    first, end = entry["data_offsets"]
                    places[name] = Place(file, start + first, end - first, tuple(entry["shape"]))
        return places


def resolve(model: str, weights: str | Path | Bundle | None = None) -> Bundle:
    """The weights that `Codec(model, weights=weights)` takes: a bundle that is open, a folder, "hf:...", or by name.

    Raises as `find`.
    """
    from .hub import located

    if isinstance(weights, Bundle):
        return weights
    return find(model, None if weights is None else located(weights))


def find(model: str, folder: Path | None = None) -> Bundle:
    """The weights in `folder`, or the bundled ones of this name.

    Raises
    ------
    UnknownModelError
        No bundled model has this name.
    WeightsError
        A file is missing, altered or only half there.
    """
    if folder is not None:
        bundle = _open(Path(folder))
        if model == SEPARATE and bundle.config.get("sizes") is None:
            raise WeightsError(
                f"{folder} holds the model {bundle.name!r}, which is not of the architecture of {model!r}"
            )
        return bundle
    names = bundled_models()
    if model not in names:
        if model == SEPARATE:
            raise UnknownModelError(
                f"the weights of {model!r} are not in the package: give trained ones (weights=, --weights), a folder "
                f"or hf:OWNER/NAME@COMMIT; `sodec init {model}` assembles a folder to train from public checkpoints"
            )
        raise UnknownModelError(f"no model {model!r} is installed; there are: {', '.join(names) or 'none'}")
    return _open(BUNDLED / model)


def find_by_fingerprint(fingerprint: bytes) -> Bundle | None:
    """The bundled model that reads streams of this fingerprint, if there is one."""
    name = bundled_fingerprints().get(fingerprint)
    return None if name is None else _open(BUNDLED / name)


def bundled_fingerprints() -> dict[bytes, str]:
    """Names of the models inside the package, by the fingerprints of the streams that they read."""
    return {bytes.fromhex(_describe(BUNDLED / name)["fingerprint"]): name for name in bundled_models()}


def bundled_models() -> list[str]:
    """Names of the models inside the package."""
    return sorted(path.parent.name for path in BUNDLED.glob(f"*/{DESCRIPTION}"))


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
    integers = _coding_arrays(coding)
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
            "format": FORMAT, "fingerprint": _fingerprint({**integers, **means}, config).hex(),
            "version": _version(sums, config), "config": dict(config), "files": sums,
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
    return _open(folder)


def sha256(path: Path) -> str:
    """In hexadecimal digits. `WeightsError` where the file can't be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise WeightsError(f"weights file {path} can't be read: {error.strerror}") from None
    return digest.hexdigest()


def _open(folder: Path) -> Bundle:
    """Reads and verifies a folder: once per process, unless a file's size or time of change says that it differs."""
    try:
        names = [DESCRIPTION, *_describe(folder)["files"]]
        states = tuple((name, (state := (folder / name).stat()).st_size, state.st_mtime_ns) for name in names)
    except OSError as error:
        raise WeightsError(f"weights file {error.filename} can't be read: {error.strerror}") from None
    return _verified(folder.absolute(), states)


@functools.lru_cache(maxsize=8)
def _verified(folder: Path, states: tuple[tuple[str, int, int], ...]) -> Bundle:
    """Takes the SHA-256 of every file: 45 ms of a decode of 210 with lite's 35 MB, on two Zen 4 cores."""
    description = _describe(folder)
    sums = description["files"]
    for name, expected in sums.items():
        if (actual := sha256(folder / name)) != expected:
            raise WeightsError(f"weights file {folder / name} is altered or incomplete: SHA-256 {actual[:12]}...")
    config, path = description["config"], folder / DESCRIPTION
    if (version := _version(sums, config)) != description["version"]:
        raise WeightsError(
            f"{path}: the configuration or a sum is altered: version {description['version']} is {version}"
        )
    arrays = _load(folder / CODING_FILE)
    for name in sums:
        if name != CODING_FILE:
            arrays |= _load(folder / name, CODING_NETWORKS)
    if (fingerprint := _fingerprint(arrays, config)).hex() != description["fingerprint"]:
        raise WeightsError(
            f"{path}: fingerprint {description['fingerprint']} is not that of its coding, {fingerprint.hex()}"
        )
    return Bundle(folder, config, fingerprint, version, tuple(sums))


def _describe(folder: Path) -> dict[str, Any]:
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


def _fingerprint(arrays: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> bytes:
    """The name of a coding, of the arrays and fields that decide y_hat, whatever files they are in."""
    digest = hashlib.sha256(json.dumps({name: config.get(name) for name in CODING_FIELDS}).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return FORMER.get(digest.hexdigest(), digest.digest()[:NAME_BYTES])


def _version(sums: Mapping[str, str], config: Mapping[str, Any]) -> str:
    """The name of all weights."""
    lines = "".join(f"{name} {sums[name]}\n" for name in sorted(sums)) + json.dumps(dict(config), sort_keys=True)
    return hashlib.sha256(lines.encode()).hexdigest()[: 2 * NAME_BYTES]


def _load(path: Path, prefixes: tuple[str, ...] = ("",)) -> dict[str, np.ndarray]:
    """The tensors of a file whose names begin with one of `prefixes`."""
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefixes)}  # noqa: SIM118


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A file of tensors, of which none is read yet."""
    try:
        with safe_open(path, "numpy") as file:
            yield file
    except (OSError, SafetensorError, TypeError, AttributeError) as error:  # the last two: of dtypes NumPy lacks
        raise WeightsError(f"weights file {path} can't be read: {error}") from None


def _z_sets(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Names of the sets of z's tables: "z_tables", then "z_tables.1" and so on."""
    found = [name.removesuffix(".precision") for name in arrays if re.fullmatch(r"z_tables(\.\d+)?\.precision", name)]
    return sorted(found, key=lambda name: int(name.partition(".")[2] or 0)) or ["z_tables"]


def _check_coding(coding: Coding, config: Mapping[str, Any]) -> None:
    """`ValueError` where the parts of a coding do not fit each other and the configuration."""
    z, y = config.get("z_channels"), config.get("y_channels")
    first, last = coding.layers[0][0], coding.layers[-1][0]
    upsampling = math.prod(upsample for *_, upsample in coding.layers)
    for what, value, expected in (
        ("tables of z", sum(tables.count for tables in coding.z_tables), z),
        ("tables of y", coding.y_tables.count, config.get("scale_count")),
        ("offsets", coding.offsets.shape, (QUALITIES, y)),
        ("dimensions of the scale network's weights", {weights.ndim for weights, *_ in coding.layers}, {4}),
        ("inputs of the scale network", first.shape[-1], z),
        ("outputs of the scale network", last.shape[0], y),
        ("upsampling of the scale network", upsampling, 4),
    ):
        if value != expected:
            raise ValueError(f"{what} must be {expected}, by the configuration and the format (got {value})")
    if (largest := int(np.abs(coding.offsets.astype(np.int64)).max())) > MAX_OFFSET:
        raise ValueError(f"offsets must be within {MAX_OFFSET} of 0 (got {largest})")


def _tables(arrays: Mapping[str, np.ndarray], name: str) -> Any:
    from .. import _native

    cumulative, offsets, minimums, precision = (
        arrays[f"{name}.{field}"] for field in ("cumulative", "offsets", "minimums", "precision")
    )
    return _native.Tables(cumulative, offsets, minimums, int(precision[0]))


def _coding_arrays(coding: Coding) -> dict[str, np.ndarray]:
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


def _shards(tensors: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    large = sum(array.nbytes for array in tensors.values()) >= LARGE
    limit = (MAX_FILE_BYTES_LARGE if large else MAX_FILE_BYTES) - 200_000  # for the files' headers
    shards: list[dict[str, np.ndarray]] = [{}]
    room = limit
    for name in sorted(tensors):
        size = tensors[name].nbytes
        if size > room and shards[-1]:
            shards.append({})
            room = limit
        shards[-1][name] = np.ascontiguousarray(tensors[name])
        room -= size
    return shards
