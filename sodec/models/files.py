"""From a folder of weights to a model, and from a model to what such a folder holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .. import weights
from ..entropy import PRECISION, laplace_tables, tables_from_probabilities
from ..errors import WeightsError
from ..memory import is_out_of_memory
from ..stream.header import QUALITY_STEPS
from ..weights import Bundle
from ..weights.description import DESCRIPTION
from .config import ModelConfig
from .model import SodecModel
from .prepare import Prepared, prepare

# model.json could ask for any size. A model of lite's architecture beyond these limits is compared with the tensors in
# the files first: with their number and largest dimension, and where widths are beyond, with all shapes, by building it
# without memory. That comes last, since the first use of torch's device "meta" takes 1.5 s, or 9 from a cold disk. At
# both limits everywhere, building takes 2 GB.
MAX_WIDTH_AT_ONCE, MAX_DEPTH_AT_ONCE = 384, 16
TENSORS_PER_BLOCK = 4  # at least: two convolutions with biases
MAX_TABLES = 255  # in a set
COUNT = ".num_batches_tracked"  # of batch norms in training, which nothing reads
TRAINING_FILE = "train.safetensors"  # what only training needs, beside the weights


def load_model(bundle: Bundle, device: torch.device, dtype: torch.dtype) -> Prepared:
    """The model, ready to run: frozen and specialised by `prepare`. Raises as `read_model`."""
    return prepare(read_model(bundle), device, dtype)


def read_model(bundle: Bundle) -> SodecModel:
    """The model as it was trained, in float32, on the CPU if it is read from files.

    `WeightsError` names tensors that are missing or misfit.
    """
    if (made := bundle.made()) is not None:
        return made.eval()
    try:
        config = ModelConfig.from_dict(dict(bundle.config))
        if config.sizes is None and (config.widest > MAX_WIDTH_AT_ONCE or config.deepest > MAX_DEPTH_AT_ONCE):
            shapes = bundle.shapes()
            _check_sizes(config, shapes)
            if config.widest > MAX_WIDTH_AT_ONCE:
                with torch.device("meta"):
                    without_memory = _built(config)
                del without_memory.scale_network
                check_shapes(without_memory, shapes, bundle.folder)
        model = empty(config)
    except WeightsError as error:
        text = str(error)
        raise WeightsError(text if str(bundle.folder) in text else f"{bundle.folder / DESCRIPTION}: {text}") from None
    del model.scale_network  # its integers run in the native module
    arrays = bundle.tensors()
    fill(model, {name: torch.from_numpy(arrays.pop(name).astype(np.float32)) for name in list(arrays)}, bundle.folder)
    return model.eval()


def _check_sizes(config: ModelConfig, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """`WeightsError` where tensors of these shapes can't be all of a model of these sizes."""
    largest = max((size for shape in shapes.values() for size in shape), default=0)
    if config.widest > largest:
        raise WeightsError(f"a width is {config.widest}, but no tensor in the files has a side beyond {largest}")
    if config.blocks * TENSORS_PER_BLOCK > len(shapes):
        raise WeightsError(f"the depths add up to {config.blocks}, but the files have {len(shapes)} tensors")


def fill(model: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Gives `model` these tensors. Raises as `check_shapes`."""
    check_shapes(model, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, source)
    model.load_state_dict(tensors, assign=True)


def check_shapes(model: nn.Module, shapes: Mapping[str, tuple[int, ...]], source: Path) -> None:
    """`WeightsError` names `source` and what tensor is missing, left over or of another shape."""
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items() if not name.endswith(COUNT)}
    if missing := sorted(expected.keys() - shapes.keys()):
        raise WeightsError(f"{source} lacks {len(missing)} tensors, the first is {missing[0]!r}")
    if unknown := sorted(shapes.keys() - expected.keys()):
        raise WeightsError(f"{source} has {len(unknown)} tensors that the model does not, as {unknown[0]!r}")
    for name, shape in shapes.items():
        if shape != expected[name]:
            raise WeightsError(f"{source}: {name} is {shape}, the model needs {expected[name]}")


def empty(config: ModelConfig) -> SodecModel:
    """The model, its weights to be replaced. `WeightsError` where none can have these sizes."""
    if config.sizes is not None:
        with torch.device("meta"):
            return _built(config)
    # On the device "meta" nothing would be drawn, but its first use imports 1.5 s of torch, and drawing lite's weights
    # takes 0.15 s. The caller's random state stays as it was.
    with torch.random.fork_rng(devices=[]):
        return _built(config)


def _built(config: ModelConfig) -> SodecModel:
    try:
        return SodecModel(config)
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise WeightsError(f"no model of {config.name!r} has these sizes: {error}") from None


def coding_of(model: SodecModel, probabilities: Sequence[np.ndarray], minimums: np.ndarray) -> weights.Coding:
    """The integers of `model`, given the probabilities of each channel of z and the integer that each begins at."""
    qualities = torch.arange(QUALITY_STEPS, 100 * QUALITY_STEPS + 1) / QUALITY_STEPS
    with torch.no_grad():
        offsets = model.index_offsets(qualities).numpy().astype(np.int32)
    sets = [slice(first, first + MAX_TABLES) for first in range(0, len(probabilities), MAX_TABLES)]
    return weights.Coding(
        z_tables=tuple(
            tables_from_probabilities(probabilities[part], minimums[part], precision=PRECISION) for part in sets
        ),
        y_tables=laplace_tables(model.config.scales, precision=PRECISION),
        layers=[(*layer,) for layer in model.scale_network.export()],
        offsets=offsets,
    )


def networks_of(model: SodecModel) -> dict[str, np.ndarray]:
    """Every tensor that runs in floats, float16. `WeightsError` names one that is not finite."""
    tensors = {}
    for name, value in model.state_dict().items():
        if name.startswith("scale_network.") or name.endswith(COUNT):
            continue
        array = value.to(torch.float16).numpy()
        if not np.isfinite(array).all():
            raise WeightsError(f"{name} is not finite in float16")
        tensors[name] = array
    return tensors
