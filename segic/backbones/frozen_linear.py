"""Linear layers that are never trained, with weights laid out as a CPU's products want them."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segic.devices import cpu_multiplies_bfloat16
from segic.parts import AT_ONCE


class FrozenLinear(nn.Linear):
    """`nn.Linear`, without gradients. In bfloat16 on a CPU its weight is kept in the order in which oneDNN reads it,
    and is no parameter; otherwise oneDNN brings it into some such order for every product, which costs a quarter of
    the time. Results are the same to the bit.

    gelu: of the result, which oneDNN then takes before it rounds.
    """

    packed: Tensor | None = None

    def __init__(self, inputs: int, outputs: int, *, gelu: bool = False):
        super().__init__(inputs, outputs)
        self.gelu = gelu

    def forward(self, x: Tensor) -> Tensor:
        if self.packed is None:
            out = F.linear(x, self.weight, self.bias)
            return F.gelu(out) if self.gelu else out
        after = "gelu" if self.gelu else "none"
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, after, [], "none")
        return found

    def pack(self) -> None:
        """Changes nothing where it does not pay or torch does not know how."""
        weight = self.weight
        if self.packed is None and weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and _knows_how():
            self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), AT_ONCE)
            self.register_parameter("weight", None)

    def unpack(self) -> None:
        """The weight is a parameter again, as what moves, copies or saves modules expects."""
        if self.packed is not None:
            self.register_parameter("weight", self._plain())
            self.packed = None

    def _plain(self) -> nn.Parameter:
        assert self.packed is not None
        return nn.Parameter(self.packed.to_dense(), requires_grad=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FrozenLinear":
        self.unpack()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.pack()
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.packed is not None:
            destination[f"{prefix}weight"] = self._plain().detach()

    def _load_from_state_dict(self, *given: Any) -> None:
        self.unpack()
        super()._load_from_state_dict(*given)
        self.pack()

    def __getstate__(self) -> dict[str, Any]:
        # By value: a tensor made here would be gone before a process that is spawned could share it.
        state = self.__dict__.copy()
        if state.pop("packed", None) is not None:
            state["plain"] = self._plain().view(torch.int16).numpy()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        plain = state.pop("plain", None)
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if plain is not None:
            weight = torch.tensor(plain, device="cpu").view(torch.bfloat16)
            self.register_parameter("weight", nn.Parameter(weight, requires_grad=False))
        self.pack()


def _knows_how() -> bool:
    """Whether this CPU multiplies bfloat16, and torch has the functions that torch.compile lays weights out with. They
    have had no public name since torch 2.0.
    """
    names = ("_linear_pointwise", "_reorder_linear_weight")
    return cpu_multiplies_bfloat16() and all(hasattr(torch.ops.mkldnn, name) for name in names)
