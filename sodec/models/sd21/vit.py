"""F of `sd21`: a vision transformer of the DINOv2 layout, attributes named as in transformers' `Dinov2Model`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...stream.header import CELL
from .. import ops
from ..blocks import JoinedLinear
from ..config import ModelConfig

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the pictures it was trained on (ImageNet)


class Dinov2(nn.Module):
    """A picture (B, 3, H, W) in 0..1, H and W multiples of 16, to tokens (B, 1 + H W / 256, D), the class first.

    The picture is resized so that a patch covers a position of y. Once the normalisation of pixels is folded into the
    first layer, `normalise` is False.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.patch, self.normalise = config.public.vit_patch, True
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.layernorm = nn.LayerNorm(config.public.vit, 1e-6)

    def forward(self, picture: Tensor) -> Tensor:
        size = [side // CELL * self.patch for side in picture.shape[-2:]]
        pixels = F.interpolate(picture, size, mode="bilinear", align_corners=False)
        if self.normalise:
            mean, deviation = (pixels.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
            pixels = (pixels - mean) / deviation
        return self.features(pixels)

    def features(self, pixels: Tensor) -> Tensor:
        """Tokens of pixels as the first layer takes them, H and W multiples of a patch."""
        return self.layernorm(self.encoder(self.embeddings(pixels)))


class Embeddings(nn.Module):
    """Patches, a class token before them, and positions trained on a grid, interpolated to this picture's."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.grid = config.public.vit_grid
        self.cls_token = nn.Parameter(torch.randn(1, 1, config.public.vit) * 0.02)
        self.position_embeddings = nn.Parameter(torch.randn(1, self.grid**2 + 1, config.public.vit) * 0.02)
        self.patch_embeddings = PatchEmbeddings(config)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embeddings.projection(pixels)
        x = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches.flatten(2).transpose(1, 2)], 1)
        return x + self._positions(*patches.shape[-2:]).to(x.dtype)

    def _positions(self, height: int, width: int) -> Tensor:
        trained = self.position_embeddings.float()
        grid = trained[0, 1:].reshape(self.grid, self.grid, -1)
        grid = torch.einsum("yh,hwc,xw->yxc", self._bicubic(height), grid, self._bicubic(width))
        return torch.cat([trained[:, :1], grid.flatten(0, 1)[None]], 1)

    def _bicubic(self, size: int) -> Tensor:
        """What each of `size` positions takes of those of the grid: (size, grid).

        Two products with it are the interpolation of all channels. PyTorch's own, which goes through the channels one
        after the other in each position, took 7 ms on an H200.
        """
        identity = torch.eye(self.grid, device=self.position_embeddings.device)[None, None]
        return F.interpolate(identity, (size, self.grid), mode="bicubic", align_corners=False)[0, 0]


class PatchEmbeddings(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, config.public.vit, config.public.vit_patch, config.public.vit_patch)


class Encoder(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.public.vit_depth))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layer:
            x = layer(x)
        return x


class Layer(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.public.vit
        self.norm1 = nn.LayerNorm(width, 1e-6)
        self.attention = SelfAttention(width, width // config.public.vit_head)
        self.layer_scale1: LayerScale | None = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, 1e-6)
        self.mlp = Mlp(width)
        self.layer_scale2: LayerScale | None = LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.attention(self.norm1(x))
        x, normed = ops.skip_norm(hidden if self.layer_scale1 is None else self.layer_scale1(hidden), x, self.norm2)
        hidden = self.mlp(normed)
        return x + (hidden if self.layer_scale2 is None else self.layer_scale2(hidden))


class SelfAttention(JoinedLinear):
    """x (B, N, C) to (B, N, C)."""

    names = ("q_proj", "k_proj", "v_proj")

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.o_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, -1)
        return self.o_proj(ops.self_attention(qkv).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.lambda1 = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.lambda1


class Resampler(nn.Module):
    """Tokens of the ViT (B, N, vit) to guidance tokens (B, T, D): learnt queries ask them once, then an MLP.

    The paper does not say how its 77 tokens are made; queries are the way that serves pictures of any size (as in
    Flamingo, Alayrac et al., 2022).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.public.tokens
        self.heads = max(1, width // config.public.unet_head)
        self.queries = nn.Parameter(torch.randn(config.public.guidance_tokens, width))
        self.kv = nn.Linear(config.public.vit, 2 * width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        batch, count, _ = tokens.shape
        k, v = self.kv(tokens).reshape(batch, count, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        q = self.queries.to(k.dtype).reshape(1, len(self.queries), self.heads, -1).transpose(1, 2)
        found = F.scaled_dot_product_attention(q.expand(batch, -1, -1, -1), k, v).transpose(1, 2).flatten(2)
        x = self.queries.to(found.dtype) + self.out(found)
        return x + self.mlp(self.norm(x))
