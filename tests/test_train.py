"""Training of the tiny configuration: every stage runs, resumes bit for bit, and exports weights that the codec reads.

pytest tests/test_train.py
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file
from tiny import photo, write_weights

pytest.importorskip("compressai", reason="needs the extra 'train'")

import sodec
from sodec.cli import main
from sodec.cli import train as train_commands
from sodec.errors import TrainingError
from sodec.models import SD21_TINY, TINY, SodecModel
from sodec.models.files import COUNT, TRAINING_FILE
from sodec.stream.container import read
from sodec.train import losses, optimise
from sodec.train.adversary import RAMP, SHARE, Adversary
from sodec.train.checkpoint import _as_installed, export, parts_of, restore
from sodec.train.data import Ahead, Crops, OnDevice, cut, cut_on_device, load_pictures
from sodec.train.optimise import STATISTICS, Average, Gradients, learning_rate, take_statistics
from sodec.train.options import Options
from sodec.train.parts import Parts
from sodec.train.run import train
from sodec.train.stages import DECODER, RECIPES, STAGES, Batch, Judged, Outcome, lowest_quality, stage_for
from sodec.train.state import State

BUNDLED = Path(__file__).parents[1] / "sodec" / "weights" / "lite"  # a wheel has nothing to train on from


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(3):
        Image.fromarray(photo(160, 140, number)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")

    def call(stage, out, **options):
        defaults = {"cache": cache, "model": "tiny", "batch": 2, "size": 64, "steps": 3}
        return train(stage, Options(data, out, **{**defaults, **options}))

    return call


@pytest.fixture(scope="module")
def chain(run, tmp_path_factory):
    """A checkpoint of every stage, each from the ones before."""
    out = tmp_path_factory.mktemp("chain")
    paths = {}
    paths["compression"] = run("compression", out)
    paths["warm-up"] = run("warm-up", out, start=(paths["compression"],))
    paths["annealing"] = run("annealing", out, start=(paths["warm-up"],))
    return paths


def parameters(path):
    """The averaged weights, as later stages and the export use them."""
    return parts_of(path)[0].state_dict()


@pytest.mark.parametrize("stage", ["compression", "warm-up", "annealing"])
def test_a_stage_moves_its_parts_and_no_other(stage, chain):
    start = {"compression": None, "warm-up": "compression", "annealing": "warm-up"}[stage]
    torch.manual_seed(0)
    before = parameters(chain[start]) if start else Parts(TINY).state_dict()
    after = parameters(chain[stage])
    names = [name for name, _ in Parts(TINY).named_parameters()]
    moved = {part(name) for name in names if not torch.equal(before[name], after[name])}
    expected = set(stage_for(stage, TINY).trains)
    assert moved <= expected
    assert expected - moved <= {"gain"}  # three steps may leave a gain where it was


def part(name):
    first, second = name.split(".")[:2]
    return first if first == "prior" else second


def test_pieces_equal_one_run(run, tmp_path):
    whole = run("compression", tmp_path / "whole", steps=4)
    for _ in range(20):
        pieces = run("compression", tmp_path / "pieces", steps=4, max_minutes=0.0001)
    assert torch.load(pieces, weights_only=True)["step"] == 4
    same(whole, pieces)


def same(one, other):
    one, other = (torch.load(path, weights_only=True) for path in (one, other))
    for kind in ("parts", "average"):
        for name, value in one[kind].items():
            assert torch.equal(value, other[kind][name]), name


def test_sigterm_saves_and_the_run_goes_on_as_if_nothing_had_been(run, data, tmp_path):
    """A separate process gets the signal; its checkpoint is continued here and compared with an uninterrupted run."""
    command = [
        sys.executable, "-m", "sodec", "train", "compression", "--data", data, "--out", tmp_path / "ended",
        "--cache", tmp_path / "cache", "--model", "tiny", "--batch", 2, "--size", 64, "--steps", 40, "--threads", 1,
    ]  # fmt: skip
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    process = subprocess.Popen(list(map(str, command)), **quiet)
    log = tmp_path / "ended" / "compression.jsonl"
    for _ in range(600):
        if log.exists():  # the first step is done
            break
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    checkpoint = tmp_path / "ended" / "compression.pt"
    assert 0 < torch.load(checkpoint, weights_only=True)["step"] < 40
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        same(*(run("compression", tmp_path / out, steps=40) for out in ("ended", "whole")))
    finally:
        torch.set_num_threads(threads)


def test_a_full_disk_leaves_the_last_good_checkpoint(run, tmp_path, monkeypatch):
    path = run("compression", tmp_path, steps=1)
    good = path.read_bytes()

    def full(state, beside):
        beside.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match="No space left"):
        run("compression", tmp_path, steps=2)
    assert path.read_bytes() == good
    assert not list(tmp_path.glob("*.tmp"))


def test_adapters_train_the_unet_and_are_merged(chain, run, tmp_path):
    path = run("warm-up", tmp_path, start=(chain["compression"],), lora_rank=2)
    saved = torch.load(path, weights_only=True)
    assert any("lora_A" in name for name in saved["parts"])
    parts, touched = parts_of(path)
    assert "unet" in touched
    before = parameters(chain["compression"])
    changed = parts.state_dict()
    assert changed.keys() == before.keys()
    assert not torch.equal(changed["model.unet.enter.layer.weight"], before["model.unet.enter.layer.weight"])
    assert torch.equal(changed["model.unet.leave.weight"], before["model.unet.leave.weight"])
    with pytest.raises(TrainingError, match="rank 0"):
        run("warm-up", tmp_path, lora_rank=0)


def test_the_critic_learns_and_leaves_the_coding_alone(chain, run, tmp_path):
    pytest.importorskip("stlpips_pytorch")
    path = run("adversarial", tmp_path, start=(chain["annealing"],), size=96)
    saved, before = torch.load(path, weights_only=True), parameters(chain["annealing"])
    assert saved["critic"] is not None
    line = json.loads((tmp_path / "adversarial.jsonl").read_text().splitlines()[0])
    assert {"deceit", "critic"} <= line.keys()
    assert saved["critic"]["steps"] == 3
    for name, value in saved["parts"].items():
        if part(name) not in DECODER:
            assert torch.equal(value, before[name]), name


def test_two_processes_share_a_step(data, tmp_path):
    """The first process writes for both; each draws different pictures."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, "-m", "sodec", "train",
        "compression", "--data", data, "--out", tmp_path, "--model", "tiny", "--batch", 2, "--size", 64, "--steps", 3,
        "--threads", 1,
    ]  # fmt: skip
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    saved = torch.load(tmp_path / "compression.pt", weights_only=True)
    assert saved["step"] == 3
    assert len(saved["random"]) == 2
    crops = [state["crops"]["state"] for state in saved["random"]]
    assert crops[0] != crops[1]


