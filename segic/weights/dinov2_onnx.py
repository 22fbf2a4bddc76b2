"""DINOv2 tensors out of an ONNX graph that was exported from transformers' `Dinov2Model`.

The exporter keeps the names of biases and norms (`backbone.encoder.layer.0...`) but gives constant-folded tensors
numbered names: linear weights are the second input of MatMul nodes, transposed, and the position embedding is split
into the class token's part and the patches' part. Those are found by the nodes that use them, never by number.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from segic.errors import SegicError, UsageError
from segic.weights.dinov2_layout import GRID, PATCH, check_shapes, detect_dinov2

if TYPE_CHECKING:
    from onnx import GraphProto, TensorProto

_LAYER = re.compile(r"encoder\.layer\.(\d+)\.")


def read_dinov2_onnx(path: Path, prefix: str = "backbone") -> dict[str, torch.Tensor]:
    """The canonical DINOv2 tensors (fp32) of the ONNX file at `path`, whose backbone lives under `prefix`.

    Raises UsageError when the file cannot be read as ONNX or a tensor is missing, ambiguous or of another shape.
    """
    try:
        import onnx
    except ImportError as error:  # pragma: no cover - onnx is a core dependency
        raise SegicError("reading an ONNX file needs the package onnx: pip install onnx") from error
    try:
        graph = onnx.load(str(path)).graph
    except Exception as error:  # onnx raises protobuf's own errors, which share no base class
        raise UsageError(f"{path} cannot be read as an ONNX file: {error}") from error
    try:
        return _Reader(graph, prefix).state_dict()
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    except (RuntimeError, ValueError, IndexError) as error:  # torch's and onnx's, of tensors that do not fit together
        raise UsageError(f"{path} is no export of a Dinov2Model, or damaged: {error}") from error


class _Reader:
    """Finds tensors in one graph, each exactly once."""

    def __init__(self, graph: GraphProto, prefix: str) -> None:
        self.prefix = prefix
        self.tensors: dict[str, TensorProto] = {}
        for tensor in graph.initializer:
            if tensor.name in self.tensors:
                raise UsageError(f"the initializer {tensor.name!r} occurs twice")
            self.tensors[tensor.name] = tensor
        self.inputs: dict[str, list[str]] = {}
        for node in graph.node:
            if node.name and node.name in self.inputs:
                raise UsageError(f"the node {node.name!r} occurs twice")
            self.inputs[node.name] = list(node.input)

    def state_dict(self) -> dict[str, torch.Tensor]:
        layers = [int(m.group(1)) for name in self.tensors if (m := _LAYER.search(name))]
        if not layers:
            raise UsageError(f"no tensor is named {self.prefix}.encoder.layer.*: not a Dinov2 export under that prefix")
        registers = next((name for name in self.tensors if name.endswith("register_tokens")), None)
        if registers is not None:  # else it would pass for the variant without
            raise UsageError(
                f"the graph has register tokens ({registers}), and only exports of a Dinov2Model, without them, are "
                "read: convert the official dinov2_vit*14_reg4_pretrain.pth instead"
            )
        cls_token = self.named("embeddings.cls_token")
        state = {
            "cls_token": cls_token,
            "pos_embed": self.position(cls_token.shape[-1]),
            "patch_embed.proj.weight": self.named("embeddings.patch_embeddings.projection.weight"),
            "patch_embed.proj.bias": self.named("embeddings.patch_embeddings.projection.bias"),
            "norm.weight": self.named("layernorm.weight"),
            "norm.bias": self.named("layernorm.bias"),
        }
        for i in range(max(layers) + 1):
            state.update({f"blocks.{i}.{key}": tensor for key, tensor in self.block(i).items()})
        shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
        layout = detect_dinov2(shapes)
        check_shapes(shapes, layout.shapes(), layout.name)
        return state

    def position(self, width: int) -> torch.Tensor:
        """The position embedding (1, 1 + GRID * GRID, width), of the class token and of the patches."""
        parts = []
        for node, count in (("embeddings/Concat_6", 1), ("embeddings/Reshape_1", GRID * GRID)):
            part = self.fed_to(node)
            if part.numel() != count * width:
                raise UsageError(
                    f"the position embedding at the node /{self.prefix}/{node} has the shape {tuple(part.shape)}, "
                    f"expected {count} x {width}: export the model for pictures of {GRID * PATCH} x {GRID * PATCH}"
                )
            parts.append(part.reshape(1, count, width))
        return torch.cat(parts, dim=1)

    def block(self, i: int) -> dict[str, torch.Tensor]:
        layer = f"encoder.layer.{i}."
        qkv = [f"attention.attention.{part}" for part in ("query", "key", "value")]
        out: dict[str, torch.Tensor] = {
            "attn.qkv.weight": torch.cat([self.linear(i, name) for name in qkv]),
            "attn.qkv.bias": torch.cat([self.named(f"{layer}{name}.bias") for name in qkv]),
            "ls1.gamma": self.named(layer + "layer_scale1.lambda1"),
            "ls2.gamma": self.named(layer + "layer_scale2.lambda1"),
        }
        for ours, theirs in (("attn.proj", "attention.output.dense"), ("mlp.fc1", "mlp.fc1"), ("mlp.fc2", "mlp.fc2")):
            out[ours + ".weight"] = self.linear(i, theirs)
            out[ours + ".bias"] = self.named(f"{layer}{theirs}.bias")
        for norm in ("norm1", "norm2"):
            out[norm + ".weight"] = self.named(f"{layer}{norm}.weight")
            out[norm + ".bias"] = self.named(f"{layer}{norm}.bias")
        return out

    def named(self, name: str) -> torch.Tensor:
        """The initializer `prefix.name`."""
        return self.tensor(f"{self.prefix}.{name}")

    def linear(self, i: int, name: str) -> torch.Tensor:
        """The weight (out, in) of the linear layer `name` of block `i`: its MatMul's initializer is (in, out)."""
        return self.fed_to(f"encoder/layer.{i}/{name.replace('.', '/')}/MatMul").T.contiguous()

    def fed_to(self, node: str) -> torch.Tensor:
        """The one initializer among the inputs of the node `/prefix/node`."""
        full = f"/{self.prefix}/{node}"
        if full not in self.inputs:
            raise UsageError(f"the graph has no node {full!r}")
        found = [name for name in self.inputs[full] if name in self.tensors]
        if len(found) != 1:
            raise UsageError(f"the node {full!r} has {len(found)} initializers among its inputs, expected exactly 1")
        return self.tensor(found[0])

    def tensor(self, name: str) -> torch.Tensor:
        from onnx import numpy_helper

        if name not in self.tensors:
            raise UsageError(f"the tensor {name!r} is missing")
        array = np.array(numpy_helper.to_array(self.tensors[name]))  # a copy: the graph's buffer is read-only
        if array.dtype != np.float32:
            raise UsageError(f"the tensor {name!r} has the dtype {array.dtype}, expected float32")
        return torch.from_numpy(array)
