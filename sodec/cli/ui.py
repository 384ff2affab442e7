"""`sodec ui`. Heavy imports wait until the command runs."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click

from .options import DEVICE, MODEL, THREADS, WEIGHTS


@click.command("ui")
@click.option("--host", default="127.0.0.1", show_default=True,
              help="Address to listen on; 0.0.0.0 lets other machines in.")  # fmt: skip
@click.option("--allow-host", multiple=True, metavar="NAME",
              help="A name by which browsers reach this machine, as in http://NAME:7860. Its addresses, localhost and "
              "its own name are allowed without it.")  # fmt: skip
@click.option("--port", type=click.IntRange(1, 65535), help="Port (default: the first free one from 7860).")
@click.option("--max-mb", default=20.0, show_default=True, type=click.FloatRange(min=0, min_open=True),
              help="Largest file, in megabytes.")  # fmt: skip
@click.option("--max-megapixels", default=16.0, show_default=True, type=click.FloatRange(min=0, min_open=True),
              help="Largest picture, in million pixels.")  # fmt: skip
@click.option("--viewer", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="FOLDER",
              help="Also serve the page that `sodec viewer FOLDER` wrote, at /viewer/.")  # fmt: skip
@MODEL
@WEIGHTS
@DEVICE
@THREADS
def ui_command(
    host: str,
    allow_host: tuple[str, ...],
    port: int | None,
    max_mb: float,
    max_megapixels: float,
    viewer: Path | None,
    model: str,
    weights: Path | None,
    device: str,
    threads: int | None,
) -> None:
    """Try the codec on a page in the browser (extra: ui).

    Pictures stay in memory while their page is open, and go nowhere else. Several visitors wait for each other.
    """
    click.echo("loading the page and the model ...")
    from ..extras import require

    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
    require("gradio", "sodec ui", "'sodec[ui]'")
    from ..codec import Codec
    from ..ui.app import served
    from ..ui.trial import Limits

    codec = Codec(model, weights=weights, device=device, threads=threads)
    limits = Limits(int(max_mb * 1e6), int(max_megapixels * 1e6))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that gradio's folder goes then too
    with served(codec, host=host, port=port, limits=limits, allowed_hosts=allow_host, viewer=viewer) as page:
        click.echo(f"{page.address} (Ctrl-C ends it)")
        page.wait()
