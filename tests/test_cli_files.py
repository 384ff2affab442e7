"""The command line's files: folders, pipes, formats of pictures, and damaged streams.

pytest tests/test_cli_files.py
"""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import run, stream
from PIL import Image
from tiny import codec, folder, photo

__all__ = ["run", "stream"]  # fixtures


def test_folders_go_on_past_bad_files(run, tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for number in range(2):
        Image.fromarray(photo(20, 20, number)).save(f"in/{number}.png")
    Image.fromarray(photo(20, 20)).save("in/deep/c.png")
    (tmp_path / "in" / "bad.jpg").write_text("not a picture")
    code, _, errors = run("compress", "in", "-o", "out", "-r")
    assert code == 2
    assert "bad.jpg" in errors
    assert "1 of 4 files failed" in errors
    written = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.sodec")}
    assert written == {"0.sodec", "1.sodec", "deep/c.sodec"}
    code, _, _ = run("decompress", "out", "-o", "back", "-r")
    assert code == 0
    assert sorted(p.name for p in (tmp_path / "back").rglob("*.png")) == ["0.png", "1.png", "c.png"]


def test_a_folder_s_second_run_makes_only_what_is_new(run, tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(photo(20, 20)).save("in/a.png")
    assert "\n1 picture, " in run("compress", "in", "-o", "out")[1]
    Image.fromarray(photo(20, 20)).save("in/b.png")
    code, out, _ = run("compress", "in", "-o", "out")
    assert code == 0
    assert "\n1 picture, " in out
    assert "1 skipped: their outputs exist, whatever the options" in out
    assert "\n2 pictures, " in run("compress", "in", "-o", "out", "--overwrite")[1]


@pytest.mark.filterwarnings("always::sodec.errors.DamageWarning")
def test_salvage_says_what_is_filled(run, tmp_path):
    data = bytearray(codec().compress(photo(1030, 30)))
    data[-5] ^= 1
    (tmp_path / "a.sodec").write_bytes(data)
    assert run("decompress", "a.sodec", "-o", "a.png")[0] == 2
    code, _, errors = run("decompress", "a.sodec", "-o", "a.png", "--salvage")
    assert code == 0
    assert errors.startswith("sodec: warning: the tile at 1024,0,6,30 (x,y,width,height) is damaged")
    assert Image.open("a.png").size == (1030, 30)


def test_pipes(tmp_path):
    def sodec(*arguments, given):
        command = [sys.executable, "-m", "sodec", *arguments, "--weights", str(folder())]
        return subprocess.run(command, input=given, capture_output=True, check=True, cwd=tmp_path).stdout

    buffer = io.BytesIO()
    Image.fromarray(photo(50, 40)).save(buffer, "PNG")
    data = sodec("compress", "-", "-o", "-", "-q", "30", given=buffer.getvalue())
    assert data == codec().compress(photo(50, 40), 30)
    picture = Image.open(io.BytesIO(sodec("decompress", "-", "-o", "-", given=data)))
    assert np.array_equal(np.asarray(picture), codec().decompress(data, output="numpy"))


def test_jpeg_can_not_hold_alpha(run):
    Image.fromarray(np.dstack([photo(20, 20), photo(20, 20)[..., 0]])).save("a.png")
    assert run("compress", "a.png", "-o", "a.sodec")[0] == 0
    code, _, errors = run("decompress", "a.sodec", "-o", "b.jpg")
    assert code == 2
    assert "transparency" in errors


def test_a_slash_makes_a_folder(run, tmp_path):
    Image.fromarray(photo(20, 20)).save("a.png")
    assert run("compress", "a.png", "-o", "new/")[0] == 0
    assert (tmp_path / "new" / "a.sodec").is_file()


def test_a_folder_into_itself_and_back_goes_on_for_ever(run, tmp_path):
    (tmp_path / "s").mkdir()
    Image.fromarray(photo(20, 20)).save("s/a.jpg")
    for command in ("compress", "decompress") * 3:
        assert run(command, "s", "-o", "s")[0] == 0, command
    before = sorted(path.name for path in (tmp_path / "s").iterdir())
    for command in ("compress", "decompress"):
        assert run(command, "s", "-o", "s")[0] == 0
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == before


def test_streams_are_recompressed_only_when_asked(run, stream, tiny_as_lite):
    assert run("compress", stream, "-o", "t.sodec")[0] == 2
    assert run("compress", stream, "-o", "t.sodec", "--recompress")[0] == 0


def test_closed_standard_input_is_named(tmp_path):
    command = f"{sys.executable} -m sodec info - <&-"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "sodec: standard input is closed; - needs a picture or a stream there\n"


FORMATS = ("webp", "tif", "bmp", "ppm", "gif", "tga", "jp2", "avif", "pdf", "ico", "pcx", "sgi", "dds", "im", "qoi",
           "msp", "xbm", "icns", "blp", "eps")  # fmt: skip


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("kind", ["RGB", "L", "RGBA", "LA"])
@pytest.mark.filterwarnings("always", "ignore::ResourceWarning")
def test_every_format_holds_the_picture_or_says_why_not(run, tmp_path, suffix, kind):
    name = f"p.{suffix}"
    planes = {"RGB": photo(40, 30), "L": photo(40, 30)[..., 0]}
    planes["RGBA"] = np.dstack([planes["RGB"], planes["L"]])
    planes["LA"] = np.dstack([planes["L"], planes["L"]])
    (tmp_path / "s.sodec").write_bytes(codec().compress(planes[kind], 50, alpha="lossless"))
    code, _, errors = run("decompress", "s.sodec", "-o", name)
    assert "Traceback" not in errors
    if code:
        assert errors.count("\n") == 1
        assert not (tmp_path / name).exists()
        return
    if suffix in ("pdf", "eps"):
        return
    with Image.open(tmp_path / name) as image:
        assert image.size == (40, 30)
        if kind in ("RGBA", "LA"):
            assert image.convert("RGBA").getchannel("A").getextrema()[0] < 255
        exact = codec().decompress(tmp_path / "s.sodec").convert("RGBA")
        difference = np.abs(np.asarray(image.convert("RGBA"), int) - np.asarray(exact, int)).mean()
        assert difference < 6 or "roughly" in errors or suffix in ("webp", "avif", "jp2")


def test_transparency_can_be_flattened_and_formats_chosen(run, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "s.sodec").write_bytes(codec().compress(np.full((16, 16, 4), (9, 9, 9, 0), np.uint8)))
    assert run("decompress", "in", "-o", "out", "--format", "jpg", "--flatten", "white")[0] == 0
    assert np.asarray(Image.open("out/s.jpg")).min() > 250
    assert run("decompress", "in", "-o", "out", "--format", "jpg", "--overwrite")[0] == 2


def test_jpeg_is_written_well_unless_asked_otherwise(run, stream):
    assert run("decompress", stream, "-o", "a.jpg")[0] == 0
    assert run("decompress", stream, "-o", "b.jpg", "--output-quality", 10)[0] == 0
    exact = np.asarray(codec().decompress(Path(stream)), int)
    errors = [np.abs(np.asarray(Image.open(name), int) - exact).mean() for name in ("a.jpg", "b.jpg")]
    assert errors[0] < 4 < 10 < errors[1]


def test_salvage_is_mentioned_where_it_helps(run, tmp_path):
    data = bytearray(codec().compress(photo(1030, 30)))
    data[-5] ^= 1
    (tmp_path / "a.sodec").write_bytes(data)
    errors = run("decompress", "a.sodec", "-o", "a.png")[2]
    assert "--salvage" in errors
    assert "tile 1, are the first damaged part" in errors


def test_salvage_of_one_tile_says_what_it_can_do(run, tmp_path):
    data = codec().compress(photo(40, 30))
    (tmp_path / "header.sodec").write_bytes(data[:8] + bytes([data[8] ^ 1]) + data[9:])
    (tmp_path / "tile.sodec").write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    assert "--salvage decodes" in run("decompress", "header.sodec", "-o", "a.png")[2]
    code, _, messages = run("decompress", "header.sodec", "-o", "a.png", "--salvage")
    assert code == 0
    assert "byte 8 of the stream (picture size or index) is damaged" in messages
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (40, 30)
    assert "--salvage" not in run("decompress", "tile.sodec", "-o", "b.png")[2]
    code, _, messages = run("decompress", "tile.sodec", "-o", "b.png", "--salvage")
    assert code == 2
    assert "tile.sodec" in messages
    assert "the picture is one tile" in messages
