"""F_p of `sd21`: as many guidance tokens as a prompt has, whatever the size of the picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import ModelConfig


class Resampler(nn.Module):
    """Tokens of the ViT (B, N, vit) to guidance tokens (B, T, D): learnt queries ask them once, then an MLP.

    The paper does not say how its 77 tokens are made; queries are the way that serves pictures of any size (as in
    Flamingo, Alayrac et al., 2022).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.tokens
        self.heads = max(1, width // config.public.unet_head)
        self.queries = nn.Parameter(torch.randn(config.public.guidance_tokens, width))
        self.kv = nn.Linear(config.vit, 2 * width)
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
