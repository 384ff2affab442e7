"""The command line, run as people run it: files, folders, and errors of one line.

pytest tests/test_cli.py
"""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import codec, folder, photo

from sodec.cli import main


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
    assert "1 pictures" in run("compress", "in", "-o", "out")[1]
    Image.fromarray(photo(20, 20)).save("in/b.png")
    code, out, _ = run("compress", "in", "-o", "out")
    assert code == 0
    assert out.startswith("1 pictures, ")
    assert "1 were there already (--overwrite" in out
    assert run("compress", "in", "-o", "out", "--overwrite")[1].startswith("2 pictures, ")


def test_a_size_can_be_asked_for(run, tmp_path):
    Image.fromarray(photo(300, 200)).save("a.png")
    assert run("compress", "a.png", "-o", "a.sodec", "--max-bytes", 1000)[0] == 0
    assert 900 < (tmp_path / "a.sodec").stat().st_size <= 1000
    assert run("compress", "a.png", "-o", "a.sodec", "--target-bpp", 0.16)[0] == 0
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
        assert run("decompress", "a.sodec", "-o", "b.png", *arguments)[0] == 0
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
    run("compress", "a.jpg", "-o", "a.sodec")
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
        (("compress", "a.png", "-", "-o", "out"), "hold one picture"),
        (("decompress", "good.sodec", "-o", "x.png", "--region", "1,2,3"), "four whole numbers"),
        (("decompress", "good.sodec", "-o", "x.png", "--region", "1,2,3,x"), "1,2,3,x"),
        (("decompress", "good.sodec", "-o", "x.png", "--region", "15,0,6,6"), "15,0,6,6 is not within"),
        (("decompress", "good.sodec", "-o", "x.png", "--fidelity", 2), "fidelity 2.0"),
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
