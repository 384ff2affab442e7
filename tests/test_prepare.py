"""Folding: the folded network has the unfolded one's output, and lists what was folded.

pytest tests/test_prepare.py
"""

import copy

import pytest
import torch
from torch import nn

from sodec.evaluate import parts
from sodec.models import LITE, SD21_TINY, SodecModel
from sodec.models.ddim import ddim
from sodec.models.flow import Flow
from sodec.models.lite import Guidance
from sodec.models.prepare import fold_batch_norms, fold_upsamplings, fold_values, prepare
from sodec.models.sd21.resnet import NearestUpsample
from sodec.models.sd21.vae import PixelAttention
from sodec.models.sd21.vit import Embeddings

CPU = torch.device("cpu")
CONFIGS = [pytest.param(config, id=config.name) for config in (LITE, SD21_TINY)]


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    """Makes all weights random, also those that start as zeros or ones."""
    torch.manual_seed(0)
    model = SodecModel(request.param).eval().requires_grad_(False)
    for name, value in model.named_parameters():
        if value.ndim == 1 and not name.startswith(("gain", "scale_network")):
            value.uniform_(-0.5, 0.5) if name.endswith("bias") else value.uniform_(0.5, 1.5)
        elif name.endswith("leave.weight") and not value.any():
            value.normal_(std=0.05)
    for name, value in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            value.uniform_(-0.5, 0.5) if name.endswith("mean") else value.uniform_(0.5, 1.5)
    return model


def inputs(model, height=6, width=9):
    config = model.config
    torch.manual_seed(1)
    y_hat = torch.randn(1, config.y_channels, height, width)
    z_hat = torch.randn(1, config.z_channels, -(-height // 4), -(-width // 4)).round()
    noise = torch.randn(1, config.noise, 4 * height, 4 * width) if config.noise else None
    return y_hat, z_hat, torch.tensor([33.0]), noise


def relative_error(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


def stages(model, y_hat, z_hat, quality, noise):
    """The outputs of the decoder's parts, each computed from the previous one."""
    flow = Flow(model, y_hat, quality, w=model.content_latent(z_hat, y_hat), noise=noise).run()
    guidance = [flow.guidance] if model.config.sizes else flow.guidance
    named = {f"guidance {number}": tensor for number, tensor in enumerate(guidance)}
    return {**named, "l_t": flow.l_t * model.latent_scale, "l_0": flow.l_0, "picture": flow.x}


def test_folded_gives_what_unfolded_gives(model):
    given = inputs(model)
    with torch.inference_mode():
        expected = stages(model, *given)
        folded = stages(prepare(copy.deepcopy(model), CPU, torch.float32).model, *given)
    for name, value in expected.items():
        assert relative_error(folded[name], value) <= 1e-4, name


def test_batch_norms_fold_exactly(model):
    """In float64, so that only the formula can differ."""
    if model.config.sizes is not None:
        pytest.skip("it has no batch norms")
    y_hat, _, quality, noise = (given.double() for given in inputs(model))
    whole, folded = copy.deepcopy(model).double(), copy.deepcopy(model).double()
    assert fold_batch_norms(folded) == 35
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert fold_batch_norms(folded) == 0
    with torch.inference_mode():
        expected, found = (Flow(one, y_hat, quality, noise=noise).run() for one in (whole, folded))
    # l_0 and the folded pixels become float32 on the way.
    assert relative_error(found.guidance.at_8, expected.guidance.at_8) <= 1e-14
    assert relative_error(found.pixels, expected.pixels) <= 1e-6


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 3)])
def test_nearest_upsampling_folds_exactly(size):
    torch.manual_seed(0)
    whole = nn.Sequential(NearestUpsample(6)).double()
    x = torch.randn(2, 6, *size, dtype=torch.float64)
    with torch.inference_mode():
        expected = whole(x)
        assert expected.shape == (2, 6, 2 * size[0], 2 * size[1])
        assert fold_upsamplings(whole) == 1
        assert relative_error(whole(x), expected) <= 1e-15
        assert fold_upsamplings(whole) == 0


def test_an_attentions_last_product_folds_exactly():
    torch.manual_seed(0)
    whole = nn.Sequential(PixelAttention(8, 4)).double()
    whole[0].join()
    x = torch.randn(2, 8, 5, 3, dtype=torch.float64)
    with torch.inference_mode():
        expected = whole(x)
        assert fold_values(whole) == 1
        assert relative_error(whole(x) - x, expected - x) <= 1e-14
        assert fold_values(whole) == 0


