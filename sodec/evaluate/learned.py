"""Learned metrics whose feature weights are fetched by their packages: where they can't be had, the metric says so."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .optional import MissingPackageError, require

Array = npt.NDArray[np.uint8]
Distance = Callable[[Array, Array], float]


@functools.cache
def lpips(net: str) -> Distance:
    """LPIPS 0.1 (Zhang et al., CVPR 2018) with `net` alex or vgg, by the package lpips."""
    package = require("lpips", f"lpips_{net}")
    return _distance(f"lpips_{net}", lambda: package.LPIPS(net=net, verbose=False), 2.0, -1.0)


@functools.cache
def dists() -> Distance:
    """DISTS (Ding et al., TPAMI 2020) by its authors' package DISTS_pytorch."""
    package = require("DISTS_pytorch", "dists", "DISTS-pytorch", "torchvision")
    return _distance("dists", package.DISTS, 1.0, 0.0)


def _distance(name: str, make: Callable[[], Any], scale: float, offset: float) -> Distance:
    """A function of two pictures; the network sees values of 0..1 times `scale` plus `offset`."""
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torchvision's names for its weights
            network = make().eval().requires_grad_(False)
    except Exception as error:  # no network, no such file, a moved address: each package fails in its own way
        raise MissingPackageError(f"{name}: its weights can't be had here ({type(error).__name__}: {error})") from None

    def tensor(picture: Array) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float() / 255 * scale + offset

    def distance(original: Array, decoded: Array) -> float:
        with torch.inference_mode():
            return float(network(tensor(original), tensor(decoded)))

    return distance
