"""The sample clip as files, and the score of a result on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from segic.files import write_whole
from segic_vos.demo import FPS, HEIGHT, OBJECTS, WIDTH, load_scene, render
from segic_vos.frames import FrameResult
from segic_vos.outputs import Outputs
from segic_vos.resume import mask_path, read_labels
from segic_vos.sinks import MaskWriter
from segic_vos.sinks.encoding import encoding


@dataclass(frozen=True)
class DemoClip:
    """Paths: the video, its first frame's mask, the folder of all true masks, and where a result goes."""

    root: Path

    @property
    def video(self) -> Path:
        return self.root / "garage.mp4"

    @property
    def first_mask(self) -> Path:
        return self.root / "garage_first.png"

    @property
    def truth(self) -> Path:
        return self.root / "truth"

    @property
    def result(self) -> Path:
        return self.root / "garage_segic"


def write_demo(clip: DemoClip, on_frame: Callable[[], None] = lambda: None) -> None:
    """Render the clip to H.264 with its true masks. Raises UsageError where the photographs are missing."""
    scene = load_scene()
    masks = MaskWriter(clip.truth)
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with encoding(clip.video), av.open(str(clip.video), "w") as container:
        stream = container.add_stream(codec, rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"crf": "18", "preset": "veryfast"} if codec == "libx264" else {"qscale": "2"}
        for frame, labels in render(scene):
            masks.write(frame, FrameResult(labels, tuple(OBJECTS), given=True))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.pixels, format="rgb24")))
            on_frame()
        container.mux(stream.encode(None))
    write_whole(clip.first_mask, (clip.truth / "00000.png").read_bytes())


def score_demo(clip: DemoClip) -> dict[str, float]:
    """Each object's J: intersection over union, mean over the frames but the first and the last (DAVIS's rule)."""
    values: dict[str, list[float]] = {name: [] for name in OBJECTS.values()}
    result = Outputs(clip.result)
    for path in sorted(clip.truth.glob("*.png"))[1:-1]:
        truth, found = read_labels(path), read_labels(mask_path(result, path.stem))
        for key, name in OBJECTS.items():
            union = np.count_nonzero((truth == key) | (found == key))
            both = np.count_nonzero((truth == key) & (found == key))
            values[name].append(both / union if union else 1.0)
    return {name: float(np.mean(each)) for name, each in values.items()}