def test_quality_widens_downwards():
    plan = STAGES["annealing"]
    assert [lowest_quality(plan, progress) for progress in (0, 0.25, 0.5, 1)] == [40, 20.5, 1, 1]


def test_the_average_starts_near_the_weights_and_follows_slowly():
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(module.weight)
    average = Average(module, 0.9)
    torch.nn.init.ones_(module.weight)
    average.update(1)
    assert average.values["weight"].item() == pytest.approx(1 - 2 / 11)
    for step in range(1000, 1010):
        average.update(step)
    assert average.values["weight"].item() == pytest.approx(1 - 2 / 11 * 0.9**10)


def test_files_that_are_no_pictures_are_counted(data, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "good.png").write_bytes((data / "0.png").read_bytes())
    for name in ("bad.jpg", "worse.webp"):
        (folder / name).write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="2 files"):
        assert len(load_pictures(folder, tmp_path / "cache")) == 1


def test_crops_made_ahead_are_the_same_crops(data, tmp_path):
    pictures = load_pictures(data, tmp_path)
    ahead = Ahead(Crops(pictures, 3), 2, 64)
    taken = [ahead.take() for _ in range(3)]
    state = ahead.state
    ahead.close()
    plain = Crops(pictures, 3)
    for batch in taken:
        assert torch.equal(batch, plain.batch(2, 64))
    assert plain.random.bit_generator.state == state


