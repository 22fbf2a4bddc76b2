"""Draws when each stage of the pipeline works on a clip, as in docs/timeline.svg.

python docs/timeline.py VIDEO MASK DRAWING.svg [FRAMES [SIZE]]
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from segic import load_model
from segic_vos import MaskWriter, OverlayWriter, Sink, VideoSession, open_source, read_annotations, run_pipeline

STAGES = {
    "decode": "#4e79a7",
    "backbone": "#f28e2b",
    "masks": "#59a14f",
    "write masks": "#b07aa1",
    "overlay": "#9c755f",
}


@dataclass(frozen=True)
class Span:
    """Seconds from the start of the run. frames: worked on."""

    stage: str
    begin: float
    end: float
    frames: int


class Watch:
    """Collects spans from all threads."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._lock = threading.Lock()
        self._start = time.perf_counter()

    def timed(
        self, stage: str, call: Callable[..., Any], frames: Callable[..., int] = lambda *_: 1
    ) -> Callable[..., Any]:
        """`call`, with a span for every time it is called."""

        def watched(*arguments: Any) -> Any:
            begin = time.perf_counter() - self._start
            try:
                return call(*arguments)
            finally:
                with self._lock:
                    self.spans.append(Span(stage, begin, time.perf_counter() - self._start, frames(*arguments)))

        return watched

    def iterate(self, stage: str, items: Iterator[Any]) -> Iterator[Any]:
        """The items, with a span for each one's making."""
        step = self.timed(stage, lambda: next(items, None))
        while (item := step()) is not None:
            yield item


@dataclass
class Stand:
    """Something with the methods given."""

    device: Any = None
    encode: Any = None
    submit: Any = None
    write: Any = None
    close: Any = None


def record(video: Path, mask: Path, frames: int, size: int | None) -> list[Span]:
    """Run the pipeline on the clip's first frames."""
    model = load_model(size=size)
    masks = read_annotations(mask)
    with tempfile.TemporaryDirectory() as name:
        writers: dict[str, Sink] = {
            "write masks": MaskWriter(Path(name) / "masks"),
            "overlay": OverlayWriter(Path(name) / "overlay.mp4"),
        }
        session = VideoSession(model)
        watch = Watch()
        run_pipeline(
            watch.iterate("decode", islice(iter(open_source(video)), frames)),
            Stand(device=model.device, encode=watch.timed("backbone", model.encode, len)),
            Stand(submit=watch.timed("masks", session.submit)),
            [Stand(write=watch.timed(stage, each.write), close=each.close) for stage, each in writers.items()],
            annotation_of=lambda frame: masks.at(frame, first=frame.index == 0),
        )
    return watch.spans


def draw(spans: list[Span]) -> str:
    """An SVG with a row for each stage."""
    left, width, row, gap = 96, 860, 26, 12
    whole = max(span.end for span in spans)
    scale = width / whole
    bottom = len(STAGES) * (row + gap)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 24} {bottom + 44}" '
        'font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    step = next(s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500) if whole / s <= 12)
    for tick in range(int(whole / step) + 1):
        x = left + tick * step * scale
        parts.append(f'<line x1="{x:.1f}" y1="4" x2="{x:.1f}" y2="{bottom + 4}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 22}" text-anchor="middle" fill="#555">{tick * step:g}</text>')
    parts.append(f'<text x="{left + width}" y="{bottom + 38}" text-anchor="end" fill="#555">seconds</text>')
    for number, (stage, colour) in enumerate(STAGES.items()):
        y = 8 + number * (row + gap)
        parts.append(f'<text x="{left - 8}" y="{y + 17}" text-anchor="end">{stage}</text>')
        for span in (each for each in spans if each.stage == stage):
            x, w = left + span.begin * scale, max(1.2, (span.end - span.begin) * scale)
            edge = ' stroke="white" stroke-width="0.4"' if w > 3 else ""
            parts.append(f'<rect x="{x:.1f}" y="{y}" width="{w:.1f}" height="{row}" fill="{colour}"{edge}/>')
            if span.frames > 1 and w > 12:
                parts.append(
                    f'<text x="{x + w / 2:.1f}" y="{y + 17}" text-anchor="middle" fill="white">{span.frames}</text>'
                )
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Record, draw, and print each stage's seconds."""
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    video, mask, drawing, *rest = sys.argv[1:]
    numbers = [int(text) for text in rest]
    spans = record(Path(video), Path(mask), numbers[0] if numbers else 20, numbers[1] if len(numbers) > 1 else None)
    Path(drawing).write_text(draw(spans), encoding="utf-8")
    print(f"whole {max(span.end for span in spans):.2f} s")
    for stage in STAGES:
        print(f"{stage} {sum(span.end - span.begin for span in spans if span.stage == stage):.2f} s")


if __name__ == "__main__":
    main()
