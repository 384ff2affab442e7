"""The command line, as users run it: what its commands print, errors of one line, and how it ends.

pytest tests/test_cli.py
"""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commands import run, stream
from PIL import Image
from tiny import codec, folder, photo

from sodec.cli.options import ByteCount

__all__ = ["run", "stream"]  # fixtures


def test_there_and_back(run, tmp_path):
    Image.fromarray(photo(50, 40)).save("a.png")
    assert run("compress", "a.png", "-o", "a.sodec", "-q", 30)[0] == 0
    assert run("decompress", "a.sodec", "-o", "b.png")[0] == 0
    expected = codec().decompress((tmp_path / "a.sodec").read_bytes(), output="numpy")
    assert np.array_equal(np.asarray(Image.open("b.png")), expected)
    assert run("decompress", "a.sodec", "-o", "b.jpg", "--mode", "fidelity")[0] == 0
    assert Image.open("b.jpg").size == (50, 40)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "a.sodec", "b.jpg", "b.png"]


@pytest.mark.parametrize("command", [("decompress", "-o", "a.png"), ("info",)])
def test_limits(run, command):
    Path("a.sodec").write_bytes(codec().compress(photo(50, 40)))
    arguments, weights = (command[0], "a.sodec", *command[1:]), command[0] != "info"
    code, _, errors = run(*arguments, "--max-pixels", 1999, weights=weights)
    assert code == 2
    assert "50x40 pixels, 2000 in all; the limit is 1999 (max_pixels=, --max-pixels)" in errors
    assert run(*arguments, "--max-pixels", 2000, weights=weights)[0] == 0
    for written in Path().glob("*.png"):
        written.unlink()
    assert "--max-tile" in run(*arguments, "--max-tile", 49, weights=weights)[2]


def test_a_size_can_be_asked_for(run, tmp_path):
    Image.fromarray(photo(300, 200)).save("a.png")
    assert run("compress", "a.png", "-o", "a.sodec", "--max-bytes", 1000)[0] == 0
    assert 900 < (tmp_path / "a.sodec").stat().st_size <= 1000
    assert run("compress", "a.png", "-o", "a.sodec", "--target-bpp", 0.16, "--overwrite")[0] == 0
    assert 1100 < (tmp_path / "a.sodec").stat().st_size <= 1200


def test_a_part_a_preview_and_a_blend_can_be_asked_for(run, tmp_path):
    Image.fromarray(photo(100, 80)).save("a.png")
    run("compress", "a.png", "-o", "a.sodec")
    data = (tmp_path / "a.sodec").read_bytes()
    for arguments, options in [
        (("--region", "10,20,30,40"), {"region": (10, 20, 30, 40)}),
        (("--scale", "1/4"), {"scale": 1 / 4}),
        (("--fidelity", 0.25), {"fidelity": 0.25}),
    ]:
        assert run("decompress", "a.sodec", "-o", "b.png", "--overwrite", *arguments)[0] == 0
        assert np.array_equal(np.asarray(Image.open("b.png")), codec().decompress(data, output="numpy", **options))


