"""The multi-step baseline: the same steps as diffusers', and one of them is the codec's own.

pytest tests/test_ddim.py
"""

import pytest
import torch

from sodec.models import SD21_TINY, SodecModel
from sodec.models.ddim import ddim, timesteps


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return SodecModel(SD21_TINY).eval()


def unet_of(model):
    """Of `sd21`, since the UNet of `lite` knows one timestep alone."""
    tokens = torch.randn(1, 6, model.config.public.tokens)
    return lambda latent, step: model.unet(latent, step, tokens)


@pytest.mark.parametrize("steps", [1, 4, 20, 50])
def test_steps_are_those_of_diffusers(model, steps):
    diffusers = pytest.importorskip("diffusers", reason="needs the extra 'sd21'")
    config = model.config
    scheduler = diffusers.DDIMScheduler(
        beta_start=config.beta_start, beta_end=config.beta_end, beta_schedule="scaled_linear", clip_sample=False,
        timestep_spacing="trailing", set_alpha_to_one=True,
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    assert scheduler.timesteps.tolist() == timesteps(steps)
    unet = unet_of(model)
    start = x = torch.randn(1, config.latent, 4, 4)
    with torch.no_grad():
        for step in scheduler.timesteps:
            x = scheduler.step(unet(x, step[None]), step, x).prev_sample
    torch.testing.assert_close(ddim(unet, start, steps, model.alphas), x, rtol=1e-4, atol=1e-4)


def test_one_step_is_the_codecs(model):
    tokens = torch.randn(2, 6, model.config.public.tokens)
    latent = torch.randn(2, model.config.latent, 4, 8)
    with torch.no_grad():
        one = model.denoise(latent, tokens, None)
    torch.testing.assert_close(ddim(lambda x, t: model.unet(x, t, tokens), latent, 1, model.alphas), one)


@pytest.mark.parametrize("steps", [0, 1001])
def test_steps_out_of_range_are_named(model, steps):
    with pytest.raises(ValueError, match=rf"steps must be 1 to 1000 .*\(got {steps}\)"):
        ddim(unet_of(model), torch.randn(1, model.config.latent, 4, 4), steps, model.alphas)
