"""From a name to a model that is ready to run."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from segic import __version__
from segic.backbones import MEASURED_IN_INT8, build_backbone, width_of
from segic.config import ModelConfig, check_size
from segic.decoder import Decoder
from segic.devices import beside_products, choose_device, choose_dtype, choose_products
from segic.errors import SegicError, UsageError
from segic.model import SEGIC
from segic.presets import DEFAULT_MODEL, Preset, find_preset
from segic.skeleton import without_numbers
from segic.weights.dinov2_layout import PATCH
from segic.weights.hashing import Progress
from segic.weights.registry import REGISTRY
from segic.weights.resolve import resolve
from segic.weights.tensors import load_tensors, read_header


def build_decoder(config: ModelConfig) -> Decoder:
    """An untrained decoder for the configuration."""
    width = width_of(config.backbone) * max(1, len(config.layers))
    return Decoder(config, width, width)


def config_in(path: Path) -> ModelConfig | None:
    """The configuration that a decoder's file carries, from its header alone; None where it has none that can be read,
    of which `load_decoder` tells more."""
    try:
        return _config(read_header(path)[1])
    except (KeyError, ValueError, TypeError, AttributeError, UsageError):
        return None


def _config(metadata: Mapping[str, str]) -> ModelConfig:
    return ModelConfig.from_dict(json.loads(metadata["config"]))


def load_decoder(path: Path, config: ModelConfig) -> tuple[Decoder, ModelConfig]:
    """The decoder of a safetensors file, and its configuration: the file's own where it carries one, else `config`.

    Raises UsageError for a file that holds something else.
    """
    _, metadata = read_header(path)
    try:
        if "config" in metadata:
            config = _config(metadata)
        with without_numbers():
            decoder = build_decoder(config)
    except (ValueError, TypeError, AttributeError, UsageError) as error:
        raise UsageError(
            f"{path}: its configuration is none that this version of segic ({__version__}) can read: {error}"
        ) from error
    tensors = {key: value.float() for key, value in load_tensors(path).items()}
    try:
        decoder.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise UsageError(f"{path} does not hold a decoder for this model: {error}") from error
    return decoder, config


def _decoder_path(preset: Preset, weights: Path | None, fetch: bool, progress: Progress | None) -> Path:
    """The decoder's file. A preset that nobody has published weights of takes a local file, or says so."""
    if preset.name in REGISTRY:
        return resolve(preset.name, weights, fetch=fetch, progress=progress)
    if weights is None:
        raise UsageError(
            f"the model {preset.name} ({preset.description}) comes without weights: give a decoder of your own "
            "(--weights), or take one of those whose weights `segic models list` has"
        )
    return weights


def _decoder_dtype(backbone: torch.dtype, device: torch.device) -> torch.dtype:
    """The backbone's precision on GPUs, and bfloat16 on CPUs that multiply it; else float32."""
    shared = device.type == "cuda" or (backbone == torch.bfloat16 and choose_dtype("auto", device) == backbone)
    return backbone if shared else torch.float32


def load_model(
    name: str = DEFAULT_MODEL,
    *,
    weights: Path | str | None = None,
    backbone_weights: Path | str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    size: int | None = None,
    fetch: bool = True,
    progress: Progress | None = None,
) -> SEGIC:
    """A model by name, its files fetched into the local cache if need be.

    weights, backbone_weights: local files to take instead. device: auto, cpu, cuda, cuda:N, mps. dtype: precision of
    the backbone (auto, float32, bfloat16, float16, int8), which the decoder shares where the device multiplies in it;
    int8 is for CPUs and for the backbone's products, beside which all else has a precision that the CPU multiplies.
    size: pixels, other than the preset's; see `ModelConfig`. Raises UsageError for a value that cannot be met, and as
    `segic.weights.resolve`.
    """
    preset = find_preset(name)
    size = None if size is None else check_size(size)
    target = choose_device(device)
    choose_products(dtype, target, int8=False)  # refuses what there is not, before anything is fetched
    decoder_path = _decoder_path(preset, None if weights is None else Path(weights), fetch, progress)
    decoder, config = load_decoder(decoder_path, preset.config)
    if size is not None:
        config = replace(config, size=size)
    if config.canvas == "square" and config.size % PATCH:
        near = config.size // PATCH * PATCH
        raise UsageError(
            f"size {config.size}: {name} sees squares of whole patches of {PATCH} pixels; give {near} or {near + PATCH}"
        )
    backbone_path = resolve(
        config.backbone, None if backbone_weights is None else Path(backbone_weights), fetch=fetch, progress=progress
    )
    products = choose_products(dtype, target, int8=config.backbone in MEASURED_IN_INT8)
    precision = beside_products(products, target)
    try:
        backbone = build_backbone(config.backbone, config.layers, backbone_path, int8=products == torch.int8)
        backbone = backbone.to(device=target, dtype=precision)
        decoder = decoder.to(device=target, dtype=_decoder_dtype(precision, target))
    except torch.cuda.OutOfMemoryError as error:
        raise SegicError(
            f"{name} does not fit into the memory of {target}; try --device cpu or a smaller model"
        ) from error
    return SEGIC(config, backbone, decoder, name, files={"decoder": decoder_path, "backbone": backbone_path})