def test_a_device_cuts_the_crops_that_threads_cut(data, tmp_path):
    """All but those that are reduced, which it does by another filter."""
    pictures = load_pictures(data, tmp_path)
    crops, size = Crops(pictures, 5).draw(40, 128)
    device = Crops(pictures, 5)
    on_device = OnDevice(device, 40, 128, torch.device("cpu"))
    same, other = cut(crops, size), on_device.take()
    assert other.is_contiguous(memory_format=torch.channels_last)
    reduced = torch.tensor([crop.side > size for crop in crops])
    assert 0 < reduced.sum() < len(crops)
    assert torch.equal(same[~reduced], other[~reduced])
    assert (same[reduced].float() - other[reduced].float()).abs().mean() < 2
    small = [crop._replace(picture=torch.tensor(crop.picture), side=100, top=0, left=0) for crop in crops[:2]]
    wanted = cut([crop._replace(picture=crop.picture.numpy()) for crop in small], 128)
    assert torch.equal(cut_on_device(small, 128), wanted)
    assert on_device.state == device.random.bit_generator.state


def test_the_bundled_weights_can_be_trained_on_whatever_compressai_is_installed():
    """Its versions name the tensors of the prior's layers in two ways."""
    tensors = {"prior.matrices.0": 1, "prior.biases.3": 2, "prior._factor2": 3, "prior.quantiles": 4}
    old = {f"prior._{kind}{i}" for kind in ("matrix", "bias", "factor") for i in range(5)}
    new = {f"prior.{kind}.{i}" for kind in ("matrices", "biases", "factors") for i in range(5)}
    assert _as_installed(tensors, old).keys() == {"prior._matrix0", "prior._bias3", "prior._factor2", "prior.quantiles"}
    assert _as_installed(tensors, new).keys() == {
        "prior.matrices.0",
        "prior.biases.3",
        "prior.factors.2",
        "prior.quantiles",
    }
    restore(BUNDLED)


def test_a_coding_that_no_stage_trains_is_exported_as_it_was(chain, run, tmp_path):
    """Through two stages, one of which is taken up again; once it is trained, it is another."""
    before = export(chain["annealing"], tmp_path / "before")
    decoder = run("decoder", tmp_path, start=(tmp_path / "before",), size=96, max_minutes=0.0001)
    decoder = run("decoder", tmp_path, start=(tmp_path / "before",), size=96)
    again = run("decoder", tmp_path / "again", start=(decoder,), size=96)
    after = export(again, tmp_path / "after")
    assert after.fingerprint == before.fingerprint
    assert after.version != before.version
    assert (tmp_path / "after" / "coding.safetensors").read_bytes() == (
        tmp_path / "before" / "coding.safetensors"
    ).read_bytes()
    trained = run("annealing", tmp_path, start=(again,))
    assert export(trained, tmp_path / "trained").fingerprint != before.fingerprint


def test_the_log_has_every_part_of_the_loss(chain):
    lines = (chain["annealing"].parent / "annealing.jsonl").read_text().splitlines()
    assert {"step", "seconds", "loss", "bpp", "mse", "mse_f"} <= json.loads(lines[0]).keys()


def test_an_exported_model_codes_and_decodes(chain, tmp_path):
    bundle = export(chain["annealing"], tmp_path)
    codec = sodec.Codec(weights=tmp_path)
    data = codec.compress(photo(100, 70), 60)
    assert codec.decompress(data, output="numpy").shape == (70, 100, 3)
    assert read(data).fingerprint == bundle.fingerprint


