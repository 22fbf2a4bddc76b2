"""A trained decoder as one file: half precision, with its configuration, as `segic.loading.load_decoder` reads it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segic.config import ModelConfig
from segic.errors import SegicError, UsageError
from segic.weights.tensors import save_tensors

FORMAT = "segic"


def export_decoder(
    state_dict: Mapping[str, Tensor], config: ModelConfig, path: Path, metadata: Mapping[str, str]
) -> None:
    """Writes a decoder's weights as float16 safetensors, whole or not at all.

    state_dict: all of a `Decoder`'s tensors, any precision. metadata: more to be said in the file's header, text by
    name; "format" and "config" are added. The same input gives the same bytes. Raises UsageError for a name that is not
    *.safetensors, and SegicError for weights that half precision cannot hold or a file that cannot be written.
    """
    if path.suffix != ".safetensors":
        raise UsageError(f"{path}: expected a name that ends in .safetensors")
    half: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        half[name] = tensor.detach().cpu().to(torch.float16)
        if not half[name].isfinite().all():
            raise SegicError(
                f"the weight {name} is not finite in half precision (largest value {tensor.abs().max().item():g}); the "
                "training has diverged, export an earlier checkpoint"
            )
    header = {**metadata, "format": FORMAT, "config": canonical(config.as_dict())}
    save_tensors(half, path, header)


def canonical(value: Any) -> str:
    """JSON with its keys in order: equal values give equal text."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
