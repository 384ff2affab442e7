"""Training of the tiny configuration: every stage runs and resumes bit for bit, and the commands are what they say.

pytest tests/test_train.py
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from tiny import photo, write_weights

pytest.importorskip("compressai", reason="needs the extra 'train'")

from training import chain, parameters, pictures, run

import sodec
from sodec.cli import main
from sodec.cli import train as train_commands
from sodec.errors import TrainingError
from sodec.models import SD21_TINY, TINY, SodecModel
from sodec.models.files import TRAINING_FILE
from sodec.train import optimise
from sodec.train.checkpoint import export, parts_of, restore
from sodec.train.optimise import STATISTICS, Gradients
from sodec.train.options import Options
from sodec.train.parts import Parts
from sodec.train.stages import DECODER, RECIPES, STAGES, Outcome, stage_for
from sodec.train.state import State


@pytest.fixture(scope="module")
def data():
    return pictures()


@pytest.fixture(name="chain", scope="module")
def chain_of_stages():
    return chain()


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


def test_pieces_equal_one_run(tmp_path):
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


def test_sigterm_saves_and_the_run_goes_on_as_if_nothing_had_been(data, tmp_path):
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


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
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


def test_adapters_train_the_unet_and_are_merged(chain, tmp_path):
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


def test_the_critic_learns_and_leaves_the_coding_alone(chain, tmp_path):
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


def test_the_log_has_every_part_of_the_loss(chain):
    lines = (chain["annealing"].parent / "annealing.jsonl").read_text().splitlines()
    assert {"step", "seconds", "loss", "bpp", "mse", "mse_f"} <= json.loads(lines[0]).keys()


@pytest.mark.parametrize("pieces", [False, True])
def test_the_statistics_of_batch_norms_are_frozen_in_the_last_third(pieces, chain, tmp_path):
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


@pytest.fixture(scope="module")
def sd21(tmp_path_factory):
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


def test_the_critic_judges_pictures_of_16_bits_too(sd21, tmp_path):
    """D_m of `sd21` gives bfloat16 where the processor has it."""
    pytest.importorskip("stlpips_pytorch")
    path = run("adversarial", tmp_path, model="sd21-tiny", steps=1, size=96, start=(sd21["warm-up"],))
    assert torch.load(path, weights_only=True)["step"] == 1


def test_trained_sd21_is_exported_and_codes(sd21, tmp_path):
    export(sd21["annealing"], tmp_path)
    codec = sodec.Codec("sd21", weights=tmp_path)
    assert codec.decompress(codec.compress(photo(40, 70)), output="numpy").shape == (70, 40, 3)


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stage": "nap"}, "'nap'"),
        ({"model": "huge"}, "'huge'"),
        ({"steps": None}, "steps or minutes"),
        ({"minutes": 1.0}, "steps or minutes"),
    ],
)
def test_bad_options_are_named(tmp_path, options, message):
    stage = options.pop("stage", "compression")
    with pytest.raises(TrainingError, match=message):
        run(stage, tmp_path, **options)


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


def test_nan_stops_with_the_parts_of_the_loss(monkeypatch, tmp_path):
    def broken(parts, batch):
        loss = sum(p.sum() for p in parts.model.analysis.parameters()) * float("nan")
        return Outcome(loss, {"mse_f": loss})

    from sodec.train import stages as module

    stage = STAGES["compression"]
    monkeypatch.setitem(module.STAGES, "compression", type(stage)(broken, stage.trains, 1e-3, 0.1))
    with pytest.raises(TrainingError, match="mse_f"):
        run("compression", tmp_path)
