"""A folder of weights: whole, or refused by name.

pytest tests/test_weights.py
"""

import json

import numpy as np
import pytest
from tiny import photo, write_weights

import sodec
from sodec import weights
from sodec.errors import UnknownModelError, WeightsError


def test_what_is_written_is_read_back(tmp_path):
    bundle = write_weights(tmp_path)
    again = weights.find("anything", tmp_path)
    assert again.fingerprint == bundle.fingerprint
    assert again.name == "tiny"
    for name, array in bundle.tensors().items():
        assert np.array_equal(again.tensors()[name], array)
    assert np.array_equal(again.coding.y_tables.cumulative, bundle.coding.y_tables.cumulative)
    assert np.array_equal(again.coding.offsets, bundle.coding.offsets)


def test_names_follow_the_tensors(tmp_path):
    one, same, other = (
        write_weights(tmp_path / "a"),
        write_weights(tmp_path / "b"),
        write_weights(tmp_path / "c", seed=1),
    )
    assert (one.fingerprint, one.version) == (same.fingerprint, same.version)
    assert one.fingerprint != other.fingerprint
    assert one.version != other.version


@pytest.mark.parametrize("name", ["fidelity.decoder.enter.weight", "analysis.enter.weight", "unet.leave.bias"])
def test_a_better_encoder_or_decoder_reads_the_same_streams(tmp_path, name):
    old = write_weights(tmp_path / "old")
    networks = old.tensors()
    name = name if name in networks else next(key for key in networks if key.startswith(name.split(".")[0]))
    networks[name] = networks[name] + np.float16(0.01)
    new = weights.write(tmp_path / "new", old.config, old.coding, networks)
    assert new.fingerprint == old.fingerprint
    assert new.version != old.version
    picture = photo(70, 50)
    stream = sodec.compress(picture, weights=old)
    assert sodec.decompress(stream, weights=new, output="numpy").shape == picture.shape


@pytest.mark.parametrize("name", ["gain.log_gain", "mean.", "context."])
def test_what_decides_y_hat_is_another_coding(tmp_path, name):
    old = write_weights(tmp_path / "old")
    networks = old.tensors()
    name = next(key for key in networks if key.startswith(name))
    networks[name] = networks[name] + np.float16(0.01)
    assert weights.write(tmp_path / "new", old.config, old.coding, networks).fingerprint != old.fingerprint


@pytest.mark.parametrize("field", weights.bundle.CODING_FIELDS)
def test_sizes_of_the_coding_are_part_of_its_name(tmp_path, field):
    old = write_weights(tmp_path / "old")
    config = {**old.config, field: 7}
    assert weights.write(tmp_path / "new", config, old.coding, old.tensors()).fingerprint != old.fingerprint


def test_files_stay_below_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("sodec.weights.bundle.MAX_FILE_BYTES", 500_000)
    bundle = write_weights(tmp_path)
    assert len(bundle.files) > 2
    assert all(path.stat().st_size <= 500_000 for path in tmp_path.glob("network-*"))
    sodec.Codec(weights=tmp_path)


def test_damage_is_named(tmp_path):
    write_weights(tmp_path)
    shard = tmp_path / "network-1.safetensors"
    data = shard.read_bytes()
    shard.write_bytes(data[:-1])
    with pytest.raises(WeightsError, match=r"network-1\.safetensors is altered or incomplete"):
        weights.find("tiny", tmp_path)
    shard.unlink()
    with pytest.raises(WeightsError, match=r"network-1\.safetensors can't be read"):
        weights.find("tiny", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("files"), "does not describe weights"),
        (lambda d: d.update(format=1), "format 1"),
        (lambda d: d.update(fingerprint="000000"), "000000"),
        (lambda d: d.update(version="000000"), "000000"),
        (lambda d: d["config"].update(beta_end=0.012), "altered"),
        (lambda d: d["config"].update(scale_max=65.0), "altered"),
    ],
)
def test_broken_descriptions_are_named(tmp_path, change, message):
    write_weights(tmp_path)
    description = json.loads((tmp_path / "model.json").read_text())
    change(description)
    (tmp_path / "model.json").write_text(json.dumps(description))
    with pytest.raises(WeightsError, match=message):
        weights.find("tiny", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, n: c.update(vit_depth=2), "lacks"),
        (lambda c, n: c.update(surprise=1), "unknown configuration fields: surprise"),
        (lambda c, n: c.pop("vit"), "missing configuration fields: vit"),
        (lambda c, n: c.update(content=4), "the model needs"),
        (lambda c, n: n.update(extra=np.zeros(1, np.float16)), "'extra'"),
    ],
)
def test_weights_of_another_architecture_are_named(tmp_path, change, message):
    bundle = write_weights(tmp_path / "a")
    config, networks = dict(bundle.config), bundle.tensors()
    change(config, networks)
    weights.write(tmp_path / "b", config, bundle.coding, networks)
    with pytest.raises(WeightsError, match=message):
        sodec.Codec(weights=tmp_path / "b")


def test_unknown_model_and_empty_folder(tmp_path):
    with pytest.raises(UnknownModelError, match="'nosuch'"):
        sodec.Codec("nosuch")
    with pytest.raises(WeightsError, match=r"model\.json"):
        sodec.Codec(weights=tmp_path)
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(WeightsError, match="not JSON"):
        sodec.Codec(weights=tmp_path)


def test_files_are_verified_once_until_one_changes(tmp_path, monkeypatch):
    write_weights(tmp_path)
    first = weights.find("", tmp_path)
    monkeypatch.setattr(weights.bundle, "sha256", lambda path: pytest.fail(f"{path} is read again"))
    assert weights.find("", tmp_path) is first
    monkeypatch.undo()
    path = tmp_path / "coding.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(WeightsError, match="altered"):
        weights.find("", tmp_path)
