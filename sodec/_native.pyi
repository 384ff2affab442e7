"""The native module. Use `sodec.entropy` for the coder: it checks what this one takes on trust."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt

class _Cpu(TypedDict):
    chosen: str
    supported: list[str]
    bfloat16: bool

def cpu() -> _Cpu:
    """The instruction set in use, those that could be, and whether bf16 is multiplied natively.

    The environment variable SODEC_CPU forces one by name; `DeviceError` where it can't be served.
    """

def use_openmp(address: int) -> None:
    """Work is spread by the OpenMP library that has GOMP_parallel at `address`; 0: by threads of this module."""

def crc32c(data: bytes | bytearray | memoryview) -> int:
    """CRC-32C of `data`: 0xE3069283 for b"123456789"."""

class Tables:
    """Frequency tables, checked once and never changed; `InvalidTableError` names the table and its fault.

    `cumulative` (int32) holds, table after table, 0 < c1 < ... < 2^precision; table t is `offsets[t]` to
    `offsets[t + 1]` of it. Its symbol s stands for the value `minimums[t]` + s; the last one is the escape.
    These four, stored, make the same tables again.
    """

    def __init__(
        self,
        cumulative: npt.NDArray[np.int32],
        offsets: npt.NDArray[np.int32],
        minimums: npt.NDArray[np.int32],
        precision: int,
    ) -> None: ...
    @property
    def cumulative(self) -> npt.NDArray[np.int32]: ...
    @property
    def offsets(self) -> npt.NDArray[np.int32]: ...
    @property
    def minimums(self) -> npt.NDArray[np.int32]: ...
    @property
    def precision(self) -> int: ...
    @property
    def count(self) -> int: ...

class Decoder:
    """See `sodec.entropy.Decoder`."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None: ...
    def read(self, indexes: npt.NDArray[np.uint8], tables: Tables) -> npt.NDArray[np.int16]: ...
    def finish(self) -> None: ...
    @property
    def position(self) -> int: ...
    @property
    def cpu(self) -> str:
        """The instruction set that this decoder was made for."""

def rans_groups() -> dict[str, tuple[int, int]]:
    """By instruction set: the groups of symbols that its kernels have decoded and encoded in this process."""

def encode(
    sections: Sequence[tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8], Tables]], lanes: int = 0
) -> bytes: ...
def payload_info(data: bytes | bytearray | memoryview) -> tuple[int, int, int]:
    """Lanes, precision, and the bytes before the words: the header byte and the lane states."""

class ScaleNetwork:
    """The integer network that turns z into the scale index of every y, identical on every machine.

    Each layer is (weights int8 (out, k, k, in), bias int32 (out,), multiplier int32 (out,), shift, upsample);
    `WeightsError` names the layer that breaks a rule or whose sums could leave 32 bits. FORMAT.md has the arithmetic.
    """

    def __init__(
        self,
        layers: Sequence[tuple[npt.NDArray[np.int8], npt.NDArray[np.int32], npt.NDArray[np.int32], int, int]],
    ) -> None: ...
    def indexes(self, z: npt.NDArray[np.int16], offset: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
        """z (h, w, inputs) and the quality's offset (outputs,), in 1/16 index, to indexes (u h, u w, outputs)."""

    def planes(
        self, z: npt.NDArray[np.int16], offset: npt.NDArray[np.int32], rows: int, columns: int, none: int
    ) -> npt.NDArray[np.uint8]:
        """The same in the coder's order: z (inputs, h, w) to the first rows and columns, (outputs, rows, columns).

        `none` stands in place of 0.
        """

    @property
    def cpu(self) -> str:
        """The instruction set that this network runs on."""

def pixels(
    planes: npt.NDArray[np.float32] | npt.NDArray[np.uint16],
    offset: float,
    top: int,
    left: int,
    shrink: int,
    grey: bool,
    out: npt.NDArray[np.uint8],
    threads: int = 1,
) -> None:
    """Writes 8-bit pixels (H, W, 3) from the floats of a folded picture, or bfloat16 as uint16.

    `planes` are (3, fold, fold, height, width) of any strides: pixel (c, y fold + i, x fold + j) is at [c, i, j, y, x].
    From row `top` and column `left` on, values plus `offset` are clipped to 0..1, averaged over squares of `shrink`
    pixels, made grey if asked for, and rounded.

    Raises TypeError or ValueError where an array has another dtype or shape, or `out` reaches beyond the planes.
    """

def has_channel_norm() -> bool:
    """Whether `channel_norm_silu` can run here: it needs AVX-512."""

def channel_norm_silu(
    x: npt.NDArray[np.uint16],
    weight: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    eps: float,
    out: npt.NDArray[np.uint16],
    threads: int,
) -> None:
    """Layer norm over the channels (1 to 256) of each position, then SiLU: x to out, bfloat16 (positions, channels).

    Raises ValueError where an array has another dtype, shape or layout.
    """

def has_winograd() -> bool:
    """Whether `winograd` can run here, and pays: it needs AVX512-BF16, and AMX runs other convolutions faster."""

def winograd(
    x: npt.NDArray[np.uint16],
    weights: npt.NDArray[np.uint16],
    bias: npt.NDArray[np.float32],
    residual: npt.NDArray[np.uint16] | None,
    silu: bool,
    out: npt.NDArray[np.uint16],
    threads: int,
) -> None:
    """A 3x3 convolution, + residual, then SiLU if asked for: x (B, H, W, I) to out (B, H, W, O), bfloat16.

    Weights are (blocks, 16, I/2, 16 group, 2), as `models.winograd.transformed` gives them; bias is (O,).

    Raises ValueError where an array has another dtype, shape or layout.
    """
