"""A small pre-LN transformer on characters, for the other tests and for benches."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, width: int, heads: int, bias: bool, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.heads, self.activation = heads, activation
        self.norm1, self.norm2 = nn.LayerNorm(width, bias=bias), nn.LayerNorm(width, bias=bias)
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=bias), nn.Linear(width, width, bias=bias)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width, bias=bias), nn.Linear(4 * width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(mixed.transpose(1, 2).reshape(n, length, width))
        return x + self.fc2(self.activation(self.fc1(self.norm2(x))))


class Gpt(nn.Module):
    """Token ids ``[n, length]`` to logits ``[n, length, tokens]``."""

    def __init__(
        self,
        tokens: int = 17,
        length: int = 12,
        width: int = 24,
        depth: int = 2,
        heads: int = 3,
        bias: bool = True,
        activation: Callable[[Tensor], Tensor] = F.gelu,
    ) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(tokens, width), nn.Embedding(length, width)
        for table in (self.tokens, self.positions):
            nn.init.normal_(table.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(width, heads, bias, activation) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width, bias=bias), nn.Linear(width, tokens, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def gpt_loss(model: nn.Module, seed: int = 0) -> Tensor:
    """Cross-entropy of the next token of random text."""
    ids = torch.randint(17, (4, 13), generator=torch.Generator().manual_seed(seed))
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
