"""Makes the pictures and figures of the docs anew, from the weights that are bundled: python docs/pictures.py

The stages are those of examples/walkthrough.ipynb, whose cells are run. tests/test_docs.py tells when new weights ask
for new pictures.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from PIL import Image, ImageDraw

import sodec
from sodec.cli import main as command
from sodec.files import PHOTO

DOCS = Path(__file__).parent
OUT = DOCS / "pictures"
NOTEBOOK = DOCS.parent / "examples" / "walkthrough.ipynb"
QUALITY = 25
GAP = 4
HEAD = (205, 40, 461, 296)  # of the budgerigar


def main() -> None:
    """Writes all of them."""
    OUT.mkdir(exist_ok=True)
    pictures, printed = stages()
    for name, picture in pictures.items():
        save(picture, OUT / f"{name}.jpg")
    (OUT / "printed.json").write_text(json.dumps(printed, indent=1), encoding="utf-8")
    codec = sodec.Codec()
    data = codec.compress(PHOTO, QUALITY)
    original, full = Image.open(PHOTO).convert("RGB"), codec.decompress(data)
    save(side_by_side([original, full]), DOCS / "demo.jpg")
    faithful = codec.decompress(data, mode="fidelity")
    quarter = codec.decompress(data, scale=0.25)
    views = {"original": original, "full": full, "fidelity": faithful}
    save(side_by_side([*(labelled(view.crop(HEAD), name) for name, view in views.items()),
                       labelled(quarter, "scale 1/4", HEAD[3] - HEAD[1])]), DOCS / "views.jpg")  # fmt: skip
    (OUT / "info.txt").write_text(told(data), encoding="utf-8")
    size = f"{original.width} x {original.height} pixels"
    (OUT / "caption.txt").write_text(
        f"*Left the original, {size}; right what sodec makes of {len(data):,} bytes.*\n", encoding="utf-8"
    )
    print(f"{OUT}: {sum(path.stat().st_size for path in OUT.iterdir()) / 1e3:.0f} KB")


def stages() -> tuple[dict[str, Image.Image], list[str]]:
    """The pictures that the notebook shows, by name, and what each of its code cells prints."""
    names: dict[str, Any] = {}
    printed = []
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            with redirect_stdout(io.StringIO()) as lines:
                exec("".join(cell["source"]), names)
            printed.append(lines.getvalue())
    return names["pictures"], printed


def told(data: bytes) -> str:
    """What `sodec info` says of a stream."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "photo.sodec").write_bytes(data)
        before = Path.cwd()
        os.chdir(folder)
        try:
            return CliRunner().invoke(command, ["info", "photo.sodec"], catch_exceptions=False).output
        finally:
            os.chdir(before)


def side_by_side(pictures: list[Image.Image]) -> Image.Image:
    """In a row, on white."""
    width = sum(one.width for one in pictures) + GAP * (len(pictures) - 1)
    row = Image.new("RGB", (width, max(one.height for one in pictures)), "white")
    left = 0
    for one in pictures:
        row.paste(one, (left, 0))
        left += one.width + GAP
    return row


def labelled(picture: Image.Image, text: str, height: int = 0) -> Image.Image:
    """With its name below; at least so high without it."""
    whole = Image.new("RGB", (picture.width, max(picture.height, height) + 18), "white")
    whole.paste(picture)
    ImageDraw.Draw(whole).text((2, picture.height + 3), text, "black")
    return whole


def save(picture: Image.Image, path: Path) -> None:
    """As JPEG."""
    picture.save(path, quality=88, optimize=True)


if __name__ == "__main__":
    main()
