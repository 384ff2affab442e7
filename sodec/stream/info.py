"""What the bytes of a stream are spent on, found without decoding the picture. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..entropy import payload_info
from . import sections
from .container import Parsed
from .header import CHECK_BYTES, VERSION


@dataclass(frozen=True)
class Info:
    """What a stream's bytes are spent on; made by `inspect`.

    `fingerprint` names the coding that the stream needs; `model` and `version` are name and version of the installed
    weights that read it, None where there are none. The entries of `bytes` add up to its last, "total". "z" and "y" are
    counted apart where the model is known here; otherwise one entry "symbols" stands for both. "lane states" are the
    coder's states and the byte or two before them, in each tile; "other" are sections of types unknown here.
    """

    format_version: int
    width: int
    height: int
    quality: float
    fingerprint: str
    model: str | None
    version: str | None
    grey: bool
    alpha: bool
    tiles: tuple[int, int]
    tile_size: int
    lanes: tuple[int, ...]
    bytes: dict[str, int] = field(default_factory=dict)

    @property
    def bpp(self) -> float:
        """Bits of the whole file per pixel."""
        return self.bytes["total"] * 8 / (self.width * self.height)


def described(
    parsed: Parsed,
    *,
    model: tuple[str, str] | None = None,
    z_end: Callable[[bytes, int, int], int] | None = None,
) -> Info:
    """What the bytes of a stream are spent on. Decodes no picture and inflates no section.

    Parameters
    ----------
    model
        Name and version of the installed weights that read the stream, or None.
    z_end
        Called with a tile's payload, its width and its height in pixels; returns how many bytes of the payload
        are consumed once z has been read (`entropy.Decoder.position`). Without it z and y are counted as one.
    """
    stream = parsed.stream
    details = [payload_info(payload) for payload in stream.payloads]
    states = sum(detail[2] for detail in details)
    symbols = sum(map(len, stream.payloads)) - states
    by_name = dict.fromkeys(["alpha", *sections.METADATA, "other"], 0)
    for section in parsed.sections:
        by_name[sections.name_of(section.tag)] += len(section.body)
    sizes = {"header": parsed.header_bytes}
    if z_end is None:
        sizes["symbols"] = symbols
    else:
        ends = sum(z_end(payload, *size) for payload, size in zip(stream.payloads, stream.tile_sizes(), strict=True))
        sizes |= {"z": ends - states, "y": symbols - (ends - states)}
    sizes |= {"lane states": states, **by_name, "integrity": CHECK_BYTES, "total": parsed.total_bytes}
    return Info(
        format_version=VERSION, width=stream.width, height=stream.height, quality=stream.quality,
        fingerprint=stream.fingerprint.hex(), model=model and model[0], version=model and model[1],
        grey=stream.grey, alpha=by_name["alpha"] > 0, tiles=stream.tiles,
        tile_size=1 << stream.tile_log2, lanes=tuple(detail[0] for detail in details), bytes=sizes,
    )  # fmt: skip
