"""The tensors of a DINOv2 backbone, by the names of the official `dinov2_vit*14_pretrain.pth` files.

These names are the canonical ones here: every file that `segic.weights` hands out for a backbone has exactly them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from segic.errors import UsageError

Shape = tuple[int, ...]

PATCH = 14  # pixels per patch side
GRID = 37  # patches per side of the 518-pixel image that the position embedding belongs to
HEAD = 64  # of the width, what one head of attention has
REGISTERS = 4  # register tokens of the -reg variants
OPTIONAL = ("mask_token",)  # pre-training only; in the official files, of no use to a frozen backbone, dropped


@dataclass(frozen=True)
class DinoV2Layout:
    """The sizes that tell the DINOv2 variants apart."""

    name: str
    width: int
    depth: int
    hidden: int  # inner width of the MLP: of fc1, or of each half of w12
    swiglu: bool = False
    registers: int = 0

    def shapes(self) -> dict[str, Shape]:
        """Name to shape of every tensor that the backbone needs (no `mask_token`)."""
        c, h = self.width, self.hidden
        shapes: dict[str, Shape] = {
            "cls_token": (1, 1, c),
            "pos_embed": (1, 1 + GRID * GRID, c),
            "patch_embed.proj.weight": (c, 3, PATCH, PATCH),
            "patch_embed.proj.bias": (c,),
            "norm.weight": (c,),
            "norm.bias": (c,),
        }
        if self.registers:
            shapes["register_tokens"] = (1, self.registers, c)
        mlp: dict[str, Shape]
        if self.swiglu:
            mlp = {"w12.weight": (2 * h, c), "w12.bias": (2 * h,), "w3.weight": (c, h), "w3.bias": (c,)}
        else:
            mlp = {"fc1.weight": (h, c), "fc1.bias": (h,), "fc2.weight": (c, h), "fc2.bias": (c,)}
        for i in range(self.depth):
            block = f"blocks.{i}."
            for norm in ("norm1", "norm2"):
                shapes[f"{block}{norm}.weight"] = (c,)
                shapes[f"{block}{norm}.bias"] = (c,)
            shapes[f"{block}attn.qkv.weight"] = (3 * c, c)
            shapes[f"{block}attn.qkv.bias"] = (3 * c,)
            shapes[f"{block}attn.proj.weight"] = (c, c)
            shapes[f"{block}attn.proj.bias"] = (c,)
            shapes[f"{block}ls1.gamma"] = (c,)
            shapes[f"{block}ls2.gamma"] = (c,)
            shapes.update({f"{block}mlp.{key}": shape for key, shape in mlp.items()})
        return shapes


_PLAIN = (
    DinoV2Layout("dinov2-s", width=384, depth=12, hidden=1536),
    DinoV2Layout("dinov2-b", width=768, depth=12, hidden=3072),
    DinoV2Layout("dinov2-l", width=1024, depth=24, hidden=4096),
    DinoV2Layout("dinov2-g", width=1536, depth=40, hidden=4096, swiglu=True),
)
_REG = tuple(DinoV2Layout(f"{p.name}-reg", p.width, p.depth, p.hidden, p.swiglu, registers=REGISTERS) for p in _PLAIN)
LAYOUTS: Mapping[str, DinoV2Layout] = {layout.name: layout for layout in (*_PLAIN, *_REG)}


def detect_dinov2(shapes: Mapping[str, Shape]) -> DinoV2Layout:
    """The variant that a state dict belongs to, by `cls_token`'s width and the presence of `register_tokens`.

    Raises UsageError when it is none of DINOv2's. The other tensors are not looked at here: `check_shapes` does that.
    """
    cls = shapes.get("cls_token")
    if cls is None:
        raise UsageError(
            "this is not a DINOv2 state dict: it has no tensor 'cls_token'; expected the names of the official "
            "dinov2_vit*14_pretrain.pth files"
        )
    registers = "register_tokens" in shapes
    for layout in LAYOUTS.values():
        if cls == (1, 1, layout.width) and bool(layout.registers) == registers:
            return layout
    widths = ", ".join(f"{p.width} ({p.name})" for p in _PLAIN)
    raise UsageError(f"cls_token has the shape {cls}: no DINOv2 variant has it; expected (1, 1, C) with C of {widths}")


def check_shapes(found: Mapping[str, Shape], expected: Mapping[str, Shape], what: str) -> None:
    """Raise UsageError that lists what is missing, unexpected or of another shape (the first eight of each)."""
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    wrong = [
        f"{key} is {found[key]}, expected {expected[key]}"
        for key in expected
        if key in found and found[key] != expected[key]
    ]
    faults = [
        f"{label} ({len(names)}): {_some(names)}"
        for label, names in (("missing", missing), ("unexpected", unexpected), ("wrong shape", wrong))
        if names
    ]
    if faults:
        raise UsageError(f"the tensors are not those of {what}: " + "; ".join(faults))


def _some(names: list[str], limit: int = 8) -> str:
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")
