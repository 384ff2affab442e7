"""Training on the tiny configuration: every stage runs, resumes bit for bit, and exports what the codec reads.

pytest tests/test_train.py
"""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import photo

pytest.importorskip("compressai", reason="needs the extra 'train'")

import sodec
from sodec.container import read
from sodec.errors import TrainingError
from sodec.models import TINY
from sodec.train import losses
from sodec.train.data import Crops, load_pictures
from sodec.train.export import export, restore
from sodec.train.parts import Parts
from sodec.train.run import learning_rate, train
from sodec.train.stages import STAGES, Batch


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
        return train(stage, data, cache, out, **{"model": "tiny", "batch": 2, "size": 64, "steps": 3, **options})

    return call


@pytest.fixture(scope="module")
def chain(run, tmp_path_factory):
    """A checkpoint of every stage, each from the ones before."""
    out = tmp_path_factory.mktemp("chain")
    paths = {}
    paths["autoencoder"] = run("autoencoder", out)
    paths["denoiser"] = run("denoiser", out, start=(paths["autoencoder"],))
    paths["compression"] = run("compression", out)
    paths["warm-up"] = run("warm-up", out, start=(paths["compression"], paths["denoiser"]))
    paths["annealing"] = run("annealing", out, start=(paths["warm-up"],))
    return paths


def parameters(path):
    return torch.load(path, weights_only=False)["parts"]


@pytest.mark.parametrize("stage", ["autoencoder", "denoiser", "compression", "warm-up", "annealing"])
def test_a_stage_moves_its_parts_and_no_other(stage, chain):
    start = {
        "autoencoder": None, "compression": None, "denoiser": "autoencoder", "warm-up": "compression",
        "annealing": "warm-up",
    }[stage]  # fmt: skip
    torch.manual_seed(0)
    before = parameters(chain[start]) if start else Parts(TINY).state_dict()
    after = parameters(chain[stage])
    names = [name for name, _ in Parts(TINY).named_parameters()]
    moved = {part(name) for name in names if not torch.equal(before[name], after[name])}
    expected = set(STAGES[stage].trains)
    if stage == "warm-up":  # it also takes what the denoiser's checkpoint has
        moved -= {"vit", "latent_decoder", "latent_encoder"}
    assert moved <= expected
    assert expected - moved <= {"gain"}  # three steps may leave a gain where it was


def part(name):
    first, second = name.split(".")[:2]
    return first if first in ("prior", "latent_encoder") else second


def test_pieces_equal_one_run(run, tmp_path):
    whole = run("compression", tmp_path / "whole", steps=4)
    for _ in range(20):
        pieces = run("compression", tmp_path / "pieces", steps=4, piece_minutes=0.0001)
    assert torch.load(pieces, weights_only=False)["step"] == 4
    for (name, a), b in zip(parameters(whole).items(), parameters(pieces).values(), strict=True):
        assert torch.equal(a, b), name


def test_the_log_has_every_part_of_the_loss(chain):
    lines = (chain["annealing"].parent / "annealing.jsonl").read_text().splitlines()
    assert {"step", "seconds", "loss", "bpp", "mse", "mse_f"} <= json.loads(lines[0]).keys()


def test_an_exported_model_codes_and_decodes(chain, tmp_path):
    bundle = export(chain["annealing"], tmp_path)
    codec = sodec.Codec(weights=tmp_path)
    data = codec.compress(photo(100, 70), 60)
    assert codec.decompress(data, output="numpy").shape == (70, 100, 3)
    assert read(data).fingerprint == bundle.fingerprint


def test_training_goes_on_from_an_exported_model(chain, run, tmp_path):
    export(chain["annealing"], tmp_path / "weights")
    before, after = parameters(chain["annealing"]), restore(tmp_path / "weights").state_dict()
    for name, value in before.items():
        exact = name.startswith(("prior", "latent_encoder", "model.scale_network"))
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


def test_gaussian_bits_are_those_of_the_tables():
    """The density of x + noise, averaged over the noise, costs what the coder's table charges on average."""
    torch.manual_seed(0)
    index = 30.0
    scale = TINY.scales[30]
    x = torch.randn(1, 1, 200, 200) * scale
    bits = losses.gaussian_bits(x, torch.full_like(x, index), TINY).mean() / 40_000
    entropy = 0.5 * np.log2(2 * np.pi * np.e * (scale**2 + 1 / 12))
    assert bits == pytest.approx(entropy, rel=0.02)


def test_perceptual_term_rewards_likeness():
    x = torch.rand(2, 3, 64, 64)
    assert losses.structure(x, x).max() < 1e-5
    assert losses.structure(x * 0.2, x).min() > 0.1


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
    [({"stage": "nap"}, "'nap'"), ({"steps": None}, "steps or minutes"), ({"minutes": 1.0}, "steps or minutes")],
)
def test_bad_options_are_named(run, tmp_path, options, message):
    stage = options.pop("stage", "autoencoder")
    with pytest.raises(TrainingError, match=message):
        run(stage, tmp_path, **options)


def test_empty_folder_and_foreign_checkpoint_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match="empty"):
        load_pictures(tmp_path / "empty", tmp_path / "cache")
    torch.save({"parts": {}, "model": "tiny"}, tmp_path / "other.pt")
    with pytest.raises(TrainingError, match=r"other\.pt"):
        export(tmp_path / "other.pt", tmp_path / "out")


def test_nan_stops_with_the_parts_of_the_loss(monkeypatch, run, tmp_path):
    def broken(parts, batch):
        loss = sum(p.sum() for p in parts.model.analysis.parameters()) * float("nan")
        return loss, {"mse_f": loss}

    from sodec.train import run as module

    stage = STAGES["compression"]
    monkeypatch.setitem(module.STAGES, "compression", type(stage)(broken, stage.trains, 1e-3, 0.1))
    with pytest.raises(TrainingError, match="mse_f"):
        run("compression", tmp_path)


def test_the_learned_perceptual_term_reaches_the_weights():
    pytest.importorskip("stlpips_pytorch")
    from sodec.train.perceptual import make_perceptual

    x = torch.rand(2, 3, 96, 96, requires_grad=True)
    loss = make_perceptual(crops=1, size=64)(x, torch.rand(2, 3, 96, 96))
    loss.backward()
    assert loss > 0
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().sum() > 0
    assert Batch(x, torch.ones(2), None).perceptual is None