def test_metadata_travels_on_demand(run):
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    Image.fromarray(photo(30, 20)).save("a.jpg", exif=exif)
    assert run("compress", "a.jpg", "-o", "a.sodec", "--metadata")[0] == 0
    assert "exif" in run("info", "a.sodec", weights=False)[1]
    for name in ("b.png", "b.jpg", "b.webp"):
        assert run("decompress", "a.sodec", "-o", name)[0] == 0
        assert Image.open(name).getexif()[0x010F] == "a camera"
    Image.fromarray(photo(30, 20)).save("a.jpg", exif=exif, xmp=b"<x/>", dpi=(300, 300))
    assert run("compress", "a.jpg", "-o", "a.sodec", "--metadata", "--overwrite")[0] == 0
    for name in ("c.png", "c.jpg", "c.tif"):
        assert run("decompress", "a.sodec", "-o", name)[0] == 0
        back = Image.open(name)
        assert back.info["xmp"] == b"<x/>"
        assert back.info["dpi"] == pytest.approx((300, 300), abs=0.01)
    code, _, errors = run("decompress", "a.sodec", "-o", "c.bmp")
    assert code == 0
    assert "BMP does not hold such metadata" in errors
    run("compress", "a.jpg", "-o", "a.sodec", "--overwrite")
    assert "exif" not in run("info", "a.sodec", weights=False)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compress", "a.png", "-o", "x.sodec", "--max-bytes", 3), "smallest possible"),
        (("compress", "a.png", "-o", "x.sodec", "--target-bpp", "nan"), "target_bpp nan"),
        (("compress", "a.png", "-o", "x.sodec", "--target-bpp", 1, "-q", 3), "only one"),
        (("compress", "a.png"), "no output is given"),
        (("compress", "a.png", "text.txt"), "no output is given"),
        (("compress", "a.png", "-o", "a.png"), "a.png is the input"),
        (("compress", "a.png", "-o", "a.png", "--overwrite"), "a.png is the input"),
        (("compress", "a.png", "-o", "link.png", "--overwrite"), "link.png is the input"),
        (("compress", "a.png", "-o", "good.sodec"), "good.sodec exists; --overwrite"),
        (("compress", "good.sodec", "-o", "x.sodec"), "--recompress"),
        (("compress", "a.png", "good.sodec", "-o", "text.txt"), "need a folder"),
        (("compress", "missing.png", "-o", "no/such/x.sodec"), "missing.png: No such file"),
        (("decompress", "good.sodec", "-o", "x.sodec"), "would compress it again"),
        (("decompress", "good.sodec", "-o", "good.sodec"), "is the input"),
        (("decompress", "good.sodec", "-o", "a.png"), "a.png exists; --overwrite"),
        (("decompress", "good.sodec", "-o", "x.png", "--scale", "1/2", "--fidelity", 0.5), "does not go with"),
        (("decompress", "cut.sodec", "-o", "x.png", "--salvage"), "nothing can be salvaged"),
        (("decompress", "good.sodec", "-o", "x.xbm"), "XBM can't hold"),
        (("decompress", "good.sodec", "-o", "x.blp"), "BLP can't hold"),
        (("compress", "a.png", "-", "-o", "out"), "hold one picture"),
        (("decompress", "good.sodec", "-o", "x.png", "--region", "1,2,3"), "four whole numbers"),
        (("decompress", "good.sodec", "-o", "x.png", "--region", "1,2,3,x"), "1,2,3,x"),
        (("decompress", "good.sodec", "-o", "x.png", "--region", "15,0,6,6"), "15,0,6,6 is not within"),
        (
            ("decompress", "good.sodec", "-o", "x.png", "--fidelity", 2),
            "fidelity must be a number from 0 to 1",
        ),
        (("compress", "missing.png", "-o", "x.sodec"), "missing.png: No such file"),
        (("compress", "text.txt", "-o", "x.sodec"), "text.txt is not a picture"),
        (("compress", "empty.png", "-o", "x.sodec"), "empty.png is not a picture"),
        (("compress", "a.png", "-o", "x.sodec", "-q", 101), "quality 101"),
        (("compress", "a.png", "-o", "no/such/x.sodec"), "no/such"),
        (("compress", "a.png", "-o", "x.sodec", "--device", "abacus"), "abacus"),
        (("decompress", "a.png", "-o", "x.png"), "not a .sodec stream"),
        (("decompress", "empty.png", "-o", "x.png"), "the stream is empty"),
        (("decompress", "cut.sodec", "-o", "x.png"), "truncated"),
        (("decompress", "good.sodec", "-o", "x.what"), ".what"),
        (("compress", "emptyfolder", "-o", "out"), "no files of"),
    ],
)
def test_errors_are_one_line_and_leave_nothing_behind(run, tmp_path, arguments, message):
    Image.fromarray(photo(20, 20)).save("a.png")
    (tmp_path / "text.txt").write_text("words")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "emptyfolder").mkdir()
    data = codec().compress(photo(20, 20))
    (tmp_path / "good.sodec").write_bytes(data)
    (tmp_path / "cut.sodec").write_bytes(data[:-3])
    (tmp_path / "link.png").symlink_to("a.png")
    before = sorted(tmp_path.rglob("*"))
    code, out, errors = run(*arguments)
    assert code == 2
    assert out == ""
    assert errors.count("\n") == 1
    assert message in errors
    assert sorted(tmp_path.rglob("*")) == before


