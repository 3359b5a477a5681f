"""FixNorm for PyTorch: roles of weights, the optimizer, records of runs."""

from fixnorm.torch.optimizer import FixNorm
from fixnorm.torch.probe import probe
from fixnorm.torch.roles import ParamRole, Roles

__all__ = ["FixNorm", "ParamRole", "Roles", "probe"]