@pytest.mark.parametrize("pieces", [False, True])
def test_the_statistics_of_batch_norms_are_frozen_in_the_last_third(pieces, chain, run, tmp_path):
    for _ in range(20 if pieces else 1):
        path = run("annealing", tmp_path, start=(chain["warm-up"],), max_minutes=0.0001 if pieces else 60, steps=6)
    saved = torch.load(path, weights_only=True)
    assert saved["step"] == 6
    assert saved["frozen"]
    name = "model.unet.enter.bn.running_var"
    assert not torch.equal(saved["parts"][name], parameters(chain["warm-up"])[name])
    batches = saved["parts"]["model.unet.enter.bn.num_batches_tracked"]
    assert batches == STATISTICS, "none since they were frozen"
    if pieces:
        same(path, run("annealing", tmp_path / "whole", start=(chain["warm-up"],), steps=6))


def test_statistics_are_those_of_what_is_shown():
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm2d(3, momentum=0.02)
    shown = torch.randn(4, 8, 3, 5, 5) * 2 + 7
    take_statistics([norm], lambda: [norm(x) for x in shown] and None)
    torch.testing.assert_close(norm.running_mean, shown.mean((0, 1, 3, 4)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(norm.running_var, shown.var((1, 3, 4)).mean(0), rtol=1e-4, atol=1e-4)
    assert (norm.training, norm.momentum) == (False, 0.02)
    before = norm.running_mean.clone()
    norm(shown[0] + 100)
    assert torch.equal(norm.running_mean, before)


class OneRatio(Adversary):
    """An adversary that learns nothing."""

    def __init__(self):
        self.critic = SimpleNamespace(ratio=torch.ones(()), steps=torch.zeros(()))

    def learn(self, x, decoded, y_hat):
        self.critic.steps += 1
        return torch.zeros(())


def test_the_critics_gradient_gets_its_share_whatever_its_size():
    """Ten times the loss of the critic changes nothing, once the running ratio has settled."""
    torch.manual_seed(0)
    found = []
    for factor in (1.0, 10.0):
        weight = torch.nn.Parameter(torch.ones(1, 3, 8, 8))

        def objective(batch, factor=factor, weight=weight):
            x = batch.x * weight
            return Outcome((x**2).mean(), {}, x.detach(), x.detach(), Judged(x, [], factor * x.mean()))

        accelerator = SimpleNamespace(clip_grad_norm_=lambda parameters, norm: torch.zeros(()))
        gradients = Gradients(objective, accelerator, [weight], Batch, graphs=False, adversary=OneRatio())
        x = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
        gradients(x, torch.ones(1))
        alone = torch.full_like(weight, 2 / weight.numel())
        torch.testing.assert_close(weight.grad, alone, rtol=1e-3, atol=0)  # an untaught critic says nothing
        for _ in range(2 * RAMP):
            gradients(x, torch.ones(1))
        found.append(weight.grad.clone())
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=0)
    torch.testing.assert_close(found[0], alone * (1 + SHARE), rtol=1e-3, atol=0)


def test_graphs_that_are_forgotten_take_their_pool_with_them(monkeypatch):
    """PyTorch can't capture into a pool whose graphs are all gone: the first run on a GPU ended there."""
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    pools = []
    monkeypatch.setattr(optimise, "Captured", lambda function, inputs, pool: pools.append(pool) or (lambda *_: ([],)))
    gradients = Gradients(torch.nn.Identity(), None, [], Batch, graphs=True)
    for size in (8, 9):
        gradients._graphs[torch.Size([1, 3, size, size])] = None
        gradients.reset()
    x = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    gradients._names = []
    for _ in range(2):
        with pytest.raises(KeyError, match="loss"):
            gradients(x, torch.ones(1))
        gradients.reset()
    assert len({id(pool) for pool in pools}) == 2


def test_steps_as_graphs_leave_the_gradients_of_eager_steps(chain, data, tmp_path, monkeypatch):
    """Without a GPU a graph is a call; what it does with gradients, which it must zero where they are, is the same."""
    pytest.importorskip("stlpips_pytorch")
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(optimise, "Captured", lambda function, inputs, pool: function)
    options = Options(data, tmp_path, model="tiny", steps=1, batch=2, size=96, start=(chain["annealing"],))
    found = []
    for graphs in (False, True):
        state = State(stage_for("adversarial", TINY), tmp_path / "none.pt", options)
        gradients = Gradients(
            state.gradients.objective, state.accelerator, state.parameters, state._batch, graphs, state.adversary
        )
        torch.manual_seed(7)
        for _ in range(3):
            outcome = gradients(torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8), torch.tensor([9.0, 70.0]))
        assert {"loss", "mse", "deceit", "critic", "gradient"} <= outcome.values.keys()
        grads = [p.grad.clone() for p in [*state.parameters, *state.adversary.trained] if p.grad is not None]
        found.append([*grads, *outcome.values.values()])
    assert len(found[0]) == len(found[1])
    for eager, replayed in zip(*found, strict=True):
        torch.testing.assert_close(eager, replayed, rtol=1e-4, atol=1e-6)


