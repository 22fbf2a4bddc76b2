"""The published video procedure, literally: what `segic bench speed --against published` runs beside segic.

Written from the description of the released implementation's behaviour, so that speed and accuracy of both can be had
in one process, on the same weights and frames. Nothing here is meant to be fast, and none of `segic.model`'s ways of
saving work is used. As published:

- float32 throughout;
- the whole clip is decoded, resized, padded to a square and put on the device before anything else happens;
- the backbone takes one frame at a time, padding included;
- the frame's many-channel features are upsampled to a quarter of the canvas before the cosine (`published_steps`);
- similarity, decoder call and both upsamplings (to the canvas, then to the frame) run object by object;
- results are written when all of them are there. No two parts of the work overlap.

Its faults are not repeated where they would only make the comparison unfair: the first frame's output is the given
mask, ids are kept, and every object is decoded from the frame after its mask on. Where the description leaves it open,
the cheaper reading is taken: features are upsampled once a frame, and the image embedding is computed once a frame.

A model that matches densely (segic-s) has no published procedure. There "published" means the same procedure with that
model's own correspondence in the cosine's place: float32, a square canvas whose side is the longer side of the model's
own canvas, one frame at a time, the full masked similarity to the examples and to each recent frame formed again for
every object, one decoder call an object, no overlap. What the model is (its weights, the number of recent frames, the
window, topk, detail branch, residual) is the same; what differs beside the speed is the padding and the slightly
different scale that a square canvas brings, and that no mask is given up afterwards (`ModelConfig.reappear`, `drift`,
`cut`).
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from segic.canvas import Canvas
from segic.errors import UsageError
from segic.model import SEGIC
from segic_vos.frames import Annotation, Frame, FrameResult, Sink
from segic_vos.timings import StageClock, Timings

from .published_steps import DenseSteps, ReleasedSteps, Steps


@dataclass(frozen=True)
class Clip:
    """A clip as the published code holds it.

    frames: as decoded. pixels: (T, 3, *canvas.padded) float32 on the device, 0..255, zero in the padding.
    """

    frames: tuple[Frame, ...]
    pixels: Tensor
    canvas: Canvas


def published_model(model: SEGIC, frame: tuple[int, int]) -> SEGIC:
    """The same weights in float32, on the square canvas for frames of (height, width) pixels.

    The weight files are read again, since a backbone in half precision has lost what float32 needs; a model without
    files (made in memory) is used as it is and must be float32.
    """
    size = model.config.size if model.config.canvas == "square" else max(model.canvas(frame).padded)
    twin = model
    if model.files:
        from segic.loading import load_model

        twin = load_model(
            model.name,
            weights=model.files["decoder"],
            backbone_weights=model.files["backbone"],
            device=str(model.device),
            dtype="float32",
        )
    for precision in (twin.dtype, twin.precision):
        if precision != torch.float32:
            raise UsageError(f"the published procedure runs in float32 and this model without files is {precision}")
    return SEGIC(replace(model.config, canvas="square", size=size), twin.backbone, twin.decoder, model.name, twin.files)


def steps_of(model: SEGIC, meta: Tensor | None) -> Steps:
    """The steps for one clip. model: as `published_model` makes it. meta: (768,) for models that take text."""
    return ReleasedSteps(model, meta) if model.config.matching is None else DenseSteps(model)


@torch.no_grad()
def run_published(
    model: SEGIC, frames: Iterable[Frame], first: Annotation, sinks: Sequence[Sink], *, meta: Tensor | None = None
) -> Timings:
    """Follow the objects of `first`, the first frame's masks, through `frames`, and write them to every sink.

    model: as `published_model` makes it. Stages as `segic_vos.pipeline.run_pipeline` has them: resizing and the way to
    the device count to `backbone` on a GPU and to `masks` on a CPU.
    """
    device = model.device
    decode, write = StageClock(), StageClock()
    backbone, masks = StageClock(device), StageClock(device)
    steps = steps_of(model, meta)
    results: list[FrameResult] = []
    first_result = 0.0
    start = time.perf_counter()
    with decode.running():
        decoded = tuple(frames)
    with (backbone if device.type == "cuda" else masks).running():
        clip = load_clip(model, decoded)
    for index in range(len(clip.frames)):
        pixels = clip.pixels[index : index + 1]
        with backbone.running():
            features = model.backbone(pixels, clip.canvas.valid).float()
        with masks.running():
            if index == 0:
                steps.start(features, pixels, clip.canvas, _masks_of(first, device))
                results.append(FrameResult(first.labels, first.ids, dict.fromkeys(first.ids, 1.0), given=True))
            else:
                logits, scores = steps.step(features, pixels, clip.canvas)
                labels = _labels(logits, first.ids, clip.canvas)
                results.append(FrameResult(labels, first.ids, dict(zip(first.ids, scores, strict=True))))
        first_result = first_result or time.perf_counter() - start
    with write.running():
        for sink in sinks:
            for frame, result in zip(clip.frames, results, strict=True):
                sink.write(frame, result)
            sink.close()
    return Timings(
        decode=decode.total(),
        backbone=backbone.total(),
        masks=masks.total(),
        write=write.total(),
        wall=time.perf_counter() - start,
        first=first_result,
        frames=len(results),
    )


def load_clip(model: SEGIC, frames: Iterable[Frame]) -> Clip:
    """All frames, placed on the canvas, on the device. Raises UsageError for a clip without frames."""
    kept = tuple(frames)
    if not kept:
        raise UsageError("the clip has no frame to work on")
    canvas = model.canvas(kept[0].size)
    pixels = torch.empty(len(kept), 3, *canvas.padded, device=model.device)
    for index, frame in enumerate(kept):
        pixels[index] = canvas.place(_batch(frame.pixels))[0]
    return Clip(kept, pixels, canvas)


def _batch(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]


def _masks_of(annotation: Annotation, device: torch.device) -> Tensor:
    """(N, H, W) float32, 0 or 1."""
    masks = np.stack([annotation.labels == key for key in annotation.ids])
    return torch.from_numpy(masks).to(device).float()


def _labels(logits: Tensor, ids: Sequence[int], canvas: Canvas) -> NDArray[np.int32]:
    """(N, h4, w4) logits -> (H, W) ids: upsampled object by object, then the largest probability above one half."""
    probabilities = []
    for each in logits:
        full = F.interpolate(each[None, None], canvas.padded, mode="bilinear", align_corners=False)
        full = full[..., : canvas.picture[0], : canvas.picture[1]]
        own = F.interpolate(full, canvas.frame, mode="bilinear", align_corners=False)[0, 0]
        probabilities.append(torch.where(own > 0, own.sigmoid(), 0))
    best = torch.stack(probabilities).max(0)
    table = torch.tensor([0, *ids], dtype=torch.int32, device=logits.device)
    out: NDArray[np.int32] = table[torch.where(best.values > 0, best.indices + 1, 0)].cpu().numpy()
    return out
