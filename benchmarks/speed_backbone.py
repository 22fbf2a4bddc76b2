"""The backbone timed by itself, where the pipeline's stage of that name does more.

That stage prepares the picture and computes what the decoder and the matching need of a frame as well. The published
procedure's does not, and what a backbone's rate is compared with would be wrong.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from segic.backbones.base import Backbone
from segic.backbones.fovea import Fovea
from segic.model import SEGIC
from segic_vos.timings import StageClock, Timings


class TimedBackbone:
    """A backbone whose calls a clock adds up. For CPUs: elsewhere a call returns before it is done."""

    def __init__(self, backbone: Backbone, clock: StageClock):
        self.name = backbone.name
        self.stride = backbone.stride
        self.width = backbone.width
        self._backbone = backbone
        self._clock = clock

    @property
    def dtype(self) -> torch.dtype:
        return self._backbone.dtype

    @property
    def precision(self) -> torch.dtype:
        return self._backbone.precision

    def __call__(self, pixels: Tensor, valid: tuple[int, int] | None = None, fovea: Fovea | None = None) -> Tensor:
        with self._clock.running():
            return self._backbone(pixels, valid, fovea)

    def to(self, *, device: torch.device, dtype: torch.dtype) -> "TimedBackbone":
        return TimedBackbone(self._backbone.to(device=device, dtype=dtype), self._clock)


def backbone_alone(model: SEGIC, run: Callable[[SEGIC], Timings]) -> Timings:
    """`run` with `model`, and its time by stage as the published procedure counts it: `backbone` is the backbone,
    `masks` all else that comes between frames and masks. On a GPU, which works on both at once, as the pipeline has it.
    """
    if model.device.type != "cpu":
        return run(model)
    clock = StageClock()
    backbone = TimedBackbone(model.backbone, clock)
    timings = run(SEGIC(model.config, backbone, model.decoder, model.name, model.files))
    alone = clock.total()
    return replace(timings, backbone=alone, masks=timings.masks + timings.backbone - alone)
