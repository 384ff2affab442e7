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
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from ..errors import UnknownModelError, WeightsError
from .description import CODING_FILE, CODING_NETWORKS, DESCRIPTION, describe, fingerprint_of, version_of

QUALITIES = 199  # 1 to 100 in steps of a half
MAX_OFFSET = 1 << 20  # of a quality, FORMAT.md section 6
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
            coding = coding_from(arrays)
            _check_coding(coding, self.config)
        except KeyError as error:
            raise WeightsError(f"{path} has no tensor {error.args[0]!r}") from None
        except (IndexError, TypeError, ValueError) as error:  # of tables and layers, by the rule that they break
            raise WeightsError(f"{path}: {error}") from None
        return coding

    def made(self) -> Any:
        """The model, where it is not in files; None of a folder."""
        return None

    @property
    def size(self) -> int:
        """Bytes of the networks' files."""
        return sum((self.folder / name).stat().st_size for name in self.files if name != CODING_FILE)

    def tensors(self, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
        """Tensors of the networks by name, float16: all, or `names` as far as there are such.

        `WeightsError` names one of another dtype, or not finite.
        """
        tensors: dict[str, np.ndarray] = {}
        for file in self.files:
            if file == CODING_FILE:
                continue
            for name, tensor in _load(self.folder / file, names=names).items():
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


def coding_from(arrays: Mapping[str, np.ndarray]) -> Coding:
    """The coding of the tensors of coding.safetensors, as `saving.coding_arrays` gives them."""
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
    return {bytes.fromhex(describe(BUNDLED / name)["fingerprint"]): name for name in bundled_models()}


def bundled_models() -> list[str]:
    """Names of the models inside the package."""
    return sorted(path.parent.name for path in BUNDLED.glob(f"*/{DESCRIPTION}"))


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
        names = [DESCRIPTION, *describe(folder)["files"]]
        states = tuple((name, (state := (folder / name).stat()).st_size, state.st_mtime_ns) for name in names)
    except OSError as error:
        raise WeightsError(f"weights file {error.filename} can't be read: {error.strerror}") from None
    return _verified(folder.absolute(), states)


@functools.lru_cache(maxsize=8)
def _verified(folder: Path, states: tuple[tuple[str, int, int], ...]) -> Bundle:
    """Takes the SHA-256 of every file: 45 ms of a decode of 210 with lite's 35 MB, on two Zen 4 cores."""
    description = describe(folder)
    sums = description["files"]
    for name, expected in sums.items():
        if (actual := sha256(folder / name)) != expected:
            raise WeightsError(f"weights file {folder / name} is altered or incomplete: SHA-256 {actual[:12]}...")
    config, path = description["config"], folder / DESCRIPTION
    if (version := version_of(sums, config)) != description["version"]:
        raise WeightsError(
            f"{path}: the configuration or a sum is altered: version {description['version']} is {version}"
        )
    arrays = _load(folder / CODING_FILE)
    for name in sums:
        if name != CODING_FILE:
            arrays |= _load(folder / name, CODING_NETWORKS)
    if (fingerprint := fingerprint_of(arrays, config)).hex() != description["fingerprint"]:
        raise WeightsError(
            f"{path}: fingerprint {description['fingerprint']} is not that of its coding, {fingerprint.hex()}"
        )
    return Bundle(folder, config, fingerprint, version, tuple(sums))


def _load(path: Path, prefixes: tuple[str, ...] = ("",), names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The tensors of a file whose names begin with one of `prefixes`, or are among `names`."""
    with _opened(path) as file:
        kept = [
            name for name in file.keys()  # noqa: SIM118
            if (name.startswith(prefixes) if names is None else name in names)
        ]  # fmt: skip
        return {name: file.get_tensor(name) for name in kept}


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
