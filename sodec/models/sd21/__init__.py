"""Stable Diffusion's UNet and the decoder of its autoencoder.

Attributes are named as in diffusers (`UNet2DConditionModel`, `AutoencoderKL`), so that its files load as they are.
Layouts other than SD 2.1's (linear projections in and out of a transformer, one transformer block) are not served.
"""

from .unet import DiffusionUNet
from .vae import VaeDecoder

__all__ = ["DiffusionUNet", "VaeDecoder"]
