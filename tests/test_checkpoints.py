"""Checkpoints and exports: what is trained is what the codec reads, and damaged or foreign files are named.

pytest tests/test_checkpoints.py
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tiny import photo

pytest.importorskip("compressai", reason="needs the extra 'train'")

from training import chain, parameters, run

import sodec
from sodec.cli import main
from sodec.errors import TrainingError
from sodec.models import TINY
from sodec.models.files import COUNT
from sodec.stream.container import read
from sodec.train.checkpoint import _as_installed, export, restore
from sodec.train.data import load_pictures
from sodec.train.parts import Parts

BUNDLED = Path(__file__).parents[1] / "sodec" / "weights" / "lite"  # a wheel has nothing to train on from


@pytest.fixture(name="chain", scope="module")
def chain_of_stages():
    return chain()


def test_an_exported_model_codes_and_decodes(chain, tmp_path):
    bundle = export(chain["annealing"], tmp_path)
    codec = sodec.Codec(weights=tmp_path)
    data = codec.compress(photo(100, 70), 60)
    assert codec.decompress(data, output="numpy").shape == (70, 100, 3)
    assert read(data).fingerprint == bundle.fingerprint


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


def test_training_goes_on_from_an_exported_model(chain, tmp_path):
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


def test_a_coding_that_no_stage_trains_is_exported_as_it_was(chain, tmp_path):
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
def test_a_checkpoint_that_carries_code_is_refused_and_not_run(place, reader, chain, tmp_path):
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
def test_a_checkpoint_whose_fields_do_not_fit_is_named(change, chain, tmp_path):
    path = tmp_path / "compression.pt"
    torch.save({**torch.load(chain["compression"], weights_only=True), **change}, path)
    with pytest.raises(TrainingError, match=r"compression\.pt"):
        export(path, tmp_path / "out")


@pytest.mark.parametrize(
    "change", [{"optimizer": {}}, {"random": [None]}, {"parts": {}}, {"step": None}, {"config": 1}]
)
def test_a_run_does_not_go_on_from_a_checkpoint_that_does_not_fit(change, chain, tmp_path):
    path = tmp_path / "compression.pt"
    torch.save({**torch.load(chain["compression"], weights_only=True), **change}, path)
    with pytest.raises(TrainingError, match=r"compression\.pt"):
        run("compression", tmp_path)
