"""FixNorm for PyTorch: roles of weights, the optimizer, records of runs."""

from fixnorm.torch.optimizer import FixNorm
from fixnorm.torch.probe import probe
from fixnorm.torch.recorder import Recorder
from fixnorm.torch.risk import cross_boundary_risk
from fixnorm.torch.roles import ParamRole, Roles

__all__ = ["FixNorm", "ParamRole", "Recorder", "Roles", "cross_boundary_risk", "probe"]
