"""Published points of other codecs on Kodak: facts with their sources, for the plots' background.

A point counts for a metric only where its variant is ours (published.json, "variants"): LPIPS by network, and MS-SSIM
only from those who computed it as pytorch-msssim does; values of other implementations differ by 0.01 and more.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).parent / "published.json"
DRAWN = (
    "SODEC",
    "StableCodec",
    "MS-ILLM",
    "HiFiC(TF)",
    "DiffEIC",
    "PerCo",
    "CDC",
    "AEIC-ME",
    "vtm",
    "cheng2020-attn_mse",
)


@dataclass(frozen=True)
class Published:
    """One codec of one source."""

    codec: str
    source: str
    note: str
    points: tuple[dict[str, float], ...]  # bpp, and metrics by their names here

    def curve(self, metric: str) -> list[tuple[float, float]]:
        """(bpp, value) of a metric, by rate."""
        return sorted((point["bpp"], point[metric]) for point in self.points if metric in point)


@functools.cache
def published() -> tuple[Published, ...]:
    """All of them."""
    content = json.loads(FILE.read_text(encoding="utf-8"))
    return tuple(
        Published(entry["codec"], entry["source"], entry["note"], tuple(entry["points"])) for entry in content["codecs"]
    )