def test_pictures_are_moved_alike():
    torch.manual_seed(0)
    x = torch.rand(6, 3, 80, 112)
    a, b = losses.moved_alike(x, x, 64)
    assert a.shape == (6, 3, 64, 64)
    assert torch.equal(a, b)
    other, _ = losses.moved_alike(x, x, 64)
    assert not torch.equal(a, other)


@pytest.fixture(scope="module")
def sd21(run, tmp_path_factory):
    """Checkpoints of `sd21` at reduced width, begun as `sodec init` does: from a folder without a prior."""
    out = tmp_path_factory.mktemp("sd21")
    write_weights(out / "start", config=SD21_TINY)
    state = SodecModel(SD21_TINY).scale_network.state_dict()
    save_file(
        {f"model.scale_network.{name}": t.contiguous() for name, t in state.items()}, out / "start" / TRAINING_FILE
    )
    options = {"model": "sd21-tiny", "steps": 1, "lora_rank": 2}
    paths = {"start": out / "start"}
    paths["compression"] = run("compression", out, **{**options, "lora_rank": 0}, start=(paths["start"],))
    paths["warm-up"] = run("warm-up", out, **options, start=(paths["start"], paths["compression"]))
    paths["annealing"] = run("annealing", out, **options, start=(paths["warm-up"],))
    return paths


@pytest.mark.parametrize(
    ("stage", "before"), [("compression", "start"), ("warm-up", "compression"), ("annealing", "warm-up")]
)
def test_sd21_trains_by_configuration_and_keeps_what_is_public(stage, before, sd21):
    former = restore(sd21["start"]).state_dict() if before == "start" else parameters(sd21[before])
    after = parameters(sd21[stage])
    moved = {part(name) for name in former if not torch.equal(former[name], after[name])} - {"prior"}
    assert moved <= set(STAGES[stage].trains) - {"vit", "latent_decoder"}
    assert "fidelity" in moved if stage == "compression" else {"unet", "transform", "projection"} <= moved


def test_the_critic_judges_pictures_of_16_bits_too(sd21, run, tmp_path):
    """D_m of `sd21` gives bfloat16 where the processor has it."""
    pytest.importorskip("stlpips_pytorch")
    path = run("adversarial", tmp_path, model="sd21-tiny", steps=1, size=96, start=(sd21["warm-up"],))
    assert torch.load(path, weights_only=True)["step"] == 1


def test_trained_sd21_is_exported_and_codes(sd21, tmp_path):
    export(sd21["annealing"], tmp_path)
    codec = sodec.Codec("sd21", weights=tmp_path)
    assert codec.decompress(codec.compress(photo(40, 70)), output="numpy").shape == (70, 40, 3)


