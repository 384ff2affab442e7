"""For gpu_kernels.py: whole networks with and without kernels, tile sizes of kernels, and choices without any kernel.

Each is replayed as a CUDA graph in bfloat16. Weights are random.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from kernel_shapes import Case
from torch import Tensor

SIZES: list[tuple[str, int, int]] = [("sd21", 512, 512), ("lite", 768, 512), ("lite", 1920, 1080)]
# Modes of SODEC_KERNELS. Guided attention takes 16-bit only, which the networks have.
MODES: dict[str, str] = {
    "none": "torch",
    "all": "triton",
    "bias_act": "torch,bias_act=triton",
    "channel_norm_act": "torch,channel_norm_act=triton",
    "skip_norm_act": "torch,skip_norm_act=triton",
    "group_norm_silu": "torch,group_norm_silu=triton",
    "as listed": "auto",
}
ONLY_SD21 = ("group_norm_silu", "as listed")  # lite has no such norm, and so nothing listed
REPLAYS = 10
# Tile sizes beside those of launch_configs.json, and the shapes of kernel_shapes.py that choose among them.
VARIANTS: list[tuple[str, dict[str, int], tuple[str, ...]]] = [
    ("group_norm_silu", {"PARTIAL_ROWS": 16}, ("VAE",)),
    ("group_norm_silu", {"PROGRAMS": 528}, ("VAE", "64x64")),
    ("group_norm_silu", {"PROGRAMS": 528, "PARTIAL_ROWS": 16}, ("64x64",)),
    ("group_norm_silu", {"PARTIAL_ROWS": 64, "num_warps": 8}, ("VAE",)),
    ("group_norm_silu", {"PARTIAL_ROWS": 64}, ("512x512",)),
    ("group_norm_silu", {"APPLY_ROWS": 32}, ("256x256",)),
    ("group_norm_silu", {"WHOLE": 0}, ("16x16",)),
    ("bias_act", {"BLOCK_ROWS": 16}, ("lite",)),
    ("bias_act", {"BLOCK_ROWS": 64, "FEW": 0}, ("to 1/", "512x512")),
    ("skip_norm_act", {"TILE": 2048}, ("",)),
    ("skip_norm_act", {"TILE": 8192, "num_warps": 8}, ("1/4",)),
    ("channel_norm_act", {"TILE": 2048}, ("32x32",)),
]


class Networks:
    """One model's decoder at one size, step by step; on the CPU a tiny model."""

    def __init__(self, name: str, width: int, height: int, device: str) -> None:
        # Imported here: they need the native module, which the kernels alone do not.
        from sodec.bench.random_weights import drawn
        from sodec.models import CONFIGS
        from sodec.models.files import load_model
        from sodec.models.flow import STEPS, Flow

        config = CONFIGS[{"sd21": "sd21-tiny", "lite": "tiny"}[name] if device == "cpu" else name]
        self.dtype = torch.float32 if device == "cpu" else torch.bfloat16
        self.model = load_model(drawn(config, torch.device(device)), torch.device(device), self.dtype).model
        self.steps, self.flow_type, self.device = STEPS, Flow, device
        self.resize(width, height)

    def resize(self, width: int, height: int) -> None:
        """Fresh random inputs of another size."""
        torch.manual_seed(0)
        config, h, w = self.model.config, -(-height // 16), -(-width // 16)

        def draw(channels: int, times: int = 1) -> Tensor | None:
            if not channels:
                return None
            x = torch.randn(1, channels, times * h, times * w, device=self.device, dtype=self.dtype)
            return x.contiguous(memory_format=torch.channels_last)

        y_hat, quality = draw(config.y_channels), torch.full((1,), 50.0, device=self.device)
        assert y_hat is not None
        self.flow = self.flow_type(self.model, y_hat, quality, w=draw(config.content), noise=draw(config.noise, 4))

    def seconds(self, step: Callable[[Any], None]) -> float:
        """Median seconds of one step of the flow, which has run once."""
        if self.device == "cpu":
            start = time.perf_counter()
            step(self.flow)
            return time.perf_counter() - start
        stream: Any = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            step(self.flow)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step(self.flow)
        ends: list[Any] = [torch.cuda.Event(enable_timing=True) for _ in range(REPLAYS + 1)]
        graph.replay()
        for end in ends:
            end.record()
            graph.replay()
        torch.cuda.synchronize()
        return statistics.median(a.elapsed_time(b) for a, b in pairwise(ends)) / 1000

    def measured(self, dispatch: Any) -> dict[str, Any]:
        """Milliseconds of each step and of all in one graph, with the kernels that are chosen now."""
        with dispatch.in_graphs():
            self.flow.run()
            pixels = self.flow.pixels.float().clone()
            steps = {name: 1000 * self.seconds(step) for name, step in self.steps.items()}
            whole = 1000 * self.seconds(lambda flow: flow.run())
        return {"ms": whole, "steps": steps, "pixels": pixels}


def built(rehearse: bool, dispatch: Any) -> dict[str, Networks]:
    """The networks by name. On a GPU they have run once, so that libraries are loaded and kernels compiled."""
    found: dict[str, Networks] = {}
    for name, width, height in [(name, 48, 32) for name, _, _ in SIZES] if rehearse else SIZES:
        if name in found:
            found[name].resize(width, height)
        else:
            found[name] = Networks(name, width, height, "cpu" if rehearse else "cuda")
        if not rehearse:
            with torch.inference_mode(), dispatch.in_graphs():
                found[name].flow.run()
    return found


def run_networks(
    report: dict[str, Any], rehearse: bool, modules: Any, deadline: Any, save: Callable[[], None], least: float,
    networks_of: dict[str, Networks],
) -> None:  # fmt: skip
    """The networks in every mode, into the report, the sizes one after the other, while `least` seconds are left."""
    rows: list[dict[str, Any]] = []
    report["networks"] = rows
    for name, width, height in [(name, 48, 32) for name, _, _ in SIZES[:2]] if rehearse else SIZES:
        networks = networks_of[name]
        networks.resize(width, height)
        plain: Tensor | None = None
        for label, setting in MODES.items():
            if name == "lite" and label in ONLY_SD21:
                continue
            where = f"{name} {width}x{height}, {label}"
            if not deadline.allows(least):
                report["not_measured"][where] = "no time was left"
                continue
            if rehearse and "all" in label:
                setting += ",guided_attention=torch"  # it serves no float32
            os.environ["SODEC_KERNELS"] = setting
            row: dict[str, Any] = {"network": f"{name} {width}x{height}", "kernels": label}
            try:
                with torch.inference_mode():
                    row |= networks.measured(modules.dispatch)
                    pixels = row.pop("pixels")
                    plain = pixels if plain is None else plain
                    row["difference"] = ((pixels - plain).norm() / plain.norm()).item()
            except Exception as error:
                row["error"] = f"{type(error).__name__}: {str(error)[:600]}"
            finally:
                del os.environ["SODEC_KERNELS"]
            rows.append(row)
            save()


def networks_table(rows: list[dict[str, Any]]) -> str:
    """Markdown; milliseconds."""
    steps = list(rows[0].get("steps", {})) if rows else []
    lines = [
        f"| network | kernels | ms | {' | '.join(steps)} | difference |",
        f"|---|---|--:|{'--:|' * (len(steps) + 1)}",
    ]
    for row in rows:
        cells = [f"{row['ms']:.3f}", *(f"{row['steps'][step]:.3f}" for step in steps)] if "ms" in row else []
        last = row["error"][:60] if "error" in row else f"{row['difference']:.1e}"
        lines.append(f"| {' | '.join([row['network'], row['kernels'], *cells, last])} |")
    return "\n".join(lines)


@contextmanager
def changed(launch: Any, kernel: str, sizes: dict[str, int]) -> Iterator[None]:
    """Other tile sizes for one kernel."""
    theirs = launch.config
    launch.config = lambda name, x: {**theirs(name, x), **(sizes if name == kernel else {})}
    try:
        yield
    finally:
        launch.config = theirs


def run_variants(
    report: dict[str, Any], timed: list[Case], seconds: Callable[..., float], launch: Any, dispatch: Any,
    sets_of: Callable[[Case], list[Any]], deadline: Any, save: Callable[[], None],
) -> None:  # fmt: skip
    """Times of every kernel with other tile sizes, into the report."""
    rows: list[dict[str, Any]] = []
    report["variants"] = rows
    for case in timed:
        kernel, where, _ = case
        chosen = [
            sizes for name, sizes, parts in VARIANTS if name == kernel and any(part in where for part in parts)
        ]  # fmt: skip
        if not chosen:
            continue
        sets = sets_of(case)
        call = getattr(dispatch, kernel)
        for sizes in chosen:
            if not deadline.allows(1.0):
                report["not_measured"][f"{kernel} {where}, {sizes}"] = "no time was left"
                continue
            row: dict[str, Any] = {"kernel": kernel, "where": where, "sizes": sizes}
            try:
                with changed(launch, kernel, sizes), torch.inference_mode():
                    row["us"] = 1e6 * seconds(lambda *args, _call=call: _call(*args, choice="triton"), sets)
            except Exception as error:
                row["error"] = f"{type(error).__name__}: {str(error)[:300]}"
            rows.append(row)
        save()


def variants_table(rows: list[dict[str, Any]]) -> str:
    """One line for each kernel and place: microseconds by tile sizes."""
    by_place: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        sizes = " ".join(f"{key}={value}" for key, value in row["sizes"].items()) or "as listed"
        found = f"{row['us']:.1f}" if "us" in row else "failed"
        by_place.setdefault((row["kernel"], row["where"]), []).append(f"{sizes}: {found}")
    return "\n".join(f"{kernel}, {where}: {'; '.join(cells)}" for (kernel, where), cells in by_place.items())


def choices(device: str, tiny: bool) -> dict[str, dict[str, tuple[Callable[..., Tensor], list[tuple[Any, ...]]]]]:
    """Ways to compute the same without a kernel of ours, by what they compute: functions and their arguments."""
    dtype = torch.float32 if tiny else torch.bfloat16

    def image(channels: int, height: int, width: int) -> Tensor:
        if tiny:
            channels, height, width = 8, 8, 8
        x = torch.randn(1, channels, height, width, device=device, dtype=dtype)
        return x.contiguous(memory_format=torch.channels_last)

    def weight(outputs: int, inputs: int, kernel: int) -> Tensor:
        if tiny:
            inputs, outputs = 8, 8
        w = torch.randn(outputs, inputs, kernel, kernel, device=device, dtype=dtype) / (inputs * kernel**2) ** 0.5
        return w.contiguous(memory_format=torch.channels_last)

    result: dict[str, Any] = {}
    for channels, side in ((512, 64), (512, 128), (256, 256), (1280, 32), (640, 32)):
        sets = [(image(channels, side, side),) for _ in range(2)]
        w3, w4 = weight(channels, channels, 3), weight(channels, channels, 4)
        result[f"nearest + 3x3, {channels} at {side}"] = {
            "two": (lambda x, w=w3: F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), w, padding=1), sets),
            "transposed": (lambda x, w=w4: F.conv_transpose2d(x, w, None, 2, 1), sets),
        }
    for inputs, outputs, height, width in ((40, 64, 272, 480), (160, 320, 68, 120), (80, 160, 136, 240)):
        sets = [(image(inputs, height, width),) for _ in range(4)]
        w1 = weight(outputs, inputs, 1)
        bias = torch.zeros(len(w1), device=device, dtype=dtype)
        result[f"1x1, {inputs} to {outputs} at {height}x{width}"] = {
            "conv2d": (lambda x, w=w1, b=bias: F.conv2d(x, w, b), sets),
            "linear": (lambda x, w=w1, b=bias: F.linear(x.permute(0, 2, 3, 1), w[:, :, 0, 0], b), sets),
        }
    for count, width in [(64, 8) if tiny else (4096, 512)]:
        sets = [tuple(torch.randn(1, count, width, device=device, dtype=dtype) for _ in range(3)) for _ in range(2)]
        result[f"attention of {count} positions, one head of {width}"] = {
            "fused": (fused_attention, sets),
            "products": (products_attention, sets),
            "products in parts": (lambda q, k, v: products_attention(q, k, v, 1024), sets),
            "products, scores float32": (lambda q, k, v: products_attention(q, k, v, 1024, True), sets),
        }
    return result


