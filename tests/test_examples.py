"""Every script of examples/ runs, with the tiny model in place of the bundled one.

pytest tests/test_examples.py
"""

import io
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tiny import folder, photo

EXAMPLES = Path(__file__).parent.parent / "examples"
NEEDS = {"zarr_array": "zarr", "ray_data": "ray"}

pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the tests of a wheel have no examples beside them")


@pytest.fixture
def script(tiny_as_lite, tmp_path, monkeypatch, capsysbinary):
    """Runs an example on a photo, in an empty folder; returns the files that it wrote and its output."""
    Image.fromarray(photo(200, 150)).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)

    def run(name):
        monkeypatch.setattr(sys, "argv", [name, "photo.png"])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        made = {path.name for path in tmp_path.iterdir()} - {"photo.png"}
        return made, capsysbinary.readouterr().out

    return run


def test_the_readme_lists_every_example():
    told = (EXAMPLES / "README.md").read_text()
    for path in EXAMPLES.glob("*.*"):
        assert path.name == "README.md" or f"`{path.name}`" in told


@pytest.mark.parametrize(
    ("name", "made", "printed"),
    [
        ("target_size", set(), b"quality"),
        ("region", {"region.png"}, b"(100, 75) of 200x150"),
        ("preview", {"preview.png", "faithful.png", "half.png"}, b""),
        ("pillow_plugin", {"photo.sodec", "thumbnail.png"}, b"SODEC RGB (200, 150)"),
        ("salvage", {"salvaged.png"}, b"the tile at 1024,0,476,300"),
        ("metadata", set(), b"artist: an artist"),
        ("zarr_array", {"photos.zarr"}, b"180000 bytes of pixels"),
    ],
)
def test_scripts(script, name, made, printed):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    found, out = script(name)
    assert found == made
    assert printed in out


def test_files_and_pipes(script, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((tmp_path / "photo.png").read_bytes())))
    _, out = script("files_and_pipes")
    assert out.startswith(b"\x9esd")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_a_folder(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(3):
        Image.fromarray(photo(60, 40, number)).save(tmp_path / "in" / f"{number}.png")
    (tmp_path / "sodec").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sodec "$@"\n')
    (tmp_path / "sodec").chmod(0o755)
    command = ["bash", str(EXAMPLES / "folder.sh"), "in", "--weights", str(folder())]
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True
    )
    assert "3 skipped" in done.stdout + done.stderr
    assert Image.open(tmp_path / "restored" / "2.png").size == (30, 20)


@pytest.mark.filterwarnings("ignore")  # of CompressAI's and PyTorch's own
def test_entropy_for_your_model(capsys):
    pytest.importorskip("compressai.entropy_models", reason="CompressAI is not installed (extra: train)")
    path = EXAMPLES / "entropy_for_your_model.py"
    assert len(path.read_text().splitlines()) < 30
    runpy.run_path(str(path))
    out = capsys.readouterr().out
    size, theirs = (int(part.split()[-1]) for part in (out.split(" bytes")[0], out.split(";")[0]))
    assert size <= 1.006 * theirs  # the states of its lanes