def test_export_on_the_command_line(chain, tmp_path):
    done = CliRunner().invoke(main, ["export", str(chain["annealing"]), str(tmp_path / "weights")])
    assert done.exit_code == 0, done.output
    assert sodec.Codec(weights=tmp_path / "weights").bundle.fingerprint.hex() in done.output
    done = CliRunner().invoke(main, ["export", str(tmp_path / "none.pt"), str(tmp_path / "other")])
    assert done.exit_code == 2
    assert not (tmp_path / "other").exists()


def test_an_export_that_fails_leaves_the_weights_there_were(chain, tmp_path, monkeypatch):
    before = export(chain["warm-up"], tmp_path)
    whole, written = Path.write_bytes, []

    def full(path, content):
        written.append(path)
        if len(written) == 3:
            raise OSError(28, "No space left on device", str(path))
        return whole(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        export(chain["annealing"], tmp_path)
    assert sodec.Codec(weights=tmp_path).bundle.fingerprint == before.fingerprint
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.slow
def test_all_stages_as_one_command_in_pieces(data, tmp_path):
    """The codec reads the final weights, which are the same with and without an interruption."""
    pytest.importorskip("stlpips_pytorch")
    command = ["train", "all", "--data", data, "--model", "tiny", "--batch", 2, "--size", 64, "--steps", 20]
    printed = {}
    for name, stopped in (("whole", 0), ("pieces", 2)):
        for limit in [0.0001] * stopped + [60]:
            arguments = [*map(str, [*command, "--out", tmp_path / name, "--max-minutes", limit])]
            done = CliRunner().invoke(main, arguments)
            assert done.exit_code == 0, done.output
            printed[name] = Path(done.stdout.splitlines()[-1])
            assert printed[name].name == ("weights" if limit == 60 else "compression.pt")
    codecs = [sodec.Codec(weights=path) for path in printed.values()]
    assert codecs[0].bundle.fingerprint == codecs[1].bundle.fingerprint
    data = codecs[0].compress(photo(100, 70), 60)
    assert codecs[1].decompress(data, output="numpy").shape == (70, 100, 3)


def test_training_goes_on_from_an_exported_model(chain, run, tmp_path):
    export(chain["annealing"], tmp_path / "weights")
    before, after = parameters(chain["annealing"]), restore(tmp_path / "weights").state_dict()
    for name, value in before.items():
        if name.endswith(COUNT):
            continue
        exact = name.startswith(("prior", "model.scale_network"))
        torch.testing.assert_close(after[name], value, rtol=0 if exact else 1e-3, atol=0 if exact else 1e-6)
    run("annealing", tmp_path / "on", start=(tmp_path / "weights",))
    (tmp_path / "weights" / "train.safetensors").unlink()
    with pytest.raises(TrainingError, match=r"train\.safetensors"):
        restore(tmp_path / "weights")


def test_training_estimates_the_bytes_that_the_codec_writes(chain, tmp_path):
    """Same weights, same picture: the likelihood of training against the exported coder's bytes."""
    export(chain["annealing"], tmp_path)
    picture = photo(512, 512)
    data = sodec.Codec(weights=tmp_path).compress(picture, 80)
    torch.manual_seed(0)
    parts = Parts(TINY)
    parts.load_state_dict(parameters(chain["annealing"]))
    x = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        estimates = [float(parts.code(x, torch.tensor([80.0])).bpp) for _ in range(8)]
    written = len(read(data).payloads[0]) * 8 / 512**2
    # Noise in place of rounding makes small symbols look dearer; training for minutes can't bring both within 1 %.
    assert written == pytest.approx(np.mean(estimates), rel=0.15)


def test_integer_scale_network_is_the_trained_one(chain):
    from sodec import _native

    parts = Parts(TINY)
    parts.load_state_dict(parameters(chain["annealing"]))
    network = parts.model.scale_network
    z = torch.randint(-40, 41, (1, TINY.z_channels, 5, 7))
    native = _native.ScaleNetwork([(*layer,) for layer in network.export()])
    pixels = np.ascontiguousarray(z[0].permute(1, 2, 0).numpy().astype(np.int16))
    integer = native.indexes(pixels, np.zeros(TINY.y_channels, np.int32))
    with torch.no_grad():
        trained = torch.floor(network(z.float()) + 0.5).clamp(0, 63)[0].permute(1, 2, 0).numpy()
    # Multipliers are rounded to 30 bits, so a tie may fall the other way once in thousands.
    assert (integer != trained).mean() < 0.002


def test_lambdas_and_learning_rate():
    weights = losses.lambdas(torch.tensor([1.0, 50.5, 100.0]))
    expected = [losses.LAMBDA_LOW, (losses.LAMBDA_LOW * losses.LAMBDA_HIGH) ** 0.5, losses.LAMBDA_HIGH]
    np.testing.assert_allclose(weights, expected, rtol=1e-5)
    plan = STAGES["finish"]
    assert learning_rate(plan, 0, 0) == pytest.approx(plan.learning_rate / 100)
    assert learning_rate(plan, 1000, 0) == pytest.approx(plan.learning_rate)
    assert learning_rate(plan, 1000, 1) == pytest.approx(plan.learning_rate * plan.final)


def test_crops_are_drawn_from_the_pictures_and_resume(data, tmp_path):
    pictures = load_pictures(data, tmp_path)
    crops = Crops(pictures, 0)
    crops.batch(2, 64)
    state = crops.random.bit_generator.state
    a = crops.batch(3, 64)
    crops.random.bit_generator.state = state
    assert torch.equal(a, crops.batch(3, 64))
    assert a.shape == (3, 3, 64, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stage": "nap"}, "'nap'"),
        ({"model": "huge"}, "'huge'"),
        ({"steps": None}, "steps or minutes"),
        ({"minutes": 1.0}, "steps or minutes"),
    ],
)
def test_bad_options_are_named(run, tmp_path, options, message):
    stage = options.pop("stage", "compression")
    with pytest.raises(TrainingError, match=message):
        run(stage, tmp_path, **options)


