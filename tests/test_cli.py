"""The command line, as users run it: files, folders, and errors of one line.

pytest tests/test_cli.py
"""

import io
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import codec, folder, photo

from sodec.cli import main
from sodec.cli.options import ByteCount


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a command in an empty folder; returns exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, weights=True):
        options = ["--weights", str(folder())] if weights else []
        with pytest.raises(SystemExit) as stopped:
            main([*map(str, arguments), *options])
        captured = capsys.readouterr()
        return stopped.value.code or 0, captured.out, captured.err

    return call


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


def test_jpeg_can_not_hold_alpha(run):
    Image.fromarray(np.dstack([photo(20, 20), photo(20, 20)[..., 0]])).save("a.png")
    assert run("compress", "a.png", "-o", "a.sodec")[0] == 0
    code, _, errors = run("decompress", "a.sodec", "-o", "b.jpg")
    assert code == 2
    assert "transparency" in errors


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


@pytest.fixture
def stream(tmp_path):
    (tmp_path / "s.sodec").write_bytes(codec().compress(photo(40, 30), 50))
    return "s.sodec"


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
