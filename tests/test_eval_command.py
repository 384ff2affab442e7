"""`sodec eval`: its output and files, and its messages about what it leaves out.

pytest tests/test_eval_command.py
"""

import json
import subprocess
import sys

import pytest
import tiny
import torch
from click.testing import CliRunner
from evaluating import curve, picture
from PIL import Image

from sodec.cli.evaluate import METRIC_NAMES, eval_command
from sodec.errors import SodecError, UnknownModelError, UnsupportedPictureError
from sodec.evaluate import metrics, report, run


@pytest.fixture
def folder(tmp_path):
    for seed in range(2):
        Image.fromarray(picture(seed)).save(tmp_path / f"{seed}.png")
    return tmp_path


@pytest.fixture
def spared_threads():
    """The command sets torch's threads for its process; the other tests keep theirs."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def call(*arguments):
    return CliRunner().invoke(eval_command, [str(argument) for argument in arguments])


@pytest.mark.usefixtures("spared_threads")
def test_command_writes_a_report(folder):
    for module in ("bjontegaard", "matplotlib"):
        pytest.importorskip(module)
    out = folder / "report"
    result = call(folder, "--model", "none", "--against", "jpeg,webp", "--metrics", "psnr,grid", "--out", out)
    assert result.exit_code == 0, result.output
    names = {file.name for file in out.iterdir()}
    assert names == {"rows.json", "report.md", "rate-distortion-psnr.png", "rate-distortion-psnr.svg",
                     "rate-distortion-grid.png", "rate-distortion-grid.svg"}  # fmt: skip
    assert "| jpeg " in (out / "report.md").read_text()
    again = call(folder, "--model", "none", "--against", "jpeg", "--metrics", "psnr", "--reuse", out / "rows.json")
    assert isinstance(again.exception, UnknownModelError)


@pytest.mark.usefixtures("spared_threads")
def test_command_with_the_tiny_model(folder):
    for module in ("bjontegaard", "matplotlib"):
        pytest.importorskip(module)
    out = folder / "report"
    common = ("--weights", tiny.folder(), "--qualities", "1,50,100", "--metrics", "psnr", "--fidelity", "--parts")
    first = call(folder, *common, "--against", "jpeg", "--out", out, "--sheet", 1)
    assert first.exit_code == 0, first.output
    for expected in ("| sodec ", "| sodec-fidelity ", "| jpeg ", "guidance zeroed", "BD-rate"):
        assert expected in first.output
    with Image.open(out / "contact-sheet.png") as image:
        assert image.width >= 3 * 80
    again = call(folder, *common, "--against", "jpeg", "--reuse", out / "rows.json")
    assert again.exit_code == 0, again.output
    times = [[row for row in text.splitlines() if row.startswith("| jpeg")] for text in (first.output, again.output)]
    # Times and all: the rows are those of the first run.
    assert times[0] == times[1]


@pytest.mark.usefixtures("spared_threads")
def test_what_a_report_lacks_is_named_and_the_rest_is_written(folder, monkeypatch):
    for module in ("bjontegaard", "matplotlib"):
        monkeypatch.setitem(sys.modules, module, None)
    (folder / "1.png").unlink()
    out = folder / "report"
    result = call(folder, "--weights", tiny.folder(), "--qualities", "1,50", "--metrics", "psnr", "--parts",
                  "--against", "jpeg", "--out", out)  # fmt: skip
    assert result.exit_code == 0, result.output
    for name in ("BD-rate: BD-rate needs `pip install bjontegaard`", "plots: plots needs", "parts: another picture's"):
        assert f"left out: {name}" in result.output
    assert {file.name for file in out.iterdir()} == {"rows.json", "report.md", "contact-sheet.png"}


def test_report_compares_with_an_earlier_run():
    pytest.importorskip("bjontegaard")
    rows = [run.Row("a", m.codec, n, 8, 8, 1, m.bpp, 0, 0, m.metrics)
            for n, m in enumerate(curve("sodec", 0.5) + curve("avif", 1))]  # fmt: skip
    text = report.text(run.Evaluation(rows, {"b.png": "broken"}, {"heic": "not installed"}))
    assert "-50.0 %" in text
    assert "left out: heic: not installed" in text
    assert "skipped: b.png: broken" in text


@pytest.mark.usefixtures("spared_threads")
def test_command_reports_bad_input_by_typed_errors(tmp_path):
    assert isinstance(call(tmp_path).exception, UnsupportedPictureError)
    Image.fromarray(picture()).save(tmp_path / "a.png")
    assert isinstance(call(tmp_path, "--against", "bpg").exception, UnknownModelError)
    (tmp_path / "file").write_text("")
    assert isinstance(call(tmp_path, "--out", tmp_path / "file" / "below").exception, SodecError)
    unknown = call(tmp_path, "--metrics", "vmaf")
    assert unknown.exit_code == 2
    assert "one of psnr" in unknown.output
    assert "'vmaf'" in unknown.output
    assert call(tmp_path, "--qualities", "1,high").exit_code == 2


def test_command_line_knows_every_metric():
    assert tuple(metrics.METRICS) == METRIC_NAMES


def test_the_command_is_light_to_import(tmp_path):
    code = "import sys, sodec.cli.evaluate; print(*{'torch', 'numpy', 'PIL', 'matplotlib', 'tqdm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == []


@pytest.mark.usefixtures("spared_threads")
def test_command_measures_the_frechet_distance(folder, monkeypatch):
    pytest.importorskip("torchvision")
    from sodec.evaluate import frechet

    monkeypatch.setattr(frechet, "load_features", lambda path: ("means", lambda patches: patches.mean((1, 2))))
    for seed in range(2):
        Image.fromarray(picture(seed, 300, 520)).save(folder / f"{seed}.png")
    weights = folder / "network.safetensors"
    weights.write_bytes(b"")
    result = call(folder, "--model", "none", "--against", "jpeg", "--metrics", "psnr", "--features", weights,
                  "--out", folder / "report")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "Frechet distance, means, 4 patches" in result.output
    assert "Frechet distance, means" in (folder / "report" / "report.md").read_text()
    assert len(json.loads((folder / "report" / "frechet.json").read_text())) == 4
