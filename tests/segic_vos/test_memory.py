"""Memory does not grow with the length of a clip, whatever is written."""

from __future__ import annotations

import gc
import tracemalloc

import av
import numpy as np
import pytest
from PIL import Image

from segic_vos.run import ClipJob, open_clip, run_clip

HEIGHT, WIDTH = 64, 96
SHORT, LONG = 24, 144


def write_clip(path, count):
    base = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    base[16:48, 16:48] = (220, 30, 30)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(count):
            pixels = np.roll(base, index % 40, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("resumed", [False, True], ids=["anew", "resumed"])
def test_peak_is_the_same_for_a_longer_clip(tmp_path, fake_model, colour_session_type, resumed):
    pytest.importorskip("pycocotools", reason="RLE output needs the extra `coco`")
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[16:48, 16:48] = 3
    Image.fromarray(labels).save(tmp_path / "first.png")

    def follow(count, existing="refuse", name=None):
        clip = tmp_path / f"{count}.mp4"
        if not clip.exists():
            write_clip(clip, count)
        out = tmp_path / (name or f"out{count}")
        job = ClipJob(clip, str(tmp_path / "first.png"), out, rle=True, existing=existing)
        return run_clip(open_clip(job), fake_model, make_session=lambda *_: colour_session_type())

    def peak(count, attempt):
        name = f"out{count}-{attempt}"
        if resumed:
            follow(count, name=name)
            (tmp_path / name / "overlay.mp4").unlink()  # so that there is something left to do
        gc.collect()
        tracemalloc.start()
        try:
            summary = follow(count, "resume" if resumed else "refuse", name)
            assert summary.frames == count
            assert summary.resumed == (count if resumed else 0)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    follow(SHORT, name="warm")  # what is imported and cached at first use is not counted
    # The least of three, as queues may happen to be full in one of them.
    short, long = (min(peak(count, attempt) for attempt in range(3)) for count in (SHORT, LONG))
    frame = HEIGHT * WIDTH * 3
    # 120 frames more may cost a few frames' worth, for queues that happen to be fuller; not 120.
    assert long - short < 12 * frame
