"""A folder of weights is complete, or refused with the name of the fault.

pytest tests/test_weights.py
"""

import json
import re

import numpy as np
import pytest
from tiny import photo, write_weights

import sodec
from sodec import weights
from sodec.errors import UnknownModelError, WeightsError
from sodec.models.files import read_model


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


@pytest.mark.parametrize("field", weights.description.CODING_FIELDS)
def test_sizes_of_the_coding_are_part_of_its_name(tmp_path, field):
    old = write_weights(tmp_path / "old")
    config = {**old.config, field: 7}
    assert weights.write(tmp_path / "new", config, old.coding, old.tensors()).fingerprint != old.fingerprint


def test_files_stay_below_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("sodec.weights.saving.MAX_FILE_BYTES", 500_000)
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
        (lambda c, n: c.update(unet_blocks=[2, 1]), "lacks"),
        (lambda c, n: c.update(surprise=1), "unknown configuration fields: surprise"),
        (lambda c, n: c.pop("noise"), "missing configuration fields: noise"),
        (lambda c, n: c.update(transform=4), "the model needs"),
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


def set_file(name, value):
    return lambda d: d["files"].update({name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(fingerprint=7), "fingerprint must be 6 hexadecimal digits"),
        (lambda d: d.update(fingerprint="xyzxyz"), "fingerprint must be 6 hexadecimal digits"),
        (lambda d: d.update(version=None), "version must be 6 hexadecimal digits"),
        (lambda d: d.update(files=[]), "files must be an object"),
        (lambda d: d.update(files={}), "files must be an object with coding.safetensors"),
        (set_file("../elsewhere.safetensors", 64 * "0"), "a file must have a plain name"),
        (set_file("/dev/zero", 64 * "0"), "a file must have a plain name"),
        (set_file("a\0b.safetensors", 64 * "0"), "a file must have a plain name"),
        (set_file("network-1.safetensors", 5), "SHA-256 of network-1.safetensors must be 64 hexadecimal digits"),
        (lambda d: d.update(config=None), "config must be an object with a name"),
        (lambda d: d.update(config=[1]), "config must be an object with a name"),
        (lambda d: d["config"].update(name=3), "config must be an object with a name"),
        (lambda d: d.update(format=[]), r"format \[\]"),
        (lambda d: d.update(more=1), "does not describe weights"),
    ],
)
def test_descriptions_of_other_types_are_named(tmp_path, change, message):
    write_weights(tmp_path)
    description = json.loads((tmp_path / "model.json").read_text())
    change(description)
    (tmp_path / "model.json").write_text(json.dumps(description))
    with pytest.raises(WeightsError, match=message) as raised:
        weights.find("tiny", tmp_path)
    assert str(tmp_path / "model.json") in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[" * 1_000_000, "nested too deeply|more than 1000000 bytes"),
        (b"[" * 900_000, "nested too deeply"),
        (b'{"format": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"format": NaN}', "not JSON: NaN is not a number"),
        (b'{"format": 2, "config": "\xff"}', "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b"3", "does not describe weights"),
        (b"", "not JSON"),
        (b" " * 1_000_001, "more than 1000000 bytes"),
    ],
)
def test_what_is_no_description_is_named(tmp_path, text, message):
    (tmp_path / "model.json").write_bytes(text)
    with pytest.raises(WeightsError, match=message):
        weights.find("tiny", tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unet_blocks": 10**6}, "unet_blocks must be 1 to 8 integers of 0 to 64 (got 1000000)"),
        ({"unet_blocks": [1, 10**6]}, "unet_blocks must be 1 to 8 integers of 0 to 64"),
        ({"decoder_blocks": [1, 10**6, 1]}, "decoder_blocks must be 1 to 8 integers of 0 to 64"),
        ({"decoder_blocks": [1] * 10**5}, "decoder_blocks must be 1 to 8 integers"),
        ({"fidelity_blocks": 3}, "fidelity_blocks must be 1 to 8 integers"),
        ({"y_channels": -1}, "y_channels must be an integer of 1 to 8192 (got -1)"),
        ({"y_channels": 8.0}, "y_channels must be an integer"),
        ({"y_channels": True}, "y_channels must be an integer"),
        ({"y_channels": "8"}, "y_channels must be an integer of 1 to 8192 (got '8')"),
        ({"hyper": None}, "hyper must be an integer"),
        ({"analysis": [8, "8", 8]}, "analysis must be 1 to 8 integers"),
        ({"analysis": {"0": 8}}, "analysis must be 1 to 8 integers"),
        ({"scale_min": "nan"}, "scale_min must be a number"),
        ({"scale_min": 100.0}, "scale_min must be below scale_max"),
        ({"scale_count": 1}, "scale_count must be an integer of 2 to 64"),
        ({"beta_end": 1e300}, "beta_end must be a number of 1e-06 to 0.5"),
        ({"timestep": 1000}, "timestep must be an integer of 0 to 999"),
        ({"noise": -1}, "noise must be an integer of 0 to 8192"),
        ({"quality_anchors": 10**9}, "quality_anchors must be an integer of 2 to 199"),
        ({"name": ""}, "name must be a name of 1 to 64 characters"),
        ({"sizes": 5}, "sizes must be an object (got 5)"),
        ({"sizes": []}, "sizes must be an object"),
        ({"sizes": {}}, "missing configuration fields"),
        ({"unet": [8, 16]}, "no model of 'tiny' has these sizes"),
        ({"analysis": [8]}, "no model of 'tiny' has these sizes"),
        ({"decoder_blocks": [1, 1]}, "no model of 'tiny' has these sizes"),
        ({"unet": [8192] * 4, "decoder": [8192], "unet_blocks": [64, 64]}, "a width is 8192"),
        ({"transform": 8192}, "a width is 8192, but no tensor in the files has a side beyond"),
        ({"unet_blocks": [64, 1]}, "the depths add up to"),
        ({"decoder_blocks": [64]}, "the depths add up to"),
    ],
)
def test_configurations_out_of_range_are_named_before_anything_is_built(tmp_path, monkeypatch, changes, message):
    # The first use of torch's device "meta" takes seconds.
    monkeypatch.setattr("sodec.models.files.torch.device", lambda name: pytest.fail(f"{name} is used"))
    bundle = write_weights(tmp_path / "a")
    weights.write(tmp_path / "b", {**bundle.config, **changes}, bundle.coding, bundle.tensors())
    with pytest.raises(WeightsError, match=re.escape(message)) as raised:
        read_model(weights.find("tiny", tmp_path / "b"))
    assert str(tmp_path / "b") in str(raised.value)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda t: np.full_like(t, np.nan), "has NaN or infinite values"),
        (lambda t: np.where(np.arange(t.size).reshape(t.shape) == 1, np.float16(-np.inf), t), "has NaN or infinite"),
        (lambda t: t.astype(np.int32), r"must be float16 \(got int32\)"),
        (lambda t: t.astype(np.float64), r"must be float16 \(got float64\)"),
        (lambda t: t.astype(np.bool_), r"must be float16 \(got bool\)"),
    ],
)
@pytest.mark.parametrize("name", ["fidelity.decoder.enter.weight", "gain.log_gain", "unet.leave.weight"])
def test_tensors_of_other_dtypes_or_not_finite_are_named(tmp_path, name, value, message):
    bundle = write_weights(tmp_path / "a")
    networks = bundle.tensors()
    networks[name] = value(networks[name])
    weights.write(tmp_path / "b", bundle.config, bundle.coding, networks)
    with pytest.raises(WeightsError, match=f"{name} {message}"):
        sodec.Codec(weights=tmp_path / "b")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("offsets", lambda a: a.astype(np.float32), "offsets must be int32 (got float32)"),
        ("offsets", lambda a: a[:-1], "offsets must be (199, 8)"),
        ("offsets", lambda a: a[:, :-1], "offsets must be (199, 8)"),
        ("offsets", lambda a: a + (1 << 21), "offsets must be within 1048576"),
        ("offsets", lambda a: np.full_like(a, -(1 << 31)), "offsets must be within 1048576"),
        ("z_tables.precision", lambda a: a[:0], "coding.safetensors"),
        ("z_tables.precision", lambda a: a + 1, "frequency table"),
        ("z_tables.cumulative", lambda a: a[::-1], "coding.safetensors"),
        ("y_tables.offsets", lambda a: a[:-1], "coding.safetensors"),
        ("y_tables.minimums", lambda a: a.reshape(8, 8), "tables are made of 1-D arrays"),
        ("scale_network.layers", lambda a: a * 0, "must have a layer"),
        ("scale_network.layers", lambda a: a + 1, "has no tensor 'scale_network."),
        ("scale_network.layers", lambda a: a * 0 + 1, "coding.safetensors"),
        ("scale_network.0.weights", lambda a: a.astype(np.int32), "must be int8 (got int32)"),
        ("scale_network.0.weights", lambda a: a[..., :-1], "inputs of the scale network must be 8"),
        ("scale_network.0.weights", lambda a: a.reshape(-1), "dimensions of the scale network's weights"),
        ("scale_network.0.shift_upsample", lambda a: a[:1], "coding.safetensors"),
        ("scale_network.0.shift_upsample", lambda a: a * 0 + 100, "scale network"),
        ("scale_network.0.bias", lambda a: np.full_like(a, (1 << 31) - 1), "scale network"),
    ],
)
def test_codings_that_break_a_rule_are_named(tmp_path, monkeypatch, name, value, message):
    bundle = write_weights(tmp_path / "a")
    arrays = weights.saving.coding_arrays(bundle.coding)
    arrays[name] = np.ascontiguousarray(value(arrays[name]))
    monkeypatch.setattr(weights.saving, "coding_arrays", lambda coding: arrays)
    altered = weights.write(tmp_path / "b", bundle.config, bundle.coding, bundle.tensors())
    with pytest.raises(WeightsError, match=re.escape(message)):
        altered.coding.scale_network  # noqa: B018
    with pytest.raises(WeightsError, match=re.escape(message)):
        sodec.compress(photo(20, 20), weights=altered)


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
