"""`sodec export-onnx`. Heavy imports wait until the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import MODEL, OVERWRITE, WEIGHTS

if TYPE_CHECKING:
    from ..models.onnx import Exported


@click.command("export-onnx")
@click.argument("folder", type=click.Path(path_type=Path))
@MODEL
@WEIGHTS
@click.option("--float16", is_flag=True, help="The networks compute in float16; inputs and outputs stay float32.")
@click.option("--without-weights", is_flag=True,
              help="Writes no weights: the graphs refer to tensors by name alone.")  # fmt: skip
@OVERWRITE
def export_onnx_command(
    folder: Path, model: str, weights: Path | None, float16: bool, without_weights: bool, overwrite: bool
) -> None:
    """Write the networks of MODEL as ONNX graphs into FOLDER, with the weights that they refer to (extra: onnx).

    \b
      sodec export-onnx graphs
      sodec export-onnx graphs --weights run/weights --float16

    Each graph is checked against PyTorch, and its largest difference is printed. docs/onnx.md has what they take.
    """
    from ..models.onnx import export
    from ..weights import resolve

    def say(exported: Exported) -> None:
        name, size, error = exported
        click.echo(f"{folder / name}.onnx: {size} bytes, differs from PyTorch by at most {error:.2g}")

    bundle = resolve(model, weights)
    export(bundle, folder, float16=float16, with_weights=not without_weights, overwrite=overwrite, say=say)
    click.echo(f"{folder}: model {bundle.name}, weights {bundle.fingerprint.hex()} {bundle.version}")
