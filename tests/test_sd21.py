"""The model `sd21` at reduced width: random weights, a picture through all of it.

pytest tests/test_sd21.py
"""

import dataclasses

import numpy as np
import pytest
import torch
from reference import decoder as reference
from tiny import photo, write_weights

import sodec
from sodec.entropy import PRECISION, SKIP
from sodec.errors import UnknownModelError, WeightsError
from sodec.models import SD21, SD21_TINY, TINY, ModelConfig, SodecModel
from sodec.stream import symbols


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sd21")
    write_weights(folder, config=SD21_TINY)
    return folder


@pytest.fixture(scope="module")
def codec(weights):
    return sodec.Codec("sd21", weights=weights)


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (64, 64), (200, 75)])
def test_a_picture_goes_through(codec, size):
    picture = photo(*size)
    data = codec.compress(picture, 50)
    for mode in ("full", "fidelity"):
        report = sodec.Report()
        decoded = codec.decompress(data, output="numpy", mode=mode, report=report)
        assert decoded.shape == picture.shape
        assert ("UNet" in report.times) == (mode == "full")
    assert not np.array_equal(codec.decompress(data, output="numpy"), decoded)


def test_decoder_receives_the_symbols_that_the_encoder_sent(codec):
    picture = photo(100, 60)
    y_hat, z_hat, _ = codec.latents(codec.compress(picture, 100))
    with torch.inference_mode():
        y = codec.model.analysis(codec.engine.tensor(np.pad(picture, ((0, 4), (0, 12), (0, 0)), "edge")))
        assert torch.equal(codec.model.hyper_analysis(y).round(), z_hat)
    assert ((y - y_hat).abs() * codec.engine.gain(100) <= 0.5 + 1e-3).float().mean() > 0.2
    assert z_hat.abs().max() > 0


def test_several_tiles(codec):
    picture = photo(1100, 70)
    decoded = codec.decompress(codec.compress(picture, 30), output="numpy")
    assert decoded.shape == picture.shape


def test_full_size_is_the_papers():
    with torch.device("meta"):
        model = SodecModel(SD21)
    assert sum(p.numel() for p in model.unet.parameters()) == 865_910_724  # as diffusers counts SD 2.1's
    assert sum(p.numel() for p in model.latent_decoder.parameters()) == 49_490_199
    assert sum(p.numel() for p in model.vit.parameters()) == 86_580_480 - 768  # without the mask token
    y = model.analysis(torch.empty(1, 3, 512, 768, device="meta"))
    assert y.shape == (1, 220, 32, 48)
    z = model.hyper_analysis(y)
    assert z.shape == (1, 320, 8, 12)
    quality = torch.empty(1, device="meta")
    fidelity = model.fidelity(y, quality)
    assert fidelity.picture.shape == (1, 3, 512, 768)
    l_t = model.transform(y, quality, model.content_latent(z, y))
    assert l_t.shape == (1, 4, 64, 96)
    tokens = model.guidance(fidelity)
    assert tokens.shape == (1, 77, 1024)
    assert model.latent_decoder(l_t).shape == (1, 3, 512, 768)


def test_configuration_is_stored_and_read_back():
    for config in (SD21, SD21_TINY, TINY):
        assert ModelConfig.from_dict(config.to_dict()) == config
    values = SD21.to_dict()
    del values["sizes"]["groups"]
    with pytest.raises(WeightsError, match="missing configuration fields: groups"):
        ModelConfig.from_dict(values)


def test_more_channels_of_z_than_a_set_has_tables(tmp_path):
    """What the format says of them, read by its second decoder."""
    config = dataclasses.replace(TINY, z_channels=300)
    coding = write_weights(tmp_path, config=config).coding
    assert [tables.count for tables in coding.z_tables] == [255, 45]
    random = np.random.default_rng(0)
    z = random.integers(-9, 10, (300, 2, 1)).astype(np.int16)
    indexes = symbols.scale_indexes(coding, z, 60, 5, 3)
    y = np.where(indexes == SKIP, 0, random.integers(-2, 3, indexes.shape)).astype(np.int16)
    payload = symbols.encode(coding, z, y, indexes)
    read_z, read_y = symbols.decode(coding, payload, 60, 5, 3)
    assert np.array_equal(read_z, z)
    assert np.array_equal(read_y, y)
    plain = reference.Payload(payload)
    read = []
    for tables in coding.z_tables:
        rows = [tables.cumulative[a:b].tolist() for a, b in zip(tables.offsets, tables.offsets[1:], strict=False)]
        model = {"precision": PRECISION, "tables": list(zip(tables.minimums.tolist(), rows, strict=True))}
        read += plain.read([channel for channel in range(tables.count) for _ in range(2)], model)
    assert read == z.ravel().tolist()


def test_sd21_takes_weights_of_its_own(tmp_path):
    with pytest.raises(UnknownModelError, match="sodec init"):
        sodec.Codec("sd21")
    write_weights(tmp_path)
    with pytest.raises(WeightsError, match="tiny"):
        sodec.Codec("sd21", weights=tmp_path)
