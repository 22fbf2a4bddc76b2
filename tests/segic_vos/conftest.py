"""Real files to read: clips written with PyAV, and pictures."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image


class Clips:
    """Makes frames whose content can be recognised again, and video files of them below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def quadrants(height=64, width=96):
        """Red top left, green top right, blue bottom left, white bottom right: shows turns and swapped colours."""
        pixels = np.full((height, width, 3), 255, np.uint8)
        pixels[: height // 2, : width // 2] = (255, 0, 0)
        pixels[: height // 2, width // 2 :] = (0, 255, 0)
        pixels[height // 2 :, : width // 2] = (0, 0, 255)
        return pixels

    @staticmethod
    def numbered(count, height=48, width=64):
        """Grey level 4 i in the left half, moving noise (so that packets have a size) in the right."""
        noise = np.random.default_rng(0).integers(0, 256, (height, width - width // 2, 3), np.uint8)
        frames = []
        for number in range(count):
            pixels = np.full((height, width, 3), 4 * number, np.uint8)
            pixels[:, width // 2 :] = np.roll(noise, 3 * number, axis=1)
            frames.append(pixels)
        return frames

    @staticmethod
    def number_of(pixels):
        """The number of a frame of `numbered`, read from its pixels."""
        return round(float(pixels[:, : pixels.shape[1] // 4].mean()) / 4)

    def write(
        self,
        name,
        frames,
        *,
        rate=Fraction(25),
        codec="libx264",
        pixel_format="yuv420p",
        times=None,
        rotation=None,
        pixel_aspect=None,
        encoder=None,
        muxer=None,
    ):
        """Write a video. times: seconds as fractions, stored on a 90 kHz clock. rotation: (degrees, mirrored)."""
        path = self.folder / name
        clock = Fraction(1, 90_000) if times else 1 / rate
        with av.open(str(path), "w", options=muxer or {}) as container:
            stream = container.add_stream(codec, rate=rate)
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt = pixel_format
            stream.options = encoder or {}
            stream.time_base = stream.codec_context.time_base = clock
            if pixel_aspect:
                stream.codec_context.sample_aspect_ratio = pixel_aspect
            if rotation:
                stream.set_display_rotation(rotation[0], hflip=rotation[1])
            for number, pixels in enumerate(frames):
                picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                picture.pts = round(times[number] / clock) if times else number
                picture.time_base = clock
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
        return path

    def cut(self, path, size, name=None):
        """The first `size` bytes of `path` as another file."""
        target = self.folder / (name or f"cut_{path.name}")
        target.write_bytes(path.read_bytes()[:size])
        return target


@pytest.fixture
def clips(tmp_path):
    return Clips(tmp_path)


@pytest.fixture
def save(tmp_path):
    """Save an array as a picture: `save("masks/a.png", array, palette=...)`, below the test's folder."""

    def save_picture(name, array, *, palette=None, **options):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(np.asarray(array))
        if palette is not None:
            image.putpalette(palette)
        image.save(path, **options)
        return path

    return save_picture
