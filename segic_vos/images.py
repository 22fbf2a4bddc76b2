"""One-shot segmentation of images, as files: the masks, an overlay, and a figure with the propagated masks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segic.files import make_folder, write_whole
from segic_vos.figures import Panel, blend, colour_map, figure
from segic_vos.frames import Annotation, Frame, FrameResult
from segic_vos.palette import distinct_palette, palette_table
from segic_vos.sinks import MaskWriter, draw_overlay
from segic_vos.sinks.png import write_png

if TYPE_CHECKING:
    from segic.images import Segmentation

Picture = NDArray[np.uint8]

FIGURE_ROWS = 20  # more make a picture that few programs open
OUTPUT_NAMES = ("mask.png", "overlay.png", "figure.png", "summary.json")  # in a target's folder


@dataclass(frozen=True)
class ShownExample:
    """An example: its picture (H, W, 3) uint8 RGB, mask and text, and the files they came from."""

    pixels: Picture
    annotation: Annotation
    text: str | None
    image_path: Path
    mask_path: Path


@dataclass(frozen=True)
class EntityResult:
    """One entity on one target: its area in pixels and the model's own score, 0..1."""

    id: int
    area: int
    score: float


@dataclass(frozen=True)
class ImageResult:
    """Paths of what was written for one target, and its entities."""

    target: Path
    mask: Path
    overlay: Path
    figure: Path
    summary: Path
    entities: tuple[EntityResult, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: plain values only."""
        paths = {kind: str(getattr(self, kind)) for kind in ("target", "mask", "overlay", "figure", "summary")}
        return {**paths, "entities": [asdict(entity) for entity in self.entities]}


def examples_palette(examples: Sequence[ShownExample]) -> tuple[bytes | None, tuple[int, ...]]:
    """The palette for what `examples` show, and the ids that have a colour in it which no example gives them.

    An id has the colour of the first example with a palette that shows it; other entries are the first such example's.
    Colours that could not be told apart are others, see `distinct_palette`. None where no mask has a palette.
    """
    coloured = [each.annotation for each in examples if each.annotation.palette is not None]
    if not coloured:
        return None, ()
    table = palette_table(coloured[0].palette).copy()
    for annotation in reversed(coloured):
        own = [key for key in annotation.ids if key < len(table)]
        table[own] = palette_table(annotation.palette)[own]
    return distinct_palette(table.tobytes(), {key for each in examples for key in each.annotation.ids})


def write_image_result(
    folder: Path,
    target: Path,
    pixels: Picture,
    segmented: Segmentation,
    examples: Sequence[ShownExample],
    facts: Mapping[str, Any],
) -> ImageResult:
    """Write `mask.png` (the ids, in the examples' colours), `overlay.png`, `figure.png` and `summary.json`.

    pixels: the target (H, W, 3) uint8 RGB. facts: plain values for the summary, such as the model's.
    Raises: SegicError where a file cannot be written.
    """
    make_folder(folder)
    labels = segmented.labels
    palette, _ = examples_palette(examples)
    ids = tuple(int(key) for key in segmented.ids)
    scores = {key: float(score) for key, score in zip(ids, segmented.scores, strict=True)}
    entities = tuple(EntityResult(key, int((labels == key).sum()), round(scores[key], 4)) for key in ids)
    result = ImageResult(
        target=target,
        mask=folder / OUTPUT_NAMES[0],
        overlay=folder / OUTPUT_NAMES[1],
        figure=folder / OUTPUT_NAMES[2],
        summary=folder / OUTPUT_NAMES[3],
        entities=entities,
    )
    MaskWriter(folder, palette).write(Frame(0, "mask", pixels), FrameResult(labels, ids, scores))
    overlay = draw_overlay(pixels, labels, palette)
    write_png(result.overlay, Image.fromarray(overlay))
    write_png(result.figure, Image.fromarray(_figure(pixels, overlay, segmented, examples, palette)))
    values = {"program": "segic", **facts, **result.as_dict()}
    write_whole(result.summary, json.dumps(values, indent=2) + "\n")
    return result


def _figure(
    pixels: Picture, overlay: Picture, segmented: Segmentation, examples: Sequence[ShownExample], palette: bytes | None
) -> Picture:
    """A row for each entity: its example, the propagated mask on the target, the result (the paper's figure 4).

    Of more than FIGURE_ROWS entities the first ones are shown. All propagated masks share one colour scale, from the
    smallest value to the largest.
    """
    low, high = float(segmented.propagated.min()), float(segmented.propagated.max())
    scale = f"propagated mask, {low:.2f} (blue) to {high:.2f} (red)"

    def row(key: int, propagated: NDArray[np.float32]) -> list[Panel]:
        shown = next(each for each in examples if key in each.annotation.ids)
        only = np.where(shown.annotation.labels == key, key, 0)
        title = f"example, id {key}" + (f": {shown.text}" if shown.text else "")
        return [
            Panel(title, draw_overlay(shown.pixels, only, palette)),
            Panel(scale, blend(pixels, colour_map(_fitted(propagated, pixels), low, high))),
            Panel("result", overlay),
        ]

    rows = (row(key, mask) for key, mask in zip(segmented.ids, segmented.propagated, strict=True))
    return figure(islice(rows, FIGURE_ROWS))


def _fitted(propagated: NDArray[np.float32], pixels: Picture) -> NDArray[np.float32]:
    """A propagated mask (h, w), coarser than the picture, at the picture's size."""
    height, width = pixels.shape[:2]
    return np.asarray(cv2.resize(propagated, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32)
