"""The UNet's transformer: pixels among themselves, then pixels to the guidance tokens, then a GEGLU feed-forward."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import ops
from ..blocks import JoinedLinear


class SelfAttention(JoinedLinear):
    """x (B, N, C) to (B, N, C)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(width, width, bias=False)
        self.to_v = nn.Linear(width, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, -1)
        return self.to_out[0](ops.self_attention(qkv).flatten(2))


class TokenAttention(nn.Module):
    """x (B, N, C) asks, tokens (B, T, D) answer: (B, N, C).

    Once keys and values of all blocks are one product, `tokens` are its result and `place` says where ours are in it.
    """

    def __init__(self, width: int, token_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(token_width, width, bias=False)
        self.to_v = nn.Linear(token_width, width, bias=False)
        self.place: slice | None = None
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        q = self.to_q(x).unflatten(-1, (self.heads, -1))
        if self.place is not None:
            kv = tokens[..., self.place]
        else:
            kv = torch.cat([self.to_k(tokens), self.to_v(tokens)], -1)
        k, v = kv.reshape(*kv.shape[:2], 2, self.heads, q.shape[-1]).unbind(2)
        return self.to_out[0](ops.guided_attention(q, k, v).flatten(2))


class GEGLU(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        return ops.geglu(self.proj(x))


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GEGLU(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    def __init__(self, width: int, token_width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = TokenAttention(width, token_width, heads)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        x, normed = ops.skip_norm(self.attn1(self.norm1(x)), x, self.norm2)
        x, normed = ops.skip_norm(self.attn2(normed, tokens), x, self.norm3)
        return x + self.ff(normed)


class Transformer(nn.Module):
    """x (B, C, H, W) + a transformer block over its pixels, guided by tokens (B, T, D)."""

    def __init__(self, width: int, token_width: int, heads: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, 1e-6)
        self.proj_in = nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(width, token_width, heads)])
        self.proj_out = nn.Linear(width, width)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        batch, width, height, across = x.shape
        hidden = ops.group_norm(x, self.norm, silu=False).permute(0, 2, 3, 1).reshape(batch, height * across, width)
        hidden = self.proj_in(hidden)
        for block in self.transformer_blocks:
            hidden = block(hidden, tokens)
        return x + self.proj_out(hidden).reshape(batch, height, across, width).permute(0, 3, 1, 2)