def fused_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's fused attention of one head."""
    return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]


def products_attention(q: Tensor, k: Tensor, v: Tensor, part: int = 10**9, exact: bool = False) -> Tensor:
    """The same by plain products, `part` positions at a time; with `exact` scores are float32."""
    found = []
    for some in (q * q.shape[-1] ** -0.5).split(part, 1):
        more = {"out_dtype": torch.float32} if exact and q.is_cuda else {}
        scores = torch.bmm(some, k.transpose(1, 2), **more)
        found.append(torch.bmm(scores.softmax(-1, dtype=torch.float32).to(v.dtype) if exact else scores.softmax(-1), v))
    return torch.cat(found, 1)


def run_choices(
    report: dict[str, Any], device: str, tiny: bool, seconds: Callable[..., float], deadline: Any,
    save: Callable[[], None],
) -> None:  # fmt: skip
    """Times of the choices, into the report."""
    rows: list[dict[str, Any]] = []
    report["choices"] = rows
    with torch.inference_mode():
        for what, calls in choices(device, tiny).items():
            row: dict[str, Any] = {"what": what, "us": {}}
            for name, (call, sets) in calls.items():
                if not deadline.allows(1.0):
                    report["not_measured"][f"{what}, {name}"] = "no time was left"
                    continue
                try:
                    row["us"][name] = 1e6 * seconds(call, sets)
                except Exception as error:
                    row.setdefault("errors", {})[name] = f"{type(error).__name__}: {str(error)[:300]}"
            rows.append(row)
            save()


def choices_table(rows: list[dict[str, Any]]) -> str:
    """One line for each; microseconds."""
    lines = []
    for row in rows:
        cells = [f"{name} {us:.1f}" for name, us in row["us"].items()]
        lines.append(f"{row['what']}: {'; '.join(cells + [f'{name} failed' for name in row.get('errors', ())])}")
    return "\n".join(lines)
