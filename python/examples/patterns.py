"""Made-up images for the other examples: ten random patterns, with noise."""

import torch

_PATTERNS = torch.randn(10, 1, 12, 12, generator=torch.Generator().manual_seed(0))


def images(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``n`` images and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(10, (n,), generator=generator)
    return _PATTERNS[labels] + 2.0 * torch.randn(n, 1, 12, 12, generator=generator), labels
