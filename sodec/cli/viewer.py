"""`sodec viewer`. Heavy imports wait until the command runs."""

from __future__ import annotations

from pathlib import Path

import click

from .options import MODEL, OVERWRITE, WEIGHTS


@click.command("viewer")
@click.argument("folder", type=click.Path(path_type=Path))
@MODEL
@WEIGHTS
@click.option("--onnxruntime", "runtime", type=click.Path(path_type=Path), metavar="FOLDER",
              help="An unpacked onnxruntime-web, as in node_modules/; without it npm fetches one.")  # fmt: skip
@OVERWRITE
def viewer_command(folder: Path, model: str, weights: Path | None, runtime: Path | None, overwrite: bool) -> None:
    """Write a page into FOLDER that opens .sodec files in a browser, and <sodec-img> for other pages.

    \b
      sodec viewer site
      python -m http.server --directory site

    Any server of files can serve the folder. Streams are decoded on the visitor's machine and sent nowhere.
    """
    from ..pages import viewer
    from ..weights import resolve

    viewer.assemble(folder, resolve(model, weights), runtime=runtime, overwrite=overwrite, say=click.echo)
