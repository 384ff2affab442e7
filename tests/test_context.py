"""Encoder and decoder predict half of y from the other half alike; a pixel attends to the tokens around it.

pytest tests/test_context.py
"""

import json

import numpy as np
import pytest
import torch
from tiny import codec

from sodec.entropy import SKIP
from sodec.models import CONFIGS, LITE, TINY, SodecModel
from sodec.models.blocks import PLACE, CrossAttention, positions, steady
from sodec.models.coding import first_half
from sodec.models.files import read_model
from sodec.models.lite import Context
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
    torch.nn.init.zeros_(model.latent_decoder.leave.weight)
    torch.nn.init.zeros_(model.latent_decoder.leave.bias)
    fidelity = torch.rand(1, 3, 32, 48)
    assert torch.equal(model.picture(torch.randn(1, TINY.latent, 2, 3), fidelity), fidelity)


def test_attention_begins_at_the_tokens_around_a_pixel():
    torch.manual_seed(0)
    attention = CrossAttention(LITE.unet[1], LITE.tokens)
    x, place = torch.randn(1, LITE.unet[1], 4, 8), positions(torch.zeros(1, LITE.tokens, 4, 8))
    tokens = (PLACE * place + torch.nn.functional.layer_norm(torch.randn(32, LITE.tokens), (LITE.tokens,)))[None]
    moved = []
    for number in range(32):
        changed = tokens.clone()
        changed[0, number] += torch.randn(LITE.tokens)
        difference = attention(x, changed, place) - attention(x, tokens, place)
        moved.append(difference.detach().norm(dim=1).flatten())
    moved = torch.stack(moved)  # by token, by pixel
    assert (moved.argmax(0) == torch.arange(32)).float().mean() > 0.6


def test_bundled_weights_are_of_the_configuration_that_is_trained():
    """Otherwise training could not continue from them."""
    assert find("lite").config == json.loads(json.dumps(CONFIGS["lite"].to_dict()))


def test_a_steady_layer_is_not_asked_for_constants():
    x = torch.randn(4, 3, 5, 6, requires_grad=True)
    wanted = torch.randn(4, 3, 5, 6) + 7.0
    assert torch.equal(steady(x), x)
    (steady(x) * wanted).sum().backward()
    torch.testing.assert_close(x.grad, wanted - wanted.mean((0, 2, 3), keepdim=True))
    flat = torch.randn(4, 5, 3, requires_grad=True)
    (steady(flat, -1) * 7.0).sum().backward()
    assert flat.grad.abs().max() < 1e-5


@torch.no_grad()
def test_bundled_unet_is_alive():
    """In two trainings its features grew until its output was constant, which no metric of the picture showed."""
    torch.manual_seed(0)
    model = read_model(find("lite")).eval()
    grown = []
    for layer in (model.unet.to_32, model.unet.to_64, model.unet.from_64, model.unet.from_32):
        layer.register_forward_hook(lambda _, __, features: grown.append(features.std().item()))
    x = torch.nn.functional.interpolate(torch.rand(1, 3, 24, 36), (192, 288), mode="bilinear")
    quality, step = torch.tensor([50.0]), torch.tensor([model.config.timestep])
    y, tokens = model.analysis(x), model.guidance(x)
    content = model.content(model.hyper_analysis(y).round())[..., : y.shape[-2], : y.shape[-1]]
    eps = model.unet(model.transform(y, content, quality), step, tokens)
    assert max(grown) < 30
    assert eps.std((2, 3)).mean() > 0.05 * eps.std()