def test_info_itemises_the_bytes_without_torch(run, tmp_path):
    Image.fromarray(photo(50, 40)).save("a.png")
    run("compress", "a.png", "-o", "a.sodec", "-q", 30)
    code, out, _ = run("info", "a.sodec", weights=False)
    assert code == 0
    for word in ("50x40", "quality 30", "header", "lane states", "integrity", "total"):
        assert word in out
    script = (
        "import sys; from sodec.cli import main; main(sys.argv[1:], standalone_mode=False); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, "info", str(tmp_path / "a.sodec")], check=True, cwd=tmp_path)


def test_demo_writes_both_pictures_side_by_side(run):
    code, out, _ = run("demo", "-o", "pair.png")
    assert code == 0
    assert "bit per pixel" in out
    assert "PSNR" in out
    assert Image.open("pair.png").size == (2 * 672 + 4, 448)


def test_help_teaches(tmp_path):
    command = [sys.executable, "-m", "sodec", "compress", "--help"]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "sodec compress photo.jpg -o photo.sodec" in out.stdout


def test_import_is_light(tmp_path):
    script = "import sys, sodec; dir(sodec); assert not {'torch', 'numpy'} & set(sys.modules), sodec.__version__"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)


def test_success_is_one_line_with_what_it_cost(run):
    Image.fromarray(photo(300, 200)).save("a.png")
    code, out, errors = run("compress", "a.png", "-o", "a.sodec", "--max-bytes", "1k")
    assert (code, errors) == (0, "")
    assert re.fullmatch(
        r"a\.png -> a\.sodec: 300x200, \d+ bytes, 0\.1\d\d bit per pixel, 1:\d+, quality [\d.]+, [\d.]+ s\n", out
    )
    assert re.fullmatch(
        r"a\.sodec -> b\.jpg: 300x200 JPEG, \d+ bytes, [\d.]+ s\n", run("decompress", "a.sodec", "-o", "b.jpg")[1]
    )
    assert run("compress", "a.png", "-o", "b.sodec", "--quiet") == (0, "", "")


@pytest.mark.parametrize(
    ("text", "count"), [("8000", 8000), ("8k", 8000), ("8 KB", 8000), ("8KiB", 8192), ("1.5m", 1_500_000)]
)
def test_byte_counts_take_units(text, count):
    assert ByteCount().convert(text, None, None) == count


def test_two_arguments_that_can_only_be_input_and_output_are_understood(run, tmp_path):
    Image.fromarray(photo(20, 20)).save("a.png")
    assert run("compress", "a.png", "a.sodec")[0] == 0
    assert run("decompress", "a.sodec", "b.jpg")[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "a.sodec", "b.jpg"}


def test_info_goes_on_past_bad_files_and_reads_a_pipe(run, stream, tmp_path):
    (tmp_path / "bad.sodec").write_bytes(b"bad")
    code, out, errors = run("info", "none.sodec", "bad.sodec", stream, weights=False)
    assert code == 2
    assert "s.sodec" in out
    assert "none.sodec: No such file" in errors
    assert "bad.sodec: " in errors
    command = [sys.executable, "-m", "sodec", "info", "-"]
    done = subprocess.run(command, input=(tmp_path / stream).read_bytes(), capture_output=True, check=True)
    assert b"40x30" in done.stdout


def test_interruption_ends_with_130(monkeypatch, run, stream):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("sodec.api.inspect", interrupted)
    code, _, errors = run("info", stream, weights=False)
    assert code == 130
    assert errors == "sodec: stopped\n"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_sigterm_ends_a_run_and_its_workers(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(40):
        Image.fromarray(photo(700, 700, number)).save(tmp_path / "in" / f"{number:02}.bmp")
    command = [sys.executable, "-m", "sodec", "compress", "in", "-o", "out", "--workers", "2", "--threads", "1",
               "--weights", str(folder())]  # fmt: skip
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list((tmp_path / "out").glob("*.sodec")):
        assert running.poll() is None
        time.sleep(0.05)
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    running.send_signal(signal.SIGTERM)
    assert running.wait(30) == 143
    for _ in range(100):
        if not any(Path(f"/proc/{child}").exists() for child in children):
            break
        time.sleep(0.1)
    assert not [child for child in children if Path(f"/proc/{child}").exists()]
    assert all(path.suffix == ".sodec" for path in (tmp_path / "out").iterdir())
