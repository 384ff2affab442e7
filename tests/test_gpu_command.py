"""benchmarks/gpu.py and gpu_kernels.py without a GPU: order, limits, and failures that must not stop the rest.

pytest tests/test_gpu_command.py
"""

import importlib
import json
import os
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch

from sodec.bench.clock import Deadline

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the benchmarks are not in the package")


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu")


@pytest.fixture
def gpu_kernels(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu_kernels")


@pytest.fixture
def kernel_checks(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("kernel_checks")


@pytest.fixture
def order(gpu, monkeypatch, tmp_path):
    """Lets `main` run with nothing measured and sd21 failing; a list that the names of its parts are added to."""
    done = []

    def measured(self, name, codec, extra):
        done.append(name)
        if name == "sd21":
            raise ZeroDivisionError("in sd21")

    def kernels(self, part, seconds):
        done.append(f"{part} kernels")
        return subprocess.Popen([sys.executable, "-c", ""])

    monkeypatch.setattr(gpu.Run, "measured", measured)
    monkeypatch.setattr(gpu.Run, "kernels", kernels)
    monkeypatch.setattr(gpu.Run, "codec", lambda self, name, weights: None)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--rehearse", "--out", str(tmp_path), "--seconds", "500"])
    return done


def test_a_part_that_fails_does_not_stop_the_others(gpu, order, tmp_path, capsys):
    assert gpu.main() == 1
    assert order == ["check kernels", "sd21", "lite", "time kernels"]
    assert json.loads((tmp_path / "errors.json").read_text())["sd21"].endswith("ZeroDivisionError: in sd21")
    assert "gpu: failed: sd21\n" in capsys.readouterr().err


def test_without_time_nothing_more_is_begun(gpu, order, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [*sys.argv[:-1], "5"])
    assert gpu.main() == 0
    assert order == ["check kernels"]
    assert "gpu: lite: not measured" in capsys.readouterr().err


def test_a_process_that_hangs_is_ended(gpu, order, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [*sys.argv[:-1], "1"])
    options = type("Options", (), {"seconds": 1.0, "rehearse": True, "out": tmp_path})
    run = gpu.Run(options)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    run.end("the test", process, -4.5)
    assert process.returncode < 0
    assert run.failed == ["the test"]


def test_the_pipeline_s_checks_run_on_a_cpu(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "gpu_pipeline.py"), "--rehearse", "--out", str(tmp_path)]
    run = subprocess.run([*command, "--seconds", "0"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads((tmp_path / "pipeline.json").read_text())
    assert found["checks"]
    assert all(check["right"] for check in found["checks"].values())
    assert "stages" in found["skipped"]


class Ends:
    """Ends the process that unpickles it."""

    def __reduce__(self):
        return os._exit, (3,)


def test_a_crash_costs_one_group_of_shapes(kernel_checks):
    case = ("geglu", "77", {"n": 77, "c": 130})
    (found,) = kernel_checks.in_a_process(([case], torch.float32, Ends()), Deadline(60))
    assert found == {"kernel": "geglu", "where": "77", "dtype": "float32", "wrong": "its process ended with code 3"}
    (found,) = kernel_checks.in_a_process(([case], torch.float32, "cpu"), Deadline(0))
    assert "not_checked" in found


def test_a_part_of_the_kernels_that_fails_does_not_stop_those_behind_it(gpu_kernels, monkeypatch, tmp_path, capsys):
    done = []

    def networks(*given):
        raise ZeroDivisionError("in the networks")

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(gpu_kernels.kernel_networks, "built", networks)
    monkeypatch.setattr(gpu_kernels.kernel_networks, "run_variants", lambda *given: done.append("variants"))
    monkeypatch.setattr(gpu_kernels.kernel_networks, "run_choices", lambda *given: done.append("choices"))
    for name in ("run_checks", "run_times", "run_compiled"):
        monkeypatch.setattr(gpu_kernels, name, lambda *given, _name=name: done.append(_name))
    monkeypatch.setattr(sys, "argv", ["gpu_kernels.py", "--rehearse", "--out", str(tmp_path / "new")])
    assert gpu_kernels.main() == 0
    assert done == ["run_checks", "run_times", "choices", "variants", "run_compiled"]
    report = json.loads((tmp_path / "new" / "kernels.json").read_text())
    assert report["not_measured"] == {"networks": "ZeroDivisionError: in the networks"}
    assert "0 wrong, 1 not measured" in capsys.readouterr().out


def test_networks_are_timed_with_each_kernel_and_without(gpu_kernels, monkeypatch):
    networks = gpu_kernels.kernel_networks
    monkeypatch.setattr(networks, "MODES", {"none": "torch", "channel_norm_act": "torch,channel_norm_act=triton"})
    report = {"not_measured": {}}
    modules, building = gpu_kernels.load(), Future()
    building.set_result(networks.built(True, modules.dispatch))
    gpu_kernels.run_networks(report, True, modules, Deadline(600), lambda: None, building)
    assert [(row["network"], row["kernels"]) for row in report["networks"]] == [
        (f"{name} 48x32", mode) for name in ("sd21", "lite") for mode in networks.MODES
    ]
    for plain, kernel in zip(report["networks"][::2], report["networks"][1::2], strict=True):
        assert plain["difference"] == 0
        assert 0 < kernel["difference"] < 1e-5
        assert kernel["ms"] > 0
        assert list(kernel["steps"]) == ["fidelity", "guidance", "transformation", "UNet", "latent decoder"]
    assert len(networks.networks_table(report["networks"]).splitlines()) == 2 + 4
    assert os.environ.get("SODEC_KERNELS") is None


def test_tile_sizes_that_fail_are_noted(gpu_kernels, monkeypatch):
    networks, report = gpu_kernels.kernel_networks, {"not_measured": {}}
    monkeypatch.setattr(
        networks, "VARIANTS", [("geglu", {"BLOCK_ROWS": 3}, ("",)), ("geglu", {"BLOCK_ROWS": 2}, ("",))]
    )
    launch = importlib.import_module("sodec.kernels.launch")
    config = launch.config
    case = ("geglu", "77", {"n": 7, "c": 13})

    def seconds(call, sets):
        call(*sets[0])
        return 1e-6

    networks.run_variants(
        report, [case], seconds, launch, gpu_kernels.load().dispatch,
        lambda case: [(torch.ones(7, 26),)], Deadline(600), lambda: None,
    )  # fmt: skip
    assert "error" in report["variants"][0], "a tile's side has to be a power of two"
    assert networks.variants_table(report["variants"]) == "geglu, 77: BLOCK_ROWS=3: failed; BLOCK_ROWS=2: 1.0"
    assert launch.config is config


def test_every_shape_is_in_a_group(kernel_checks):
    groups = kernel_checks.groups(kernel_checks.TIMED, rehearse=False)
    odd = sum(len(kernel_checks.dtypes(case[0])) for case in kernel_checks.ODD)
    assert sum(len(cases) for cases, _, _ in groups) == odd + len(kernel_checks.TIMED)
