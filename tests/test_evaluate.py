"""Evaluation: metrics against their definitions, runs over small pictures, BD-rate with its range, plots, the CLI.

pytest tests/test_evaluate.py
"""

import io
import json
import math
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from sodec.errors import SodecError, UnknownModelError, UnsupportedPictureError
from sodec.evaluate import bdrate, codecs, learned, metrics, optional, parts, plots, published, report, run, sheet
from sodec.evaluate.cli import METRIC_NAMES, eval_command


def picture(seed=0, height=64, width=80):
    """A smooth random picture: noise of several scales, so that codecs have something to keep and to lose."""
    noise = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for size in (4, 8, 16):
        small = noise.integers(0, 256, (size, size, 3), dtype=np.uint8)
        total += np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    return np.uint8(total / 3)


def noisy(original, amount, seed=1):
    noise = np.random.default_rng(seed).normal(0, amount, original.shape)
    return np.uint8(np.clip(original + noise, 0, 255))


class Keeper:
    """A codec that writes more bytes for a larger setting and loses less: it keeps multiples of 32 / setting."""

    name = "keeper"
    settings = (1, 2, 4, 8)

    def encode(self, picture, setting):
        buffer = io.BytesIO()
        step = 32 // int(setting)
        np.save(buffer, picture // step * step)
        return buffer.getvalue() + bytes(100 * int(setting))

    def decode(self, data):
        return np.load(io.BytesIO(data))


@pytest.fixture
def folder(tmp_path):
    for seed in range(2):
        Image.fromarray(picture(seed)).save(tmp_path / f"{seed}.png")
    return tmp_path


# -- metrics


def test_psnr_by_hand():
    a = np.full((4, 4, 3), 100, np.uint8)
    assert metrics.psnr(a, a + np.uint8(5)) == pytest.approx(20 * math.log10(255 / 5))
    assert metrics.psnr(a, a) == math.inf


def test_psnr_does_not_wrap_around():
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    assert metrics.psnr(black, white) == metrics.psnr(white, black) == 0


def test_grid_finds_a_pattern_of_period_four_and_nothing_else():
    a = np.full((64, 80, 3), 100, np.uint8)
    striped = a.copy()
    striped[::4] += 8
    # One row in four is 8 up: means are 8 and 0, 0, 0.
    assert metrics.grid(a, striped) == pytest.approx(8 * math.sqrt(3) / 4)
    assert metrics.grid(a, a + np.uint8(9)) == 0
    wider = a.copy()
    wider[:, : 80 // 2] += 8
    assert metrics.grid(a, wider) == pytest.approx(0, abs=1e-9)


def test_ms_ssim_falls_with_noise_and_needs_161_pixels():
    pytest.importorskip("pytorch_msssim")
    a = picture(height=161, width=170)
    values = [metrics.ms_ssim(a, noisy(a, amount)) for amount in (0, 8, 40)]
    assert values[0] == pytest.approx(1)
    assert values[0] > values[1] > values[2] > 0
    assert metrics.ms_ssim(a[:160], a[:160]) is None


def test_st_lpips_is_the_package_s_own():
    stlpips = pytest.importorskip("stlpips_pytorch.stlpips")
    a = picture()
    b = noisy(a, 30)
    network = stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False).eval()
    x, y = (torch.from_numpy(p).permute(2, 0, 1)[None] / 255 for p in (a, b))
    with torch.inference_mode():
        expected = float(network(x, y, normalize=True))
    assert metrics.st_lpips(a, b) == pytest.approx(expected, rel=1e-4)
    other = picture(5)
    # The features kept are those of the original given, not of the one before.
    assert metrics.st_lpips(other, other) == pytest.approx(0, abs=1e-7)
    assert metrics.st_lpips(a, b) == pytest.approx(expected, rel=1e-4)
    assert metrics.st_lpips(a[:64, :64], b[:64, :64]) > 0
    assert metrics.st_lpips(a[:63], b[:63]) is None


@pytest.mark.parametrize("function", [metric.function for metric in metrics.METRICS.values()])
@pytest.mark.parametrize(
    "wrong", [np.zeros((64, 80), np.uint8), np.zeros((64, 80, 3)), np.zeros((64, 81, 3), np.uint8)]
)
def test_metrics_refuse_what_is_no_pair_of_pictures(function, wrong):
    with pytest.raises(UnsupportedPictureError):
        function(picture(), wrong)


def test_a_metric_without_its_package_is_left_out_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_msssim", None)
    chosen, left_out = metrics.available(["psnr", "ms_ssim"])
    assert [metric.name for metric in chosen] == ["psnr"]
    assert "pip install pytorch-msssim" in left_out["ms_ssim"]
    with pytest.raises(optional.MissingPackageError):
        metrics.ms_ssim(picture(height=161, width=161), picture(height=161, width=161))


# -- codecs


@pytest.mark.parametrize("name", codecs.RIVALS)
def test_rivals_code_pictures_with_growing_bytes(name):
    try:
        codec = codecs.rival(name)
    except optional.MissingPackageError as error:
        pytest.skip(str(error))
    original = picture()
    sizes, psnrs = [], []
    for setting in codec.settings:
        data = codec.encode(original, setting)
        decoded = codec.decode(data)
        assert decoded.shape == original.shape
        assert decoded.dtype == np.uint8
        sizes.append(len(data))
        psnrs.append(metrics.psnr(original, decoded))
    assert sizes[0] < sizes[-1]
    assert psnrs[0] < psnrs[-1]
    assert psnrs[-1] > 25


def test_codecs_that_do_not_work_here_are_left_out_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    found, left_out = codecs.rivals(["jpeg", "jxl"])
    assert [codec.name for codec in found] == ["jpeg"]
    assert "pip install pillow-jxl-plugin" in left_out["jxl"]
    with pytest.raises(UnknownModelError, match="'bpg' is none of avif, webp"):
        codecs.rivals(["bpg"])


def test_a_codec_in_a_file(tmp_path):
    path = tmp_path / "planes.py"
    functions = [
        "import io, numpy as np",
        "def settings(): return [1, 2]",
        "def encode(picture, setting):",
        "    out = io.BytesIO(); np.save(out, picture[:, :, :int(setting)]); return out.getvalue()",
        "def decode(data):",
        "    planes = np.load(io.BytesIO(data)); return planes[:, :, [0, -1, -1]]",
    ]
    path.write_text("\n".join(functions))
    codec = codecs.rival(str(path))
    assert codec.name == "planes"
    chosen, _ = metrics.available(["psnr"])
    one, two = (run.measure(codec, setting, picture(), "a", chosen) for setting in codec.settings)
    assert (one.bytes, two.bytes) == (128 + 64 * 80, 128 + 2 * 64 * 80)
    assert two.metrics["psnr"] > one.metrics["psnr"]
    path.write_text("\n".join(functions[:4]))
    with pytest.raises(UnknownModelError, match="no function decode"):
        codecs.rival(str(path))
    with pytest.raises(UnknownModelError, match=r"gone\.py can't be run"):
        codecs.rival(str(tmp_path / "gone.py"))


# -- runs


def test_evaluation_of_two_pictures(folder):
    chosen, _ = metrics.available(["psnr", "grid"])
    result = run.evaluate([Keeper()], run.find_pictures([folder]), chosen, progress=False)
    assert len(result.rows) == 8
    row = result.rows[0]
    assert (row.picture, row.width, row.height) == ("0.png", 80, 64)
    assert row.bytes == len(Keeper().encode(picture(0), 1))
    assert row.bpp == 8 * row.bytes / (64 * 80)
    assert row.metrics["psnr"] == metrics.psnr(picture(0), picture(0) // 32 * 32)
    means = run.means(result.rows)
    assert [mean.setting for mean in means] == [1, 2, 4, 8]
    expected = np.mean([metrics.psnr(picture(s), picture(s) // 32 * 32) for s in range(2)])
    assert means[0].metrics["psnr"] == pytest.approx(expected)
    assert means[0].pictures == 2
    text = run.table(means)
    assert f"{expected:.2f}" in text
    assert len({len(line) for line in text.splitlines()}) == 1


def test_bad_pictures_are_skipped_for_all_codecs_and_named(folder):
    (folder / "bad.png").write_bytes(b"no picture")
    chosen, _ = metrics.available(["psnr"])

    class Picky(Keeper):
        name = "picky"

        def encode(self, original, setting):
            if np.array_equal(original, picture(1)):
                raise ValueError("not this one")
            return super().encode(original, setting)

    result = run.evaluate([Keeper(), Picky()], run.find_pictures([folder]), chosen, progress=False)
    assert {Path(name).name for name in result.skipped} == {"bad.png", "1.png"}
    assert {row.picture for row in result.rows} == {"0.png"}
    (folder / "0.png").unlink()
    with pytest.raises(UnsupportedPictureError, match="none of 2 pictures"):
        run.evaluate([Picky()], run.find_pictures([folder]), chosen, progress=False)


def test_no_pictures(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(UnsupportedPictureError, match="no pictures found"):
        run.find_pictures([tmp_path])
    with pytest.raises(UnsupportedPictureError, match="does not exist"):
        run.find_pictures([tmp_path / "gone"])


def test_json_keeps_every_number(tmp_path):
    row = run.Row("a", "c", 1.0, 2, 3, 4, 5.0, 0.1, 0.2, {"psnr": math.inf, "ms_ssim": None, "grid": 0.25})
    result = run.Evaluation([row], {"b": "broken"}, {"lpips": "missing"})
    run.write_json(tmp_path / "rows.json", result)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    json.loads((tmp_path / "rows.json").read_text(), parse_constant=refuse)
    assert run.read_json(tmp_path / "rows.json") == result


# -- BD-rate


def mean(codec, bpp, **values):
    return run.Mean(codec, 0, 1, 0, bpp, 0, 0, values)


def curve(codec, factor, start=0, stop=6):
    """PSNR 30 + 3 per doubling of the rate, and a distance that falls; `factor` times the bytes for the same."""
    return [mean(codec, factor * 0.1 * 2**n, psnr=30 + 3.0 * n, st_lpips=0.5 - 0.05 * n) for n in range(start, stop)]


@pytest.mark.parametrize("method", bdrate.METHODS)
@pytest.mark.parametrize("metric", ["psnr", "st_lpips"])
def test_half_the_bytes_is_minus_fifty_percent(metric, method):
    pytest.importorskip("bjontegaard")
    result = bdrate.bd_rate(curve("ours", 0.5, 1, 5) + curve("theirs", 1, 0, 4), "ours", "theirs", metric, method)
    assert result.percent == pytest.approx(-50)
    assert result.overlap == pytest.approx((33, 39) if metric == "psnr" else (0.45, 0.35))
    assert result.bpp == pytest.approx((0.1, 0.4))
    assert result.anchor_bpp == pytest.approx((0.2, 0.8))
    assert "-50.0 %" in bdrate.bd_table([result])


def test_no_overlap_is_no_number_but_a_reason():
    pytest.importorskip("bjontegaard")
    result = bdrate.bd_rate(curve("ours", 0.5, 0, 2) + curve("theirs", 1, 3, 6), "ours", "theirs", "psnr")
    assert result.percent is None
    assert result.reason == "no overlap: ours 30.00 to 33.00, theirs 39.00 to 45.00"
    alone = bdrate.bd_rate(curve("ours", 1), "ours", "theirs", "psnr")
    assert alone.percent is None
    assert "theirs has 0 usable points" in alone.reason
    assert "no overlap" in bdrate.bd_table([result])


def test_a_setting_that_costs_more_for_less_is_not_on_the_curve():
    rows = [*curve("ours", 1), mean("ours", 0.25, psnr=20.0), mean("ours", 0.3, psnr=math.inf)]
    line = bdrate.Curve.of(rows, "ours", "psnr")
    assert line.dropped == 1
    assert list(line.quality) == [30, 33, 36, 39, 42, 45]


@pytest.mark.parametrize(("metric", "value"), [("psnr", 31.5), ("st_lpips", 0.475)])
def test_value_at_a_rate(metric, value):
    pytest.importorskip("scipy")
    line = bdrate.Curve.of(curve("ours", 1), "ours", metric)
    # The curve is straight over log bpp: half way, by ratio, is half way.
    assert line.value_at(0.1 * math.sqrt(2)) == pytest.approx(value)
    assert line.value_at(0.09) is None
    assert line.value_at(99) is None


# -- plots and contact sheets


def test_curves_as_png_and_svg(tmp_path):
    pytest.importorskip("matplotlib")
    rows = curve("sodec", 0.5) + curve("avif", 1)
    files = plots.curves(rows, "psnr", tmp_path) + plots.curves(rows, "st_lpips", tmp_path)
    assert [file.name for file in files] == [
        "rate-distortion-psnr.png",
        "rate-distortion-psnr.svg",
        "rate-perception-st_lpips.png",
        "rate-perception-st_lpips.svg",
    ]
    with Image.open(files[0]) as image:
        assert min(image.size) > 400
    text = files[1].read_text()
    assert "sodec" in text
    assert "avif" in text


def test_nearest_setting_by_bytes():
    original = picture()
    codec = codecs.rival("jpeg")
    sizes = {q: len(codec.encode(original, q)) for q in range(1, 26)}
    setting, data = sheet.nearest(codec, original, sizes[17])
    assert len(data) == sizes[17] == len(codec.encode(original, setting))
    assert sheet.nearest(codec, original, 1)[0] == 1
    assert sheet.nearest(codec, original, 10**6)[0] == 25


def test_contact_sheet_holds_the_pixels_it_claims():
    original = picture()
    image = np.asarray(
        sheet.contact_sheet(
            {"a": original}, Keeper(), [codecs.rival("jpeg")], (0.5, 1.0), crop=32, corners={"a": (8, 16)}
        )
    )
    assert np.array_equal(image[:32, :32], original[8:40, 16:48])
    cell = image.shape[1] // 3
    # The smallest stream of the codec is the nearest to 0.5 bit per pixel.
    assert np.array_equal(image[:32, cell : cell + 32], (original // 32 * 32)[8:40, 16:48])
    assert (image[32:60] < 128).any()  # labels


# -- parts


class StubModel:
    """`SodecModel.decode`'s interface: each variant is the original and so much noise."""

    def decode(self, y_hat, z_hat, quality, *, variant="full", tokens=None):
        assert y_hat.dtype == z_hat.dtype
        original = y_hat[0].permute(1, 2, 0).numpy()
        amount = {"full": 4, "fidelity": 20, "no_unet": 30, "zero_tokens": 2, "zero_content": 25}[variant]
        if tokens is not None:
            # The next picture's, not its own.
            assert not torch.equal(tokens, y_hat.mean((2, 3))[:, None])
            amount = 10
        noise = np.random.default_rng(0).normal(0, amount / 255, original.shape)
        return torch.from_numpy(np.clip(original + noise, 0, 1)).permute(2, 0, 1)[None].float()

    def guidance(self, fidelity):
        return fidelity.mean((2, 3))[:, None]


class StubCodec:
    model = StubModel()

    def compress(self, original, quality):
        return bytes([int(quality)]) + bytes(original.shape[:2]) + original.tobytes()

    def latents(self, data):
        height, width = data[1], data[2]
        x = np.frombuffer(data, np.uint8, offset=3).reshape(height, width, 3)
        x = np.pad(x, ((0, -height % 16), (0, -width % 16), (0, 0)))
        y = torch.from_numpy(x / 255).permute(2, 0, 1)[None]
        return y.double(), torch.zeros(1, 1, 1, 1), torch.tensor([float(data[0])])


def test_parts_table_tells_which_part_earns_its_place():
    pytest.importorskip("stlpips_pytorch")
    chosen, _ = metrics.available(["psnr", "st_lpips"])
    pictures = {"a": picture(0, 70, 75), "b": picture(1, 64, 80)}
    rows = parts.evaluate_parts(StubCodec(), pictures, chosen, (10, 50), progress=False)
    assert [row.variant for row in rows] == list(parts.LABELS) * 2
    psnrs = {row.variant: row.metrics["psnr"] for row in rows[:6]}
    assert psnrs["zero_tokens"] > psnrs["full"] > psnrs["other_tokens"] > psnrs["fidelity"] > psnrs["zero_content"]
    text = parts.parts_table(rows)
    assert text.count("full decoder") == 2
    assert parts.advantage(rows, rows[1]) > 15
    found = parts.findings(rows)
    assert len(found) == 2
    assert "quality 10: the full decoder does not beat 'tokens zeroed' on ST-LPIPS" in found[0]


def test_parts_need_another_picture():
    with pytest.raises(UnsupportedPictureError, match="two pictures"):
        parts.evaluate_parts(StubCodec(), {"a": picture()}, [], progress=False)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder of untrained weights of the tiny configuration."""
    pytest.importorskip("compressai")
    from sodec import weights
    from sodec.train.export import coding, networks
    from sodec.train.parts import Parts
    from sodec.train.run import CONFIGS

    torch.manual_seed(0)
    made = Parts(CONFIGS["tiny"])
    folder = tmp_path_factory.mktemp("tiny")
    weights.write(folder, made.model.config.to_dict(), coding(made), networks(made))
    return folder


@pytest.fixture
def spared_threads():
    """The command sets torch's threads for its process; the other tests keep theirs."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_parts_full_decoder_is_the_codec_s_own(tiny):
    codec = codecs.SodecCodec([50], weights=tiny)
    pictures = {"a": picture(0, 70, 75), "b": picture(1, 64, 80)}
    chosen, _ = metrics.available(["psnr"])
    rows = parts.evaluate_parts(codec.codec, pictures, chosen, [50], progress=False)
    values = {row.variant: row.metrics["psnr"] for row in rows}
    for variant, mode in (("full", "full"), ("fidelity", "fidelity")):
        same = codecs.SodecCodec([50], weights=tiny, mode=mode)
        expected = [metrics.psnr(one, same.decode(codec.encode(one, 50))) for one in pictures.values()]
        assert values[variant] == pytest.approx(np.mean(expected), abs=0.05)
    assert values["full"] != values["fidelity"]


@pytest.mark.usefixtures("spared_threads")
def test_command_with_the_tiny_model(tiny, folder):
    for module in ("bjontegaard", "matplotlib"):
        pytest.importorskip(module)
    out = folder / "report"
    common = ("--weights", tiny, "--qualities", "1,50,100", "--metrics", "psnr", "--fidelity", "--parts")
    first = call(folder, *common, "--against", "jpeg", "--out", out, "--sheet", 1)
    assert first.exit_code == 0, first.output
    for expected in ("| sodec ", "| sodec-fidelity ", "| jpeg ", "tokens zeroed", "BD-rate"):
        assert expected in first.output
    with Image.open(out / "contact-sheet.png") as image:
        assert image.width >= 3 * 80
    again = call(folder, *common, "--against", "jpeg", "--reuse", out / "rows.json")
    assert again.exit_code == 0, again.output
    times = [[row for row in text.splitlines() if row.startswith("| jpeg")] for text in (first.output, again.output)]
    # Times and all: the rows are those of the first run.
    assert times[0] == times[1]


@pytest.mark.usefixtures("spared_threads")
def test_what_a_report_lacks_is_named_and_the_rest_is_written(tiny, folder, monkeypatch):
    for module in ("bjontegaard", "matplotlib"):
        monkeypatch.setitem(sys.modules, module, None)
    (folder / "1.png").unlink()
    out = folder / "report"
    result = call(folder, "--weights", tiny, "--qualities", "1,50", "--metrics", "psnr", "--parts",
                  "--against", "jpeg", "--out", out)  # fmt: skip
    assert result.exit_code == 0, result.output
    for name in ("BD-rate: BD-rate needs `pip install bjontegaard`", "plots: plots needs", "parts: another picture's"):
        assert f"left out: {name}" in result.output
    assert {file.name for file in out.iterdir()} == {"rows.json", "report.md", "contact-sheet.png"}


def test_published_points_name_their_sources_and_count_only_for_their_own_variant():
    for other in published.published():
        assert other.source
        assert other.points
        assert all(0 < point["bpp"] < 5 for point in other.points)
    paper = next(other for other in published.published() if other.codec == "SODEC")
    assert len(paper.curve("lpips_vgg")) == 4
    assert paper.curve("ms_ssim") == []  # another implementation
    assert {other.codec for other in published.published()} >= set(published.DRAWN)


def test_published_points_are_drawn_on_kodak_alone(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [run.Mean("sodec", q, 24, 0.0, 0.1 * q, 0.0, 0.0, {"psnr": 24.0 + q}) for q in (1, 2)]
    for kodak in (True, False):
        svg = next(file for file in plots.curves(rows, "psnr", tmp_path, kodak=kodak) if file.suffix == ".svg")
        assert ("MS-ILLM (publ.)" in svg.read_text()) == kodak


def test_command_line_knows_every_metric():
    assert tuple(metrics.METRICS) == METRIC_NAMES


def test_ssimulacra2_prefers_the_original():
    pytest.importorskip("ssimulacra2")
    one = picture()
    worse = np.clip(one.astype(int) + np.random.default_rng(0).integers(-40, 41, one.shape), 0, 255).astype(np.uint8)
    assert metrics.ssimulacra2(one, one) == pytest.approx(100, abs=0.01)
    assert metrics.ssimulacra2(one, worse) < 80
    assert metrics.ssimulacra2(one[:4], worse[:4]) is None


def test_a_learned_metric_without_its_weights_says_so(monkeypatch):
    """Whatever its package raises where it can't fetch them."""

    def unreachable(**options):
        raise OSError("no route to host")

    learned.lpips.cache_clear()
    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=unreachable))
    chosen, left_out = metrics.available(["psnr", "lpips_vgg"])
    learned.lpips.cache_clear()
    assert [metric.name for metric in chosen] == ["psnr"]
    assert "no route to host" in left_out["lpips_vgg"]


# -- the command


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
    assert "'vmaf' is none of psnr" in unknown.output
    assert call(tmp_path, "--qualities", "1,high").exit_code == 2


def test_the_command_is_light_to_import(tmp_path):
    code = "import sys, sodec.evaluate.cli; print(*{'torch', 'numpy', 'PIL', 'matplotlib', 'tqdm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == []
