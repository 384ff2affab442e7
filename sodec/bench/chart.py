"""The bar chart: time of every stage at every size, with its floor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import OutputError
from ..extras import require
from .report import machine_line


def chart(report: dict[str, Any], file: Path) -> None:
    """Bars per stage, a colour per size, quartiles as whiskers and floors as black lines; milliseconds, logarithmic.

    Raises
    ------
    MissingPackageError, OutputError
        matplotlib is not installed; the file can't be written, or its suffix is no format of matplotlib's.
    """
    figure = require("matplotlib.figure", "the chart", "matplotlib").Figure(figsize=(10, 5), layout="constrained")
    axes = figure.add_subplot()
    sizes = report["sizes"]
    names = [stage["name"] for stage in sizes[0]["stages"]] + ["networks", "bytes to pixels"]
    width = 0.8 / len(sizes)
    for number, size in enumerate(sizes):
        times = [stage["time"] for stage in size["stages"]] + [size["decode_network"], size["decode_end_to_end"]]
        places = [place + (number - (len(sizes) - 1) / 2) * width for place in range(len(names))]
        middle = [1000 * time["median_s"] for time in times]
        spread = [[1000 * abs(time[end] - time["median_s"]) for time in times] for end in ("q1_s", "q3_s")]
        label = f"{size['width']}x{size['height']}"
        axes.bar(places, middle, width, yerr=spread, label=label, error_kw={"linewidth": 0.8})
        for place, stage in zip(places, size["stages"], strict=False):
            if stage["work"]["floor_s"]:
                floor = 1000 * stage["work"]["floor_s"]
                axes.hlines(floor, place - width / 2, place + width / 2, colors="black", linewidth=2)
    axes.plot([], [], color="black", linewidth=2, label="floor: arithmetic or bandwidth")
    axes.set_yscale("log")
    axes.set_ylabel("milliseconds")
    axes.set_xticks(range(len(names)), names)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize="small")
    axes.set_title(f"sodec {report['model']}, decoding\n{machine_line(report)}", fontsize="small")
    try:
        figure.savefig(file, dpi=110)
    except OSError as error:
        raise OutputError(f"{file} can't be written: {error.strerror}") from None
    except ValueError as error:
        raise OutputError(f"{file} can't be written: {error}") from None