def test_empty_folder_and_foreign_checkpoint_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match="empty"):
        load_pictures(tmp_path / "empty", tmp_path / "cache")
    torch.save({"parts": {}, "model": "tiny"}, tmp_path / "other.pt")
    with pytest.raises(TrainingError, match=r"other\.pt"):
        export(tmp_path / "other.pt", tmp_path / "out")


class Payload:
    """Pickled, it is a call of `os.mkdir`: a new folder shows that unpickling ran code."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("place", ["alone", "parts", "random", "config"])
@pytest.mark.parametrize("reader", ["export", "start", "resume"])
def test_a_checkpoint_that_carries_code_is_refused_and_not_run(place, reader, chain, run, tmp_path):
    state = torch.load(chain["compression"], weights_only=True)
    payload = Payload(tmp_path / "pwned")
    path = tmp_path / "compression.pt"
    torch.save(payload if place == "alone" else {**state, place: payload}, path)
    read = {
        "export": lambda: export(path, tmp_path / "out"),
        "start": lambda: run("annealing", tmp_path, start=(path,)),
        "resume": lambda: run("compression", tmp_path),
    }[reader]
    with pytest.raises(TrainingError, match=r"compression\.pt is not a checkpoint"):
        read()
    assert not (tmp_path / "pwned").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"name": "tiny"}},
        {"config": ["tiny"]},
        {"parts": {}},
        {"parts": None},
        {"lora": "two"},
        {"average": [1, 2]},
        {"touched": 7},
    ],
)
def test_a_checkpoint_whose_fields_do_not_fit_is_named(change, chain, run, tmp_path):
    path = tmp_path / "compression.pt"
    torch.save({**torch.load(chain["compression"], weights_only=True), **change}, path)
    with pytest.raises(TrainingError, match=r"compression\.pt"):
        export(path, tmp_path / "out")


@pytest.mark.parametrize(
    "change", [{"optimizer": {}}, {"random": [None]}, {"parts": {}}, {"step": None}, {"config": 1}]
)
def test_a_run_does_not_go_on_from_a_checkpoint_that_does_not_fit(change, chain, run, tmp_path):
    path = tmp_path / "compression.pt"
    torch.save({**torch.load(chain["compression"], weights_only=True), **change}, path)
    with pytest.raises(TrainingError, match=r"compression\.pt"):
        run("compression", tmp_path)


def test_help_lists_the_stages_and_needs_no_extra():
    code = (
        "import sys; sys.modules['compressai'] = sys.modules['accelerate'] = None\n"
        "from sodec.cli import main; main(sys.argv[1:])"
    )
    done = [
        subprocess.run([sys.executable, "-c", code, "train", *rest], capture_output=True, text=True)
        for rest in (["--help"], ["all", "--data", "x", "--out", "y"])
    ]
    assert done[0].returncode == 0, done[0].stderr
    words = done[0].stdout.replace(",", " ").split()
    assert set(STAGES) <= set(words)
    steps = RECIPES["all"]
    assert [step.stage for step in steps] == [word for word in words if word in STAGES][: len(steps)]
    assert RECIPES.keys() == set(train_commands.RECIPES) <= set(words)
    assert done[1].returncode == 2
    assert "pip install 'sodec[train]'" in done[1].stderr
    assert "Traceback" not in done[1].stderr


@pytest.mark.parametrize(
    ("recipe", "rest", "named"),
    [
        ("all", ["--learning-rate", "0.1"], "--learning-rate"),
        ("all", ["--start", "weights"], "--start"),
        ("picture", ["--start", "weights", "--final", "0.1"], "--final"),
        ("picture", [], "--start"),
    ],
)
def test_options_that_a_recipe_does_not_take_are_refused(recipe, rest, named, data, tmp_path):
    arguments = ["train", recipe, "--data", str(data), "--out", str(tmp_path), "--model", "tiny", "--steps", "8"]
    done = CliRunner().invoke(main, [*arguments, *rest])
    assert done.exit_code == 2
    assert named in done.output


@pytest.mark.slow
def test_a_better_picture_from_the_same_streams(chain, data, tmp_path):
    """The recipe `picture`, stopped once within each stage: its weights decode the streams of those before."""
    pytest.importorskip("stlpips_pytorch")
    export(chain["annealing"], tmp_path / "before")
    command = ["train", "picture", "--data", data, "--model", "tiny", "--batch", 2, "--size", 64, "--steps", 20,
               "--start", tmp_path / "before", "--out", tmp_path / "run"]  # fmt: skip
    for limit in (0.0001, 60):
        done = CliRunner().invoke(main, [*map(str, command), "--max-minutes", str(limit)])
        assert done.exit_code == 0, done.output
    before, after = (sodec.Codec(weights=tmp_path / name) for name in ("before", "run/weights"))
    stream = before.compress(photo(100, 70), 60)
    assert before.bundle.fingerprint == after.bundle.fingerprint
    pictures = [codec.decompress(stream, output="numpy") for codec in (before, after)]
    assert not np.array_equal(*pictures)


def test_nan_stops_with_the_parts_of_the_loss(monkeypatch, run, tmp_path):
    def broken(parts, batch):
        loss = sum(p.sum() for p in parts.model.analysis.parameters()) * float("nan")
        return Outcome(loss, {"mse_f": loss})

    from sodec.train import stages as module

    stage = STAGES["compression"]
    monkeypatch.setitem(module.STAGES, "compression", type(stage)(broken, stage.trains, 1e-3, 0.1))
    with pytest.raises(TrainingError, match="mse_f"):
        run("compression", tmp_path)


def test_the_learned_perceptual_term_reaches_the_weights():
    pytest.importorskip("stlpips_pytorch")
    x = torch.rand(2, 3, 96, 96, requires_grad=True)
    loss = losses.make_perceptual(crops=1, size=64)(x, torch.rand(2, 3, 96, 96))
    assert loss.shape == (1,)
    loss.sum().backward()
    assert loss > 0
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().sum() > 0
    assert Batch(x, torch.ones(2), None).perceptual is None
