"""Encoder and decoder predict half of y from the other half alike; the decoder begins from the fidelity picture.

pytest tests/test_context.py
"""

import json

import numpy as np
import pytest
import torch
from tiny import codec

from sodec.entropy import SKIP
from sodec.models import CONFIGS, TINY, SodecModel
from sodec.models.blocks import Fidelity
from sodec.models.coding import first_half
from sodec.models.files import read_model
from sodec.models.flow import Flow
from sodec.models.lite import Context, Guidance
from sodec.models.noise import place_noise
from sodec.pipeline.tiles import Box
from sodec.stream import symbols
from sodec.weights import find


def test_first_half_is_a_checkerboard_swapped_for_half_of_the_channels():
    halves = first_half(torch.zeros(1, 4, 3, 4))
    assert halves[0].int().tolist() == [[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]]
    assert torch.equal(halves[0], halves[1])
    assert torch.equal(halves[2], ~halves[0])
    assert torch.equal(halves[3], halves[2])


def test_context_reads_the_first_half_alone_and_moves_the_second_alone():
    torch.manual_seed(0)
    context = Context(TINY)
    mean, residual = torch.randn(2, 1, TINY.y_channels, 5, 6)
    first = first_half(mean)
    there = context(mean, residual)
    assert torch.equal(there[:, first], mean[:, first])
    assert (there[:, ~first] != mean[:, ~first]).all()
    assert torch.equal(context(mean, torch.where(first, residual, 9.0)), there)
    assert not torch.equal(context(mean, torch.where(first, 9.0, residual)), there)


@pytest.mark.parametrize("quality", [10.0, 90.0])
def test_decoder_finds_the_means_that_the_encoder_subtracted(quality):
    """Decoded values are within half a step; with a wrong mean they would not be."""
    rgb = np.random.default_rng(0).integers(0, 256, (80, 112, 3), np.uint8)
    engine = codec().engine
    coefficients = engine.analyse(rgb, Box(0, 0, 112, 80))
    z, y = symbols.decode(engine.coding, engine.encode(coefficients, quality), quality, 5, 7)
    coded = symbols.scale_indexes(engine.coding, z, quality, 5, 7) != SKIP
    assert coded.mean() > 0.1
    wanted = coefficients.y.float()
    steps = (engine.dequantise(z, y, quality)[0] - wanted) * engine.gain(quality)
    assert steps[0][torch.from_numpy(coded)].abs().max() <= 0.5 + 1e-3
    with torch.inference_mode():
        residual, _ = engine.residual(coefficients)
    steps = torch.from_numpy(y) - residual * engine.gain(quality)
    assert steps[0][torch.from_numpy(coded)].abs().max() > 0.5 + 1e-3


def test_final_picture_begins_from_the_fidelity_picture():
    torch.manual_seed(0)
    model = SodecModel(TINY)
    fidelity = Fidelity(torch.rand(1, 48, 8, 12))
    guidance = Guidance(*[torch.randn(1, TINY.decoder[0], 8, 12)] * 3)
    given = torch.randn(1, TINY.latent, 4, 6), fidelity, guidance, torch.randn(1, TINY.noise, 8, 12)
    assert torch.equal(model.picture(*given), fidelity.pixels), "untrained, D_m adds nothing"
    torch.nn.init.ones_(model.latent_decoder.leave.bias)
    assert torch.equal(model.picture(*given), fidelity.pixels + 1)


def test_bundled_weights_are_of_the_configuration_that_is_trained():
    """Otherwise training could not continue from them."""
    assert find("lite").config == json.loads(json.dumps(CONFIGS["lite"].to_dict()))


@torch.no_grad()
def test_bundled_unet_is_alive():
    """In two trainings its features grew until its output was constant, which no metric of the picture showed."""
    torch.manual_seed(0)
    model = read_model(find("lite")).eval()
    unet, features = model.unet, {}
    for name in ("to_32", "to_64", "from_64", "from_32", "from_16"):
        getattr(unet, name).register_forward_hook(lambda _, __, x, name=name: features.update({name: x}))
    x = torch.nn.functional.interpolate(torch.rand(1, 3, 24, 36), (192, 288), mode="bilinear")
    quality = torch.tensor([50.0])
    y_hat = model.analysis(x)
    noise = torch.from_numpy(place_noise(model.config.noise, 48, 72))[None]
    flow = Flow(model, y_hat, quality, noise=noise).run()
    eps = model.predict_noise(flow.l_t, None, flow.guidance, flow.noise)
    assert eps.std((2, 3)).mean() > 0.3 * eps.std(), "much of it differs from place to place"
    for name, value in features.items():
        spread, shared = value.std((2, 3)).mean(), value.mean((2, 3)).abs().mean()
        assert spread > 0.3, name
        assert shared < 3 * spread, name
