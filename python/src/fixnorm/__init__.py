"""FixNorm: train networks by controlling their weights' norms instead of decaying them.

``fixnorm.torch`` is the optimizer for PyTorch.
"""
