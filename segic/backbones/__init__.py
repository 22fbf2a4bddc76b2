"""Frozen vision foundation models behind one protocol."""

from pathlib import Path

from segic.backbones.base import Backbone
from segic.errors import UsageError

__all__ = ["MEASURED_IN_INT8", "Backbone", "build_backbone", "check_backbone", "width_of"]

# In whose features products of bytes make no difference to masks (docs/options.md). Larger ones may have single
# numbers so large that all others are lost in common steps with them.
MEASURED_IN_INT8 = frozenset({"dinov2-s"})


def width_of(name: str) -> int:
    """C, the channels of one block's features."""
    from segic.backbones.dinov2 import CONFIGS

    return CONFIGS[_known(name)].width


def check_backbone(name: str, layers: tuple[int, ...]) -> None:
    """UsageError for a backbone that `build_backbone` does not know, or a layer that it does not have."""
    from segic.backbones.dinov2 import CONFIGS, check_layers

    check_layers(CONFIGS[_known(name)], layers)


def build_backbone(name: str, layers: tuple[int, ...], weights: Path | None, *, int8: bool = False) -> Backbone:
    """The named backbone with the tensors of a safetensors file, mapped rather than read; random ones for None.

    int8: its products are of bytes, see `segic.backbones.int8`. Raises UsageError for a name that is not known, a file
    of another backbone, and int8 where that is not to be had.
    """
    from segic.backbones.dinov2 import CONFIGS, DinoV2
    from segic.skeleton import without_numbers
    from segic.weights.tensors import load_tensors

    config = CONFIGS[_known(name)]
    if weights is None:
        random = DinoV2(config, layers)
        return random.to_int8() if int8 else random
    with without_numbers():
        backbone = DinoV2(config, layers)
    unused = tuple(f"blocks.{number}." for number in range(len(backbone.blocks), config.depth))
    found = load_tensors(weights).items()
    tensors = {key: value for key, value in found if key != "mask_token" and not key.startswith(unused)}
    try:
        backbone.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise UsageError(f"{weights} does not hold the weights of {name}: {error}") from error
    return backbone.to_int8() if int8 else backbone


def _known(name: str) -> str:
    from segic.backbones.dinov2 import CONFIGS

    if name not in CONFIGS:
        raise UsageError(f"no backbone is named {name!r}; there are {', '.join(CONFIGS)}")
    return name
