"""What each weight is: scale-invariant, the head, or free. Not here: how that is found out (``probe.py``)."""

import difflib
import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn

ROLES = ("scale_invariant", "head", "free")


@dataclass
class ParamRole:
    """A parameter and its role."""

    name: str
    """Its name in ``model.named_parameters()``."""
    shape: tuple[int, ...]
    role: str
    """``scale_invariant``, ``head`` or ``free``."""
    channel_axis: int | None = None
    """The dimension that counts output channels, where the layer's layout is known."""
    channel_invariant: bool = False
    """Whether each output channel is scale-invariant by itself (batch norm: yes, layer norm: no)."""
    deviation: float | None = None
    """Largest relative change of the loss when the tensor was scaled; ``None`` where it was not probed."""
    overridden: bool = False
    """Whether the user set the role."""
    held: bool = False
    """Whether its norm is to be held although it is not scale-invariant."""
    joint: int | None = None
    """The number of the group that it is scale-invariant with, where that was sought; it is then held with it."""
    notes: list[str] = field(default_factory=list)
    """Why the role is what it is, where there is something to say."""

    @property
    def is_weight(self) -> bool:
        """Weights have two dimensions or more; gains and biases have one."""
        return len(self.shape) >= 2

    @property
    def c_out(self) -> int:
        """Number of output channels; of the first dimension where the layout is not known."""
        return self.shape[self.channel_axis or 0]

    @property
    def kind(self) -> str:
        """The group of parameters that share a rule."""
        if self.role != "free":
            return self.role
        if self.joint is not None:
            return f"joint_{self.joint}"
        return "gains_and_biases" if not self.is_weight else "held" if self.held else "free"


class Roles:
    """The table of roles of one model; prints as one."""

    def __init__(self, model: nn.Module, rows: list[ParamRole]) -> None:
        self.model = model
        self.rows = rows

    def __iter__(self) -> Iterator[ParamRole]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def get(self, name: str) -> ParamRole:
        """The row of the parameter of this name.

        Raises:
            KeyError: there is none; the message has the nearest name.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(self._unknown(name))

    def _unknown(self, name: str) -> str:
        nearest = difflib.get_close_matches(name, [row.name for row in self.rows], 1, 0.0)
        return f"no trainable parameter matches {name!r}; the nearest is {nearest[0]!r}" if nearest else "no parameters"

    def matching(self, pattern: str) -> list[ParamRole]:
        """The rows whose name matches ``pattern``, in which ``*`` stands for any text.

        Raises:
            KeyError: there is none; the message has the nearest name.
        """
        found = [row for row in self.rows if fnmatch.fnmatchcase(row.name, re.sub(r"[\[?]", "[\\g<0>]", pattern))]
        if not found:
            raise KeyError(self._unknown(pattern))
        return found

    def set(self, pattern: str, role: str) -> None:
        """Sets the role of every parameter that matches ``pattern``; gains and biases stay free.

        Raises:
            KeyError: no parameter matches.
            ValueError: an unknown role, or a second head.
        """
        found = self.matching(pattern)
        if checked(role) != "free":
            thin = found[0].name
            found = [row for row in found if row.is_weight]
            if not found:
                raise ValueError(f"{thin} has one dimension: gains and biases are free")
        heads = [row.name for row in self.rows if row.role == "head" and row not in found]
        if role == "head" and len(found) > 1:
            raise ValueError(f"one weight can be the head; {pattern!r} matches {', '.join(r.name for r in found)}")
        for row in found:
            row.role, row.overridden, row.held, row.joint = role, True, False, None
        if role == "head":
            for name in heads:
                self.get(name).role = "free"

    @property
    def head(self) -> ParamRole | None:
        """The head's row."""
        return next((row for row in self.rows if row.role == "head"), None)

    def worst_deviation(self) -> tuple[str, float] | None:
        """Name and deviation of the scale-invariant weight whose scaling changed the loss most."""
        found = [(r.name, r.deviation) for r in self.rows if r.role == "scale_invariant" and r.deviation is not None]
        return max(found, key=lambda pair: pair[1], default=None)

    def param_groups(self) -> list[dict[str, Any]]:
        """Parameter groups for any optimizer: one for each kind that occurs: ``scale_invariant``, ``head``, ``joint_1``
        and on, ``held``, ``free``, ``gains_and_biases``. Each has ``params``, ``names`` and ``kind``.
        """
        params = dict(self.model.named_parameters())
        groups: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            group = groups.setdefault(row.kind, {"params": [], "names": [], "kind": row.kind})
            group["params"].append(params[row.name])
            group["names"].append(row.name)
        return list(groups.values())

    def __str__(self) -> str:
        """One line a parameter: name, shape, role, and why."""
        cells = [(row.name, "x".join(map(str, row.shape)) or "scalar", row.role, _why(row)) for row in self.rows]
        widths = [max((len(cell[column]) for cell in cells), default=0) for column in range(3)]
        lines = ["  ".join([*(c.ljust(w) for c, w in zip(cell, widths, strict=False)), cell[3]]) for cell in cells]
        return "\n".join(lines)

    __repr__ = __str__


def checked(role: str) -> str:
    """``role``, or an error that names the roles."""
    if role not in ROLES:
        raise ValueError(f"role must be one of {', '.join(ROLES)}; got {role!r}")
    return role


def _why(row: ParamRole) -> str:
    if row.overridden:
        why = "set by the user"
    elif row.deviation is None:
        why = "a weight that is not probed" if row.is_weight else "gains and biases are not held"
    else:
        changes = "leaves" if row.role == "scale_invariant" else "changes"
        why = f"scaling it {changes} the loss ({row.deviation:.1e})"
    if row.channel_invariant:
        why += ", each channel too"
    if row.role == "head":
        why += "; the last linear layer, or named"
    return "; ".join([why, *(["held without being invariant"] if row.held else []), *row.notes])
