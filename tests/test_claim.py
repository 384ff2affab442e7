"""benchmarks/claim.py: rivals make the same picture, and ratios are quotients of the report. No test depends on a time.

pytest tests/test_claim.py
"""

import json
import re
import sys
from pathlib import Path

import pytest
import tiny
import torch
from click.testing import CliRunner

import sodec
from sodec.bench import roofline, stages
from sodec.bench.clock import Deadline
from sodec.bench.machine import scene
from sodec.bench.random_weights import drawn
from sodec.bench.report import text
from sodec.models import SD21_TINY

CPU = torch.device("cpu")
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
PAGE = BENCHMARKS.parent / "docs" / "latency.md"
sys.path.append(str(BENCHMARKS))
claim, rivals = (pytest.importorskip(name, reason="benchmarks are not in the package") for name in ("claim", "rivals"))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The report of one run of the command."""
    file = tmp_path_factory.mktemp("claim") / "report.json"
    before = torch.get_num_threads()
    arguments = ["--weights", tiny.folder(), "--threads", 1, "--sizes", "96x64", "--growth", "", "--budget", 0]
    done = CliRunner().invoke(claim.main, [*map(str, [*arguments, "--json", file])])
    torch.set_num_threads(before)
    assert done.exit_code == 0, done.output
    report = json.loads(file.read_text(encoding="utf-8"))
    assert done.stdout == text([report])
    assert "emulated" in done.stdout
    return report


@pytest.fixture(scope="module", params=["tiny", "sd21"])
def codec(request, tmp_path_factory):
    """In float32, so that rivals differ only by rounding."""
    if request.param == "tiny":
        return sodec.Codec(weights=tiny.folder(), dtype="float32")
    pytest.importorskip("diffusers")
    folder = tmp_path_factory.mktemp("sd21")
    tiny.write_weights(folder, config=SD21_TINY)
    return sodec.Codec("sd21", weights=folder, dtype="float32")


@pytest.mark.parametrize("make", [rivals.plain, rivals.many_steps])
def test_rivals_make_the_same_picture(codec, make):
    """They have the same weights, and rivals of one step take the same step."""
    rival = make(codec)
    data = codec.compress(scene(96, 64), 50)
    ours = codec.decompress(data, output="torch")
    assert (rival.decompress(data, output="torch") - ours).abs().max() <= 1 / 255
    assert rival.model is not codec.model
    assert rival.model.one_step != codec.model.one_step, "the factors of the one step are not folded"


def test_plain_memory_is_contiguous():
    found = rivals.plain(tiny.codec())
    assert all(value.is_contiguous() for value in found.model.parameters())


def test_a_control_branch_costs_the_encoder_half_and_guidance_doubles(codec):
    plain = rivals.plain(codec)
    parts = stages.Dissection(plain, codec.compress(scene(96, 64), 50))
    unet, flow = plain.model.unet, parts.flows[0]
    at = torch.tensor([999])

    @torch.inference_mode()
    def cost(denoise):
        return roofline.count_flops(lambda: denoise(flow.l_t, at, flow.guidance, flow.noise))

    whole, half = cost(rivals.called(unet)), cost(rivals.ControlBranch(unet))
    assert 0.2 * whole < half < 0.9 * whole
    assert cost(rivals.controlled(unet, rivals.ControlBranch(unet))) == whole + half
    assert cost(rivals.guided(unet)) == 2 * whole
    with torch.inference_mode():
        inputs = flow.l_t, at, flow.guidance, flow.noise
        assert torch.equal(rivals.controlled(unet, rivals.ControlBranch(unet))(*inputs), rivals.called(unet)(*inputs))


def test_every_ratio_is_the_quotient_of_two_medians_of_the_report(report):
    found = report["ratios"]
    end, network, one, unet = (
        found[name]["median_s"] for name in ("end_to_end", "network", "decode_one_step", "unet_one_step")
    )
    assert found["unet_share"] == pytest.approx(unet / one)
    assert [step["steps"] for step in found["steps"]] == list(claim.STEPS)
    for step in found["steps"]:
        assert step["ratio_unet"] == pytest.approx(step["unet"]["median_s"] / unet)
        assert step["ratio_decode"] == pytest.approx(step["decode"]["median_s"] / one)
    assert found["engineering"]
    for rival in found["engineering"]:
        assert rival["ratio_end_to_end"] == pytest.approx(rival["end_to_end"]["median_s"] / end)
        assert rival["ratio_network"] == pytest.approx(rival["network"]["median_s"] / network)
    assert {(codec["steps"], "emulated" in codec["emulated"]) for codec in found["multi_step"]} == {
        (50, True), (20, True),
    }  # fmt: skip
    for codec in found["multi_step"]:
        assert codec["ratio"] == pytest.approx(codec["decode"]["median_s"] / end)
        assert codec["ratio_same_kernels"] == pytest.approx(codec["decode_same_kernels"]["median_s"] / end)


def test_the_page_documents_every_field(report):
    documented = set(re.findall(r"`(\w+)`", PAGE.read_text(encoding="utf-8")))
    ratios = report["ratios"]
    names = {
        name for part in [ratios, *ratios["steps"], *ratios["engineering"], *ratios["multi_step"]] for name in part
    }
    assert names - documented == set()


def test_with_little_time_ratios_leave_the_multi_step_codecs_out():
    codec = tiny.codec()
    found = claim.ratios(codec, codec.compress(scene(32, 32), 50), 32, 32, 0, Deadline(1))
    assert found.multi_step == []
    assert [step.steps for step in found.steps] == list(claim.STEPS)


def test_without_diffusers_the_plain_rival_is_ours_and_named_so(monkeypatch):
    codec = sodec.Codec("sd21", weights=drawn(SD21_TINY, CPU), dtype="float32")
    monkeypatch.setattr(rivals.importlib.util, "find_spec", lambda name: None)
    (name,) = rivals.rivals(codec)
    assert name == "plain PyTorch, eager, float32"
    data = codec.compress(scene(96, 64), 50)
    ours, theirs = (one.decompress(data, output="torch") for one in (codec, rivals.plain(codec)))
    assert (ours - theirs).abs().max() <= 1 / 255