@pytest.mark.parametrize("size", [(1, 1), (5, 5), (3, 11)])
def test_positions_are_pytorchs_bicubic_ones(size):
    embeddings = Embeddings(SD21_TINY)
    trained = embeddings.position_embeddings
    grid = trained[:, 1:].reshape(1, 5, 5, -1).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = nn.functional.interpolate(grid, size, mode="bicubic").flatten(2).transpose(1, 2)
        found = embeddings._positions(*size)
    assert torch.equal(found[:, :1], trained[:, :1])
    assert relative_error(found[:, 1:], expected) <= 1e-6


@pytest.mark.parametrize("variant", ["no_unet", "mean_eps", "no_guidance", "no_noise", "no_content"])
def test_the_folded_model_without_a_part_is_the_unfolded_one_without_it(model, variant):
    if variant not in parts.variants_of(model):
        pytest.skip("the model has no such part")
    given = inputs(model)
    folded = prepare(copy.deepcopy(model), CPU, torch.float32).model
    found = []
    for network in (model, folded):
        whole = network.decode(*given)
        with torch.inference_mode(), parts.left_out(network, variant):
            found.append(network.decode(*given))
        assert not torch.equal(found[-1], whole)
        assert torch.equal(network.decode(*given), whole), "the part is back"
    assert relative_error(found[1], found[0]) <= 1e-4


def test_what_was_folded_is_said_and_is_gone(model):
    prepared = prepare(copy.deepcopy(model), CPU, torch.float32)
    told = str(prepared)
    assert model.config.name in told
    assert "float32" in told
    for name, count in prepared.folded.items():
        assert f"{count:>4}  {name}" in told
    names = " ".join(prepared.folded)
    assert "one step" in names
    if model.config.sizes is None:
        assert prepared.folded["batch norms into the convolutions before them"] == 35
    else:
        assert "time embedding" in names
        assert prepared.folded["keys and values of the guidance tokens into one product"] == 10
        assert "layer scales" in names
    kept = {name for name, _ in prepared.model.named_parameters()}
    assert not any("time" in name or "attn2.to_k" in name for name in kept if "unet" in name)
    again = prepare(prepared.model, CPU, torch.float32)
    assert not again.folded, "a second time there is nothing left to fold"


def unet_inputs(model, dtype=torch.float32):
    """A latent, guidance and noise for the UNet."""
    torch.manual_seed(2)
    config = model.config
    latent = torch.randn(1, config.latent, 8, 8, dtype=dtype)
    if config.sizes is not None:
        return latent, torch.randn(1, 7, config.public.tokens, dtype=dtype), None
    widths, sides = (config.unet[1], config.unet[0], config.decoder[0]), (4, 8, 16)
    guidance = Guidance(*(torch.randn(1, c, s, s, dtype=dtype) for c, s in zip(widths, sides, strict=True)))
    return latent, guidance, torch.randn(1, config.noise, 16, 16, dtype=dtype)


def test_many_steps_need_the_timestep(model):
    """With `one_step=False` the network is unchanged, so that DDIM can use it."""
    latent, guidance, noise = unet_inputs(model)
    packed = prepare(copy.deepcopy(model), CPU, torch.float32, one_step=False).model
    with torch.inference_mode():
        expected, found = (
            ddim(lambda x, t, m=m: m.predict_noise(x, t, guidance, noise), latent, 4, m.alphas) for m in (model, packed)
        )
    assert relative_error(found, expected) <= 1e-4


def test_adapters_are_merged(model):
    peft = pytest.importorskip("peft", reason="needs the extra 'train'")
    adapted = copy.deepcopy(model)
    targets = [name for name, module in adapted.unet.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    targets = [name for name in targets if name not in ("leave", "conv_out")]
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=False), adapted.unet)
    given = inputs(model)
    adapted.eval()
    with torch.inference_mode():
        expected = stages(adapted, *given)
        plain = stages(model, *given)
    prepared = prepare(adapted, CPU, torch.float32)
    assert prepared.folded["LoRA adapters into the weights that they adapt"] == len(targets)
    with torch.inference_mode():
        folded = stages(prepared.model, *given)
    assert relative_error(expected["l_0"], plain["l_0"]) > 1e-3, "the adapters do nothing"
    for name, value in expected.items():
        assert relative_error(folded[name], value) <= 1e-4, name


def test_in_bfloat16_eps_stays_float32_and_gain_exact(model):
    prepared = prepare(copy.deepcopy(model), CPU, torch.bfloat16).model
    assert prepared.gain.log_gain.dtype == prepared.alphas.dtype == torch.float32
    assert torch.equal(prepared.gain.log_gain, model.gain.log_gain)
    with torch.inference_mode():
        assert prepared.denoise(*unet_inputs(model, torch.bfloat16)).dtype == torch.float32
