"""sodec bench: counts are right, and the report is complete. No test depends on a time.

pytest tests/test_bench.py
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from PIL import Image

import sodec
from sodec.bench import clock, growth, roofline, run, stages
from sodec.bench.clock import Deadline
from sodec.bench.machine import scene
from sodec.bench.random_weights import drawn
from sodec.bench.report import text
from sodec.cli import commands as cli
from sodec.models import SD21_TINY, TINY
from sodec.models.blocks import unfolded
from sodec.models.coding import QualityGain
from sodec.models.files import empty
from sodec.models.prepare import prepare

CPU = torch.device("cpu")
LIMITS = clock.Ceilings(flops_per_s=1e9, bytes_per_s=1e6)
PAGE = Path(__file__).parent.parent / "docs" / "latency.md"


def call(*arguments):
    return CliRunner().invoke(cli.main, ["bench", *map(str, arguments)])


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """One run for all: its result, and the file it wrote."""
    file = tmp_path_factory.mktemp("bench") / "report.json"
    before = torch.get_num_threads()
    done = call("--weights", tiny.folder(), "--threads", 1, "--sizes", "96x64,1100x48", "--growth", "64x64",
                "--budget", 0, "--json", file)  # fmt: skip
    torch.set_num_threads(before)
    assert done.exit_code == 0, done.output
    return done, file


@pytest.fixture
def report(command):
    return json.loads(command[1].read_text(encoding="utf-8"))


# -- what is counted


def test_operations_of_a_convolution_by_hand():
    x, weight = torch.zeros(2, 3, 10, 12), torch.zeros(5, 3, 3, 3)
    assert roofline.count_flops(lambda: F.conv2d(x, weight, padding=1)) == 2 * 2 * 10 * 12 * 5 * 3 * 3 * 3


def test_operations_of_an_attention_by_hand():
    q, k, v = torch.zeros(1, 2, 7, 4), torch.zeros(1, 2, 9, 4), torch.zeros(1, 2, 9, 4)
    found = roofline.count_flops(lambda: F.scaled_dot_product_attention(q, k, v))
    assert found == 2 * 2 * (7 * 9 * 4 + 7 * 9 * 4)


def test_the_floor_is_the_larger_of_arithmetic_and_traffic():
    model = torch.nn.Module()
    model.part = torch.nn.Conv2d(4, 8, 1, bias=False)
    x = torch.zeros(1, 4, 5, 5)
    stage = stages.Stage("part", lambda: [model.part(x)], ("part",), (x,))
    found = roofline.work(stage, model, LIMITS)
    assert found.flops == 2 * 25 * 4 * 8
    assert (found.weight_bytes, found.activation_bytes) == (4 * 32, 4 * (100 + 200))
    assert found.bound == "bandwidth"
    assert found.floor_s == pytest.approx(4 * 332 / 1e6)
    slow = roofline.work(stage, model, clock.Ceilings(1e3, 1e6))
    assert (slow.bound, slow.floor_s) == ("arithmetic", pytest.approx(1.6))


@pytest.mark.parametrize("size", [(96, 64), (1100, 48)])
def test_stages_add_up_to_the_network(monkeypatch, size):
    codec = tiny.codec()
    monkeypatch.setattr(codec.engine, "tile", 1024)  # so that the second has two windows
    parts = stages.Dissection(codec, codec.compress(scene(*size), 50))
    assert tuple(stage.name for stage in parts.stages) == stages.NAMES
    assert len(parts.windows) == (2 if size[0] > 1024 else 1)
    counted = [roofline.work(stage, codec.model, LIMITS).flops for stage in parts.stages]
    assert counted[0] == 0
    assert min(counted[1:]) > 0
    assert sum(counted) == roofline.count_flops(parts.network)


def test_stages_make_the_codec_s_own_picture():
    codec = tiny.codec()
    data = codec.compress(scene(96, 64), 50)
    parts = stages.Dissection(codec, data)
    last = unfolded(parts.stage("latent decoder").call()[0])
    pixels = (last.float().clamp(0, 1)[0] * 255).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(pixels, codec.decompress(data, output="numpy"), atol=0.5)


def test_scenes_are_photographs_of_any_size():
    large, small = scene(1500, 900), scene(40, 24)
    assert (large.shape, small.shape) == ((900, 1500, 3), (24, 40, 3))
    assert np.array_equal(large[:24, :40], small)
    assert large[-24:, -40:].std() > 1


# -- the report


def test_the_report_is_whole(report):
    assert report["schema"] == run.SCHEMA
    assert report["model"] == "tiny"
    machine = report["machine"]
    for name in ("hardware", "processor", "torch", "system"):
        assert machine[name]
    assert machine["threads"] == 1
    assert [(size["width"], size["height"], size["windows"]) for size in report["sizes"]] == [
        (96, 64, 1), (1100, 48, 1),
    ]  # fmt: skip
    for size in report["sizes"]:
        assert [stage["name"] for stage in size["stages"]] == list(stages.NAMES)
        assert sum(stage["share"] for stage in size["stages"]) == pytest.approx(1)
        for stage in size["stages"]:
            time, work = stage["time"], stage["work"]
            assert 0 < time["q1_s"] <= time["median_s"] <= time["q3_s"]
            assert time["repeats"] >= 3
            if work["floor_s"] is None:
                assert stage["name"] == "entropy"
            else:
                assert stage["above_floor"] == pytest.approx(time["median_s"] / work["floor_s"])
    assert [one["direction"] for one in report["growth"]] == ["encode", "decode"]
    for one in report["growth"]:
        (point,) = one["points"]
        assert (point["width"], point["height"]) == (64, 64)
        assert 0 < point["imports_bytes"] < point["peak_bytes"]
        assert point["first_pixel_s"] > point["time"]["median_s"]
        assert one["time_exponent"] is None
    json.dumps(report, allow_nan=False)


def test_the_page_documents_every_field(report):
    documented = set(re.findall(r"`(\w+)`", PAGE.read_text(encoding="utf-8")))

    def names(value):
        if isinstance(value, dict):
            for name, inner in value.items():
                yield name
                yield from names(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from names(inner)

    free = {"GPU"}  # a key of not_measured
    assert set(names(report)) - documented - free == set()


def test_tables_name_the_hardware_and_what_was_not_measured(report):
    found = text([report])
    assert report["machine"]["hardware"] in found
    if not torch.cuda.is_available():
        assert "not measured: GPU: no CUDA device here" in found
    assert re.search(r"^\| +\| +tiny, [^|]+\| +GPU \|$", found, re.M)
    measured = {**report, "machine": {**report["machine"], "device": "cuda", "cuda": "13.0", "hardware": "H100"}}
    both = text([report, measured])
    assert re.search(r"^\| +\| +tiny, [^|]+\| +tiny, H100 \|$", both, re.M)
    assert "GPU: not measured;" not in both


def test_memory_is_too_small_for_one_size_and_the_rest_goes_on(monkeypatch):
    def full(codec, width, height, *rest):
        if width == 64:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB\nmore")
        return "measured"

    monkeypatch.setattr(run, "one_size", full)
    monkeypatch.setattr(run, "ceilings", lambda *given: LIMITS)
    found = run.bench(tiny.codec(), [(64, 64), (96, 64)], [], budget=0)
    assert found.sizes == ["measured"]
    assert found.not_measured["64x64"] == "CUDA out of memory. Tried to allocate 1 GiB"


def test_quartiles():
    assert clock.Timing.of([4.0, 1.0, 3.0, 2.0, 5.0]) == clock.Timing(3.0, 2.0, 4.0, 5)
    assert clock.Timing.of([2.0]) == clock.Timing(2.0, 2.0, 2.0, 1)


def test_calls_that_are_compared_take_turns():
    order = []
    calls = [clock.Timed(lambda: order.append("a")), clock.Timed(lambda: order.append("b"))]
    found = clock.together(calls, CPU, budget=0, warm_ups=1)
    assert order == ["a", "b", *"ab" * clock.ROUNDS]
    assert [timing.repeats for timing in found] == [clock.ROUNDS] * 2


def test_exponents_of_growth():
    pixels = [10, 100, 1000]
    assert growth.exponent(pixels, [3e-3 * pixel for pixel in pixels]) == pytest.approx(1)
    assert growth.exponent(pixels, [pixel**1.5 for pixel in pixels]) == pytest.approx(1.5)
    assert growth.exponent(pixels, [1.0, None, 10.0]) == pytest.approx(0.5)
    assert growth.exponent(pixels, [None, None, 1.0]) is None


# -- the command


def test_a_report_is_shown_and_drawn_again_without_measuring(command, report, tmp_path):
    pytest.importorskip("matplotlib")
    done, file = command
    assert done.stdout == text([report])
    again = call("--from", file, "--from", file, "--chart", tmp_path / "chart.png")
    assert (again.exit_code, again.stderr) == (0, "")
    table = done.stdout[done.stdout.index("| 96x64") :].split("\n\n")[0]
    assert again.stdout.count(table) == 2
    with Image.open(tmp_path / "chart.png") as image:
        assert image.width > 500


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_one_line_and_exit_code_2():
    found = call("--weights", tiny.folder(), "--device", "cuda")
    assert found.exit_code == 2
    assert found.stdout == ""
    assert re.fullmatch(r"sodec: device 'cuda': torch \S+ sees no CUDA GPU here\n", found.stderr)


@pytest.mark.parametrize("sizes", ["512", "0x5", "512x512x3", "axb", "-1x5"])
def test_sizes_are_checked(sizes):
    found = call("--sizes", sizes)
    assert found.exit_code == 2
    assert "is not a list of sizes" in found.stderr


def test_what_can_not_be_written_or_read_is_said_at_once(tmp_path, monkeypatch):
    found = call("--json", tmp_path / "gone" / "report.json")
    assert (found.exit_code, "there is no folder" in found.stderr) == (2, True)
    (tmp_path / "other.json").write_text("[1]")
    found = call("--from", tmp_path / "other.json")
    assert (found.exit_code, "is not a report of sodec bench" in found.stderr) == (2, True)
    (tmp_path / "later.json").write_text('{"schema": 99}')
    found = call("--from", tmp_path / "later.json")
    assert (found.exit_code, "of schema 99, not 1" in found.stderr) == (2, True)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    found = call("--chart", tmp_path / "chart.png")
    assert (found.exit_code, "pip install matplotlib" in found.stderr) == (2, True)


# -- a limit, and failures


def test_no_round_begins_once_the_deadline_has_passed():
    order = []
    calls = [clock.Timed(lambda: order.append("a")), clock.Timed(lambda: order.append("b"))]
    found = clock.together(calls, CPU, budget=0, warm_ups=1, deadline=Deadline(0))
    assert order == [*"ab", *"ab"]
    assert [timing.repeats for timing in found] == [1, 1]


def test_a_deadline():
    assert Deadline().allows(1e9)
    assert not Deadline().limited
    assert Deadline(60).limited
    assert Deadline(60).allows(30)
    assert not Deadline(60).allows(90)
    assert Deadline(-1).left < 0


def test_what_has_no_time_is_named_and_what_fails_does_not_stop_the_rest(monkeypatch):
    def broken(*given):
        raise ZeroDivisionError("of the ratios")

    saved = []
    monkeypatch.setattr(run, "one_size", lambda codec, width, height, *rest: (width, height))
    monkeypatch.setattr(run, "ceilings", lambda *given: LIMITS)
    monkeypatch.setitem(run.NEEDED, "growth", 1e6)
    found = run.bench(tiny.codec(), [(64, 64), (96, 64)], [(64, 64)], budget=0, compare=broken, deadline=Deadline(1e3),
                      save=lambda report: saved.append((len(report.sizes), len(report.errors))))  # fmt: skip
    assert found.sizes == [(64, 64), (96, 64)]
    assert saved == [(1, 0), (1, 1), (2, 1), (2, 1)]
    assert found.errors["ratios"].endswith("ZeroDivisionError: of the ratios")
    assert "broken" in found.errors["ratios"]
    assert found.not_measured["growth"].endswith("s were left, and it takes about 1000000")
    with pytest.MonkeyPatch.context() as late:
        late.setattr(run, "one_size", broken)
        found = run.bench(tiny.codec(), [(64, 64)], [], budget=0, compare=broken, deadline=Deadline(0))
    assert (found.sizes, found.ratios, found.errors) == ([], None, {})
    assert {"64x64", "ratios"} <= set(found.not_measured)


@pytest.mark.parametrize("config", [TINY, SD21_TINY])
def test_random_weights_in_memory_make_a_codec(config):
    codec = sodec.Codec(config.name, weights=drawn(config, CPU))
    data = codec.compress(scene(96, 64), 50)
    assert stages.Dissection(codec, data).z_hat[0].any()
    pixels = codec.decompress(data, output="torch")
    assert pixels.isfinite().all()
    assert 0.01 < pixels.std() < 1
    again = sodec.Codec(config.name, weights=drawn(config, CPU)).decompress(data, output="torch")
    assert torch.equal(pixels, again)


def test_nothing_that_is_prepared_leaves_the_device_of_the_weights(monkeypatch):
    """On a CPU: the device "meta" refuses operations with tensors of the CPU, as a GPU does."""
    model = empty(SD21_TINY)
    del model.scale_network
    model.one_step = (2.0, -1.5)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, torch.nn.Parameter(parameter.detach().to("meta"), requires_grad=False))
    model.alphas, model.gain = model.alphas.to("meta"), QualityGain(SD21_TINY).to("meta")
    prepare(model, torch.device("meta"), torch.bfloat16)
    assert {value.device.type for value in model.parameters()} == {"meta"}
