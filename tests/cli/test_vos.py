"""`segic vos run` on small real files, with a stand-in model that follows objects by their colour."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from segic.canvas import Canvas
from segic.errors import UsageError
from segic_cli.clips import clip_paths
from segic_cli.main import cli
from segic_cli.model_options import LoadedModel
from segic_vos.alone import alone

FRAMES, HEIGHT, WIDTH = 30, 48, 64
COLOURS = {1: (220, 30, 30), 7: (30, 60, 220)}
BACKGROUND = (40, 160, 40)


def truth(index):
    """Two squares that move; ids 1 and 7."""
    labels = np.zeros((HEIGHT, WIDTH), np.int32)
    labels[8:24, 4 + index : 20 + index] = 1
    labels[28:44, 44 - index : 60 - index] = 7
    return labels


def picture(index):
    labels = truth(index)
    pixels = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:] = BACKGROUND
    for key, colour in COLOURS.items():
        pixels[labels == key] = colour
    return pixels


def write_video(path, frames=FRAMES, pixel_aspect=None):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(24))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"crf": "5"}
        if pixel_aspect:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        for index in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(index), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def write_mask(path, labels):
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette([0, 0, 0, 9, 8, 7] + [value % 256 for value in range(762)])
    image.save(path)
    return path


@pytest.fixture
def clip(tmp_path):
    """A folder with `clip.mp4` and `first.png`."""
    write_video(tmp_path / "clip.mp4")
    write_mask(tmp_path / "first.png", truth(0))
    return tmp_path


class Interrupting:
    """Wraps a session; raises on the n-th step."""

    def __init__(self, session, at, error):
        self.session, self.at, self.error, self.steps = session, at, error, 0

    def submit(self, encoded, annotation=None):
        if self.steps == self.at:
            raise self.error
        self.steps += 1
        return self.session.submit(encoded, annotation)

    def remember(self, encoded, labels, scores, annotation):
        self.session.remember(encoded, labels, scores, annotation)

    def skip(self):
        self.session.skip()


@pytest.fixture
def program(monkeypatch, tmp_path, fake_model, colour_session_type):
    """Runs `segic vos run ...` in tmp_path. `program.sessions` are those it made; `program.stop` interrupts a run."""
    decoder = tmp_path / "decoder.safetensors"
    decoder.write_bytes(b"weights")
    fake_model.files["decoder"] = decoder

    class Program:
        def __init__(self):
            self.sessions, self.stop = [], None

        def __call__(self, *args):
            return CliRunner().invoke(cli, ["vos", "run", *map(str, args)])

    program = Program()

    def make_session(model, probabilities, foveated):
        session = colour_session_type()
        program.sessions.append(session)
        return Interrupting(session, *program.stop) if program.stop else session

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("segic_cli.vos.load", lambda choice, progress: LoadedModel(fake_model, fake_model.files))
    monkeypatch.setattr("segic_vos.run._video_session", make_session)
    return program


def labels_of(path):
    return np.asarray(Image.open(path)).astype(int)


def summary_of(out):
    return json.loads((Path(out) / "summary.json").read_text())


def iou(a, b, key):
    return ((a == key) & (b == key)).sum() / ((a == key) | (b == key)).sum()


def test_video_to_masks_overlay_and_summary(program, clip):
    done = program("clip.mp4", "--masks", "first.png")
    assert done.exit_code == 0, done.output
    out = clip / "clip_segic"
    assert sorted(path.name for path in (out / "masks").iterdir()) == [f"{index:05d}.png" for index in range(FRAMES)]
    assert np.array_equal(labels_of(out / "masks/00000.png"), truth(0))
    for index in range(1, FRAMES):
        found = labels_of(out / f"masks/{index:05d}.png")
        assert all(iou(found, truth(index), key) > 0.85 for key in COLOURS)
    # The user's own palette comes back.
    assert Image.open(out / "masks/00009.png").getpalette()[:6] == [0, 0, 0, 9, 8, 7]
    with av.open(str(out / "overlay.mp4")) as container:
        assert container.streams.video[0].average_rate == 24
        assert sum(1 for _ in container.decode(video=0)) == FRAMES
    summary = summary_of(out)
    assert summary["status"] == "complete"
    assert summary["frames"] == FRAMES
    assert summary["model"]["weights"]["decoder"]["sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert set(summary["timings_s"]) >= {"decode", "backbone", "masks", "write", "wall", "fps"}
    assert summary["peak_memory_mb"]["host"] > 10
    assert {"python", "torch", "segic", "av"} <= set(summary["versions"])
    assert summary["settings"]["every"] == 1
    one, seven = summary["objects"]
    assert (one["id"], seven["id"]) == (1, 7)
    assert one["frames_present"] == FRAMES
    assert (one["first"], one["last"]) == ("00000", "00029")
    assert abs(one["area_mean"] - 256) < 20
    assert one["score"] == pytest.approx((1 + 0.5 * (FRAMES - 1)) / FRAMES, abs=1e-3)
    for name in ("clip_segic/masks", "clip_segic/overlay.mp4", "clip_segic/summary.json", "2 objects", "frames/s"):
        assert name in done.output


def test_folder_of_frames_with_part_of_it(program, clip):
    frames = clip / "shots"
    frames.mkdir()
    for index in range(10):
        Image.fromarray(picture(index)).save(frames / f"shot{index}.png")
    write_mask(clip / "second.png", truth(2))
    done = program(
        "shots", "--masks", "second.png", "--start", 2, "--end", 9, "--every", 3, "--no-overlay", "--rle", "-q"
    )
    assert done.exit_code == 0, done.output
    assert done.output == ""
    out = clip / "shots_segic"
    assert sorted(path.stem for path in (out / "masks").iterdir()) == ["shot2", "shot5", "shot8"]
    assert np.array_equal(labels_of(out / "masks/shot8.png"), truth(8))
    assert not (out / "overlay.mp4").exists()
    assert len(json.loads((out / "masks.json").read_text())) == 6


def test_json_is_one_line_for_each_clip(program, clip):
    shutil.copy(clip / "clip.mp4", clip / "other.mp4")
    masks = clip / "given"
    masks.mkdir()
    for stem in ("clip", "other"):
        shutil.copy(clip / "first.png", masks / f"{stem}.png")
    done = program("clip.mp4", "other.mp4", "--masks", "given", "--out", "all", "--json", "--no-overlay")
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["frames"] for line in lines] == [FRAMES, FRAMES]
    assert [line["outputs"]["masks"] for line in lines] == ["all/clip/masks", "all/other/masks"]


def test_existing_output_is_not_touched(program, clip):
    assert program("clip.mp4", "--masks", "first.png").exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in (clip / "clip_segic").rglob("*")}
    done = program("clip.mp4", "--masks", "first.png")
    assert done.exit_code == 2
    assert "--overwrite" in done.output
    assert "--resume" in done.output
    assert before == {path: path.stat().st_mtime_ns for path in (clip / "clip_segic").rglob("*")}


@pytest.mark.parametrize("way", ["--resume", "--overwrite"])
def test_a_folder_that_another_run_is_at_work_in_is_not_touched(program, clip, way):
    program.stop = (12, KeyboardInterrupt())
    assert program("clip.mp4", "--masks", "first.png").exit_code == 130
    before = {path: path.stat().st_mtime_ns for path in (clip / "clip_segic").rglob("*")}
    program.stop = None
    with alone(clip / "clip_segic"):
        done = program("clip.mp4", "--masks", "first.png", way)
    assert done.exit_code == 2
    assert "another run is at work in clip_segic" in done.output
    assert before == {path: path.stat().st_mtime_ns for path in (clip / "clip_segic").rglob("*")}
    assert program("clip.mp4", "--masks", "first.png", way).exit_code == 0


def test_overwrite_removes_what_segic_wrote_and_nothing_else(program, clip):
    assert program("clip.mp4", "--masks", "first.png").exit_code == 0
    (clip / "clip_segic/notes.txt").write_text("mine")
    assert program("clip.mp4", "--masks", "first.png", "--overwrite", "--end", 3).exit_code == 0
    assert len(list((clip / "clip_segic/masks").iterdir())) == 3
    assert (clip / "clip_segic/notes.txt").read_text() == "mine"


def test_overwrite_leaves_what_is_not_of_the_earlier_run_in_its_folders(program, clip):
    """Soft masks and RLE are segic's only where it wrote them."""
    assert program("clip.mp4", "--masks", "first.png").exit_code == 0
    own = [clip / "clip_segic" / name for name in ("masks/mine.png", "soft/mine.png", "masks.json")]
    for path in own:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    assert program("clip.mp4", "--masks", "first.png", "--overwrite", "--end", 3, "--no-overlay").exit_code == 0
    assert [path.read_text() for path in own] == ["mine"] * 3
    assert len(list((clip / "clip_segic/masks").iterdir())) == 4
    assert not (clip / "clip_segic/overlay.mp4").exists()


@pytest.mark.parametrize("way", ["--resume", "--overwrite"])
def test_a_damaged_summary_is_said_to_be_there(program, clip, way):
    assert program("clip.mp4", "--masks", "first.png").exit_code == 0
    (clip / "clip_segic/summary.json").write_text('{"program": "seg')
    done = program("clip.mp4", "--masks", "first.png", way)
    assert done.exit_code == 2
    assert "has a summary.json that is damaged or not of segic" in done.output


def test_overwrite_never_deletes_a_masks_folder_of_the_users_own(program, clip):
    own = clip / "mine/masks"
    own.mkdir(parents=True)
    write_mask(own / "00000.png", truth(0))
    for given in ("first.png", "mine/masks"):
        done = program("clip.mp4", "--masks", given, "--mask-form", "auto", "--out", "mine", "--overwrite")
        assert done.exit_code == 2
        assert (own / "00000.png").exists()


@pytest.mark.parametrize("stopped_by", ["interrupt", "kill"])
def test_resume_goes_on_where_the_run_stopped(program, clip, stopped_by):
    assert program("clip.mp4", "--masks", "first.png", "--out", "whole", "--rle").exit_code == 0
    program.stop = (12, KeyboardInterrupt())
    done = program("clip.mp4", "--masks", "first.png", "--out", "parts", "--rle")
    assert done.exit_code == 130
    assert "--resume" in done.output
    assert "12 frames" in done.output
    assert summary_of("parts")["status"] == "interrupted"
    assert len(list((clip / "parts/masks").iterdir())) == 12
    if stopped_by == "kill":
        # A kill leaves a line cut in two, no overlay, and the first summary.
        records = clip / "parts/frames.jsonl"
        records.write_text(records.read_text()[:-20])
        (clip / "parts/overlay.mp4").unlink()
    program.stop = None
    done = program("clip.mp4", "--masks", "first.png", "--out", "parts", "--rle", "--resume")
    assert done.exit_code == 0, done.output
    # The masks of the last frame, and of the one before it, were restored; they are not computed again.
    assert len(program.sessions[-1].remembered) == 2
    summary = summary_of("parts")
    assert summary["resumed_frames"] == (11 if stopped_by == "kill" else 12)
    assert summary["frames"] == FRAMES
    assert summary["objects"] == summary_of("whole")["objects"]
    for index in range(FRAMES):
        name = f"masks/{index:05d}.png"
        assert (clip / "parts" / name).read_bytes() == (clip / "whole" / name).read_bytes()
    assert (clip / "parts/masks.json").read_text() == (clip / "whole/masks.json").read_text()
    with av.open(str(clip / "parts/overlay.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == FRAMES


def test_resume_of_a_complete_run_does_nothing(program, clip):
    assert program("clip.mp4", "--masks", "first.png").exit_code == 0
    before = (clip / "clip_segic/overlay.mp4").stat().st_mtime_ns
    done = program("clip.mp4", "--masks", "first.png", "--resume")
    assert done.exit_code == 0, done.output
    assert "complete" in done.output
    assert before == (clip / "clip_segic/overlay.mp4").stat().st_mtime_ns
    assert "frames/s" not in done.stdout  # nothing was worked on
    told = json.loads(program("clip.mp4", "--masks", "first.png", "--resume", "--json").stdout)
    written = summary_of(clip / "clip_segic")
    assert written["timings_s"]["frames"] == FRAMES
    assert (told["choices"], told["timings_s"]) == (written["choices"], written["timings_s"])


def test_resume_of_a_complete_run_whose_container_misstates_its_length(program, clip, monkeypatch):
    monkeypatch.setattr("segic_vos.sources.video._expected_frames", lambda *_: FRAMES + 9)
    assert program("clip.mp4", "--masks", "first.png").exit_code == 0
    before = (clip / "clip_segic/overlay.mp4").stat().st_mtime_ns
    done = program("clip.mp4", "--masks", "first.png", "--resume")
    assert "nothing is left to do" in done.output
    assert before == (clip / "clip_segic/overlay.mp4").stat().st_mtime_ns


def test_resume_of_a_complete_run_goes_on_with_what_came_since(program, clip):
    (clip / "shots").mkdir()

    def shoot(*indices):
        for index in indices:
            Image.fromarray(picture(index)).save(clip / f"shots/{index:05d}.png")

    shoot(0, 1, 2)
    assert program("shots", "--masks", "first.png").exit_code == 0
    shoot(3, 4)
    done = program("shots", "--masks", "first.png", "--resume")
    assert done.exit_code == 0, done.output
    summary = summary_of("shots_segic")
    assert (summary["resumed_frames"], summary["frames"]) == (3, 5)
    assert np.array_equal(labels_of(clip / "shots_segic/masks/00004.png"), truth(4))
    with av.open(str(clip / "shots_segic/overlay.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 5
    write_video(clip / "clip.mp4", frames=4)
    assert program("clip.mp4", "--masks", "first.png").exit_code == 0
    write_video(clip / "clip.mp4", frames=6)
    assert program("clip.mp4", "--masks", "first.png", "--resume").exit_code == 0
    assert summary_of("clip_segic")["frames"] == 6


def test_resume_goes_on_where_everything_has_moved(program, clip, monkeypatch):
    (clip / "old").mkdir()
    for name in ("clip.mp4", "first.png"):
        shutil.move(clip / name, clip / "old" / name)
    monkeypatch.chdir(clip / "old")
    program.stop = (12, KeyboardInterrupt())
    program("clip.mp4", "--masks", "first.png")
    program.stop = None
    monkeypatch.chdir(clip)
    (clip / "old").rename(clip / "new")
    monkeypatch.chdir(clip / "new")
    shutil.copy("clip.mp4", "other.mp4")
    refused = program("other.mp4", "--masks", "first.png", "--out", "clip_segic", "--resume")
    assert refused.exit_code == 2
    assert "had video = " in refused.output
    done = program("clip.mp4", "--masks", "first.png", "--resume")
    assert done.exit_code == 0, done.output
    assert json.loads(Path("clip_segic/summary.json").read_text())["resumed_frames"] == 12
    assert f"the video is taken for {clip / 'old' / 'clip.mp4'}, by its name" in done.output


@pytest.mark.parametrize("frames", [12, FRAMES], ids=["stopped", "complete"])
def test_resume_refuses_another_video_of_the_same_name(program, clip, frames):
    if frames < FRAMES:
        program.stop = (frames, KeyboardInterrupt())
    program("clip.mp4", "--masks", "first.png")
    program.stop = None
    before = summary_of("clip_segic")
    with av.open(str(clip / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(24))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(FRAMES):
            pixels = np.ascontiguousarray(picture(index)[::-1])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    done = program("clip.mp4", "--masks", "first.png", "--resume")
    assert done.exit_code == 2
    assert "the video is not that of the earlier run" in done.output
    assert summary_of("clip_segic") == before


def test_resume_does_not_believe_a_summary_whose_masks_are_gone(program, clip):
    assert program("clip.mp4", "--masks", "first.png").exit_code == 0
    before = (clip / "clip_segic/masks/00025.png").read_bytes()
    (clip / "clip_segic/masks/00020.png").unlink()
    (clip / "clip_segic/masks/00025.png").write_bytes(b"")
    assert program("clip.mp4", "--masks", "first.png", "--resume").exit_code == 0
    assert summary_of("clip_segic")["resumed_frames"] == 20
    assert (clip / "clip_segic/masks/00025.png").read_bytes() == before


@pytest.mark.parametrize("stopped", [True, False])
@pytest.mark.parametrize("changed", ["00000.png", "00010.png", "00015.png"])
def test_resume_refuses_masks_that_have_changed(program, clip, stopped, changed):
    """Another first mask, one taken away, one added, all of frames that are finished."""
    given = clip / "given"
    given.mkdir()
    write_mask(given / "00000.png", truth(0))
    write_mask(given / "00010.png", truth(10))
    if stopped:
        program.stop = (20, KeyboardInterrupt())
    program("clip.mp4", "--masks", "given")
    program.stop = None
    masks = {path: path.read_bytes() for path in (clip / "clip_segic/masks").iterdir()}
    if changed == "00010.png":
        (given / changed).unlink()
    else:
        write_mask(given / changed, truth(3))
    done = program("clip.mp4", "--masks", "given", "--resume")
    assert done.exit_code == 2, done.output
    assert f"mask given for frame {changed[:5]} has changed" in done.output
    assert masks == {path: path.read_bytes() for path in masks}


@pytest.mark.parametrize("change", ["part", "object"])
def test_resume_refuses_masks_of_which_something_was_erased(program, clip, change):
    """Before anything is written: the earlier run's files are whole."""
    masks = truth(0)
    masks[:3, :4], masks[-3:, -4:] = 7, 9
    write_mask(clip / "first.png", masks)
    program.stop = (20, KeyboardInterrupt())
    program("clip.mp4", "--masks", "first.png", "--rle")
    program.stop = None
    before = {path: path.read_bytes() for path in (clip / "clip_segic").rglob("*") if path.is_file()}
    if change == "part":
        masks[:3, :4] = 0
    else:
        masks[masks == 9] = 0
    write_mask(clip / "first.png", masks)
    done = program("clip.mp4", "--masks", "first.png", "--rle", "--resume")
    assert done.exit_code == 2, done.output
    assert "mask given for frame 00000 has changed" in done.output
    assert before == {path: path.read_bytes() for path in before}


def test_what_is_asked_for_once_all_is_finished(program, clip):
    """Run lengths follow from the masks, soft masks do not; how long the frames took stays known."""
    assert program("clip.mp4", "--masks", "first.png").exit_code == 0
    before = summary_of("clip_segic")
    assert program("clip.mp4", "--masks", "first.png", "--resume", "--rle").exit_code == 0
    after = summary_of("clip_segic")
    assert (clip / "clip_segic/masks.json").is_file()
    assert (after["timings_s"], after["choices"]) == (before["timings_s"], before["choices"])
    assert before["timings_s"]["frames"] > 0
    done = program("clip.mp4", "--masks", "first.png", "--resume", "--soft")
    assert done.exit_code == 2
    assert "without soft masks" in done.output
    assert "--overwrite" in done.output
    assert not (clip / "clip_segic/soft").exists()


def test_a_run_whose_masks_are_of_no_frame_fails(program, clip):
    (clip / "late").mkdir()
    write_mask(clip / "late/00900.png", truth(0))
    done = program("clip.mp4", "--masks", "late")
    assert done.exit_code == 1
    assert "late: none of the masks is of one of the" in done.output
    assert summary_of("clip_segic")["status"] == "failed"


def test_a_mask_among_the_frames_is_none_of_them(program, clip):
    (clip / "shots").mkdir()
    for index in range(4):
        Image.fromarray(picture(index)).save(clip / f"shots/{index:02d}.png")
    write_mask(clip / "shots/00_mask.png", truth(0))
    done = program("shots", "--masks", "shots/00_mask.png")
    assert done.exit_code == 0, done.output
    assert "00_mask.png lies among the frames and is left out of them" in done.output
    assert [path.name for path in sorted((clip / "shots_segic/masks").iterdir())] == [f"{i:02d}.png" for i in range(4)]


def test_resume_takes_masks_for_frames_to_come(program, clip):
    given = clip / "given"
    given.mkdir()
    write_mask(given / "00000.png", truth(0))
    program.stop = (20, KeyboardInterrupt())
    program("clip.mp4", "--masks", "given")
    program.stop = None
    late = truth(25)
    late[:4, :4] = 9
    write_mask(given / "00025.png", late)
    assert program("clip.mp4", "--masks", "given", "--resume").exit_code == 0
    assert np.array_equal(labels_of("clip_segic/masks/00025.png"), late)


def test_resume_without_an_earlier_run_starts(program, clip):
    assert program("clip.mp4", "--masks", "first.png", "--resume").exit_code == 0


def test_resume_refuses_other_settings(program, clip):
    assert program("clip.mp4", "--masks", "first.png").exit_code == 0
    done = program("clip.mp4", "--masks", "first.png", "--resume", "--every", 2)
    assert done.exit_code == 2
    assert "every = 1" in done.output
    assert "2" in done.output


def test_truncated_video_keeps_the_good_frames(program, clip):
    # Matroska can be cut anywhere: its index is not at the end.
    with av.open(str(clip / "clip.mp4")) as source, av.open(str(clip / "cut.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    whole = (clip / "cut.mkv").read_bytes()
    (clip / "cut.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    done = program("cut.mkv", "--masks", "first.png")
    assert done.exit_code == 1
    assert "stopped after frame" in done.output
    count = len(list((clip / "cut_segic/masks").iterdir()))
    assert 0 < count < FRAMES
    summary = summary_of("cut_segic")
    assert (summary["status"], summary["frames"]) == ("failed", count)
    assert "stopped after frame" in summary["reason"]
    with av.open(str(clip / "cut_segic/overlay.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == count


def test_full_disk_is_told_and_keeps_what_was_written(program, clip, monkeypatch):
    write = Path.write_bytes

    def full(path, data):
        if "00010.png" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    done = program("clip.mp4", "--masks", "first.png")
    assert done.exit_code == 1
    assert "disk is full" in done.output
    assert "Traceback" not in done.output
    assert len(list((clip / "clip_segic/masks").glob("*.png"))) == 10
    assert summary_of("clip_segic")["status"] == "failed"
    monkeypatch.undo()


def test_a_full_disk_at_the_start_leaves_a_folder_that_can_be_used(program, clip, monkeypatch):
    write = Path.write_bytes

    def full(path, data):
        if "summary.json" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "disk is full" in program("clip.mp4", "--masks", "first.png").output
    monkeypatch.setattr(Path, "write_bytes", write)
    done = program("clip.mp4", "--masks", "first.png", "--resume")
    assert done.exit_code == 0, done.output


def test_an_earlier_run_is_kept_where_what_is_asked_for_cannot_be_written(program, clip, monkeypatch):
    assert program("clip.mp4", "--masks", "first.png").exit_code == 0
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    done = program("clip.mp4", "--masks", "first.png", "--rle", "--overwrite")
    assert done.exit_code == 2
    assert "segic[coco]" in done.output
    assert len(list((clip / "clip_segic/masks").iterdir())) == FRAMES


def test_a_folder_that_cannot_be_replaced_stops_its_clip_only(program, clip, monkeypatch):
    shutil.copy(clip / "clip.mp4", clip / "other.mp4")
    clips = ("clip.mp4", "other.mp4", "--masks", "first.png", "--masks", "first.png")
    assert program(*clips).exit_code == 0

    remove = Path.unlink

    def refuse(path, **options):
        if "clip_segic/masks/" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        remove(path, **options)

    monkeypatch.setattr(Path, "unlink", refuse)
    done = program(*clips, "--overwrite")
    assert done.exit_code == 1
    assert "clip_segic/masks: cannot be written: Permission denied" in done.output
    assert summary_of("other_segic")["status"] == "complete"


def test_a_defect_keeps_its_traceback_and_the_frames(program, clip):
    program.stop = (5, ZeroDivisionError("defect"))
    done = program("clip.mp4", "--masks", "first.png")
    assert isinstance(done.exception, ZeroDivisionError)
    assert len(list((clip / "clip_segic/masks").iterdir())) == 5
    assert summary_of("clip_segic")["reason"] == "defect"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("none.mp4", "--masks", "first.png"), ["none.mp4", "no such file"]),
        (("http://host/x.mp4", "--masks", "first.png"), ["http://host/x.mp4: an address", "download"]),
        (("clip.mp4", "--masks", "none.png"), ["none.png", "no such mask"]),
        (("clip.mp4", "--masks", "small.png"), ["small.png", "32x24", "64x48"]),
        (("clip.mp4", "--masks", "first.png", "--start", 99), ["start=99"]),
        (("clip.mp4", "--masks", "first.png", "--overwrite", "--resume"), ["exclude"]),
        (("clip.mp4", "--masks", "first.png", "--out", "first.png"), ["is a file"]),
        (("clip.mp4", "--masks", "first.png", "--masks", "small.png"), ["1 videos and 2 --masks"]),
        (
            ("clip.mp4", "many.png", "--masks", "first.png"),
            ["many.png lies beside first.png", "needs quotes", "'*.png'"],
        ),
        (("clip.mp4", "--masks", "empty.png"), ["empty.png", "empty mask", "at least one object"]),
        (("clip.mp4", "--masks", "empties", "--mask-form", "objects"), ["empties", "empty mask"]),
        (("clip.mp4", "--masks", "many.png"), ["many.png", "70 different values", "--many-ids"]),
        (("clip.mp4", "--masks", "later", "--every", 2), ["later: no mask is of a frame", "there is 00003.png"]),
        (("clip.mp4", "--masks", "later", "--start", 4), ["start 4", "nothing could be followed"]),
        (("clip.mp4",), ["--masks"]),
    ],
)
def test_bad_requests_are_refused_before_anything_is_written(program, clip, args, words):
    write_mask(clip / "small.png", np.ones((24, 32)))
    write_mask(clip / "empty.png", np.zeros((HEIGHT, WIDTH)))
    (clip / "later").mkdir()
    write_mask(clip / "later/00003.png", truth(3))
    (clip / "empties").mkdir()
    write_mask(clip / "empties/cat_1.png", np.zeros((HEIGHT, WIDTH)))
    write_mask(clip / "many.png", np.kron(np.arange(70).reshape(7, 10), np.ones((6, 6)))[:, :WIDTH] + 1)
    before = sorted(clip.rglob("*"))
    done = program(*args)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    for word in words:
        assert word in done.output
    assert sorted(clip.rglob("*")) == before


@pytest.mark.parametrize("verbosity", [(), ("-vv",)])
def test_other_clips_go_on_when_one_fails(program, clip, verbosity):
    shutil.copy(clip / "clip.mp4", clip / "other.mp4")
    write_mask(clip / "small.png", np.ones((24, 32)))
    done = program("clip.mp4", "other.mp4", "--masks", "small.png", "--masks", "first.png", *verbosity)
    assert done.exit_code == 2
    assert ("Traceback" in done.output) == bool(verbosity)
    assert "clip: " in done.output
    assert "1 of 2 clips failed" in done.output
    assert not (clip / "clip_segic").exists()
    assert summary_of("other_segic")["status"] == "complete"


def test_json_has_a_line_for_a_clip_that_failed(program, clip):
    shutil.copy(clip / "clip.mp4", clip / "other.mp4")
    write_mask(clip / "small.png", np.ones((24, 32)))
    done = program("clip.mp4", "other.mp4", "--masks", "small.png", "--masks", "first.png", "--json", "--end", 3)
    assert done.exit_code == 2
    failed, complete = [json.loads(line) for line in done.stdout.splitlines()]
    assert (failed["status"], failed["video"]["path"], failed["frames"]) == ("failed", "clip.mp4", 0)
    assert "32x24" in failed["reason"]
    assert (complete["status"], complete["frames"]) == ("complete", 3)


def test_json_of_a_run_that_was_stopped_is_its_summary(program, clip):
    program.stop = (5, KeyboardInterrupt())
    done = program("clip.mp4", "--masks", "first.png", "--json")
    assert done.exit_code == 130
    (said,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (said["status"], said["frames"]) == ("interrupted", 5)
    assert said == summary_of("clip_segic")


def test_nothing_but_results_where_there_is_no_terminal(program, clip):
    done = program("clip.mp4", "--masks", "first.png", "--end", 3)
    assert "\r" not in done.output
    assert "%|" not in done.output
    note, chosen = done.stderr.splitlines()
    assert note == "note: the first frame gives 2 objects, ids 1, 7"
    assert chosen.startswith("fake: balanced, ")
    assert chosen.endswith(", float32, batch 4")
    assert done.stdout.startswith("clip: 3 frames, 2 objects")
    assert program("clip.mp4", "--masks", "first.png", "--end", 3, "--overwrite", "-q").output == ""


def test_16_bit_ids_come_back(program, clip):
    labels = np.where(truth(0) == 7, 300, truth(0)).astype(np.uint16)
    Image.fromarray(labels).save(clip / "deep.png")
    done = program("clip.mp4", "--masks", "deep.png", "--end", 5, "--rle")
    assert done.exit_code == 0, done.output
    assert np.array_equal(labels_of("clip_segic/masks/00000.png"), labels)
    assert set(np.unique(labels_of("clip_segic/masks/00004.png"))) == {0, 1, 300}
    assert {entry["id"] for entry in json.loads((clip / "clip_segic/masks.json").read_text())} == {1, 300}


def test_void_is_no_object_and_stays_in_the_given_frame(program, clip):
    labels = truth(0)
    labels[:3] = 255
    write_mask(clip / "void.png", labels)
    done = program("clip.mp4", "--masks", "void.png", "--end", 4)
    assert done.exit_code == 0, done.output
    assert "void" in done.output
    assert np.array_equal(labels_of("clip_segic/masks/00000.png"), labels)
    assert set(np.unique(labels_of("clip_segic/masks/00003.png"))) == {0, 1, 7}
    assert [item["id"] for item in summary_of("clip_segic")["objects"]] == [1, 7]


def test_a_mask_in_the_grey_ramp_gives_masks_that_one_sees(program, clip):
    Image.fromarray(truth(0).astype(np.uint8)).convert("P").save(clip / "ramp.png")
    done = program("clip.mp4", "--masks", "ramp.png", "--end", 4)
    assert done.exit_code == 0, done.output
    assert done.output.count("ids 1, 7 cannot be told from the background") == 1
    table = np.array(Image.open("clip_segic/masks/00003.png").getpalette()).reshape(-1, 3)
    assert table[[0, 1, 7]].tolist() == [[0, 0, 0], [128, 0, 0], [128, 128, 128]]


def test_the_overlay_has_the_clips_pixel_aspect(program, clip):
    write_video(clip / "wide.mp4", 3, Fraction(4, 3))
    done = program("wide.mp4", "--masks", "first.png")
    assert done.exit_code == 0, done.output
    with av.open(str(clip / "wide_segic/overlay.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


def test_masks_that_begin_later_leave_the_frames_before_empty(program, clip):
    (clip / "given").mkdir()
    write_mask(clip / "given/00004.png", truth(4))
    done = program("clip.mp4", "--masks", "given", "--end", 6)
    assert done.exit_code == 0, done.output
    assert [labels_of(f"clip_segic/masks/{index:05d}.png").max() for index in range(6)] == [0, 0, 0, 0, 7, 7]
    palettes = [Image.open(clip / f"clip_segic/masks/{index:05d}.png").getpalette() for index in (0, 4)]
    assert palettes[0] == palettes[1] == Image.open(clip / "given/00004.png").getpalette()


def test_frames_of_another_size_stop_the_run_unless_resized(program, clip):
    shots = clip / "shots"
    shots.mkdir()
    for index in range(5):
        pixels = picture(index)
        Image.fromarray(pixels if index != 3 else np.pad(pixels, ((0, 8), (0, 0), (0, 0)))).save(shots / f"{index}.png")
    done = program("shots", "--masks", "first.png")
    assert done.exit_code == 2
    for word in ("3.png is 64x56", "64x48", "--resize-frames", "3 frames are finished"):
        assert word in done.output
    assert len(list((clip / "shots_segic/masks").iterdir())) == 3
    done = program("shots", "--masks", "first.png", "--resume", "--resize-frames")
    assert done.exit_code == 0, done.output
    assert summary_of("shots_segic")["resumed_frames"] == 3
    assert {Image.open(path).size for path in (clip / "shots_segic/masks").iterdir()} == {(WIDTH, HEIGHT)}


def test_a_gap_in_a_folder_is_said(program, clip):
    shots = clip / "shots"
    shots.mkdir()
    for index in (0, 1, 2, 6):
        Image.fromarray(picture(index)).save(shots / f"{index}.png")
    done = program("shots", "--masks", "first.png")
    assert done.exit_code == 0, done.output
    assert "gap between 2 and 6" in done.output
    assert any("gap" in note for note in summary_of("shots_segic")["notes"])


def test_soft_masks_asked_for_late_are_said_to_be_partial(program, clip):
    program.stop = (4, KeyboardInterrupt())
    assert program("clip.mp4", "--masks", "first.png").exit_code == 130
    program.stop = (0, KeyboardInterrupt())
    done = program("clip.mp4", "--masks", "first.png", "--resume", "--soft")
    assert "finished frames of the earlier run have none" in done.output


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("sent", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_to_the_program_keeps_what_is_finished(clip, sent):
    code = """
import importlib.util, sys, time
spec = importlib.util.spec_from_file_location("shared", sys.argv.pop(1))
shared = importlib.util.module_from_spec(spec)
sys.modules["shared"] = shared
spec.loader.exec_module(shared)
import segic_cli.vos, segic_vos.run
from segic_cli.main import main
from segic_cli.model_options import LoadedModel

class Slow(shared.ColourSession):
    def step_encoded(self, encoded, annotation=None):
        time.sleep(0.2)
        return super().step_encoded(encoded, annotation)

segic_cli.vos.load = lambda choice, progress: LoadedModel(shared.FakeModel(), {})
segic_vos.run._video_session = lambda *_: Slow()
main()
"""
    shared = Path(__file__).parents[1] / "conftest.py"
    command = [sys.executable, "-c", code, str(shared), "vos", "run", "clip.mp4", "--masks", "first.png"]
    with subprocess.Popen(command, cwd=clip, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        deadline = time.monotonic() + 120
        while not (clip / "clip_segic/masks/00002.png").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        running.send_signal(getattr(signal, sent))
        said = running.communicate(timeout=60)[1]
    assert running.returncode == 130, said
    assert "Traceback" not in said
    assert "--resume goes on" in said
    count = len(list((clip / "clip_segic/masks").iterdir()))
    assert 3 <= count < FRAMES
    assert (summary_of(clip / "clip_segic")["status"], summary_of(clip / "clip_segic")["frames"]) == (
        "interrupted",
        count,
    )
    with av.open(str(clip / "clip_segic/overlay.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == count


def test_a_full_disk_in_the_middle_of_a_run(program, clip):
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    disk = clip / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        done = program("clip.mp4", "--masks", "first.png", "--out", "disk/out")
        assert done.exit_code == 1, done.output
        assert "the disk is full" in done.output
        assert "Traceback" not in done.output
        kept = sorted((disk / "out/masks").glob("*.png"))
        assert 0 < len(kept) < FRAMES
        summary = summary_of("disk/out")
        assert summary["status"] == "failed"
        assert "the disk is full" in summary["reason"]
        if (overlay := disk / "out/overlay.mp4").exists():
            with av.open(str(overlay)) as container:
                assert next(container.decode(video=0)).width == WIDTH
        for index, path in enumerate(kept):
            assert labels_of(path).shape == (HEIGHT, WIDTH)
            assert path.stem == f"{index:05d}"
        assert subprocess.run(["mount", "-o", "remount,size=8m", disk], capture_output=True).returncode == 0
        done = program("clip.mp4", "--masks", "first.png", "--out", "disk/out", "--resume")
        assert done.exit_code == 0, done.output
        assert len(list((disk / "out/masks").glob("*.png"))) == FRAMES
        assert summary_of("disk/out")["resumed_frames"] > 0
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_masks_by_frame_correct_the_run_and_are_the_output(program, clip):
    given = clip / "given"
    given.mkdir()
    late = truth(15)
    late[:4, :4] = 9
    write_mask(given / "00000.png", truth(0))
    write_mask(given / "00015.png", late)
    write_mask(given / "00099.png", late)
    done = program("clip.mp4", "--masks", "given")
    assert done.exit_code == 0, done.output
    out = clip / "clip_segic"
    assert np.array_equal(labels_of(out / "masks/00015.png"), late)
    assert {item["id"]: item["frames_followed"] for item in summary_of(out)["objects"]} == {1: 30, 7: 30, 9: 15}
    assert "00099.png" in done.output


def test_a_bad_later_mask_is_refused_before_anything_is_written(program, clip):
    (clip / "given").mkdir()
    write_mask(clip / "given/00000.png", truth(0))
    write_mask(clip / "given/00015.png", truth(15)[:-8])
    done = program("clip.mp4", "--masks", "given")
    assert done.exit_code == 2
    for word in ("00015.png", "64x40", "64x48"):
        assert word in done.output
    assert not (clip / "clip_segic").exists()
    done = program("clip.mp4", "--masks", "given", "--end", 15)
    assert done.exit_code == 0, done.output


def test_clip_paths_match_by_order_and_by_name(tmp_path):
    for name in ("a.mp4", "b.mp4", "a.png", "m/a.png", "m/b/0.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    videos = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    ordered = clip_paths(videos, ["x", "y"], tmp_path / "out")
    assert [(each.masks, each.out.name) for each in ordered] == [("x", "a"), ("y", "b")]
    named = clip_paths(videos, [str(tmp_path / "m")], None)
    assert [Path(each.masks).name for each in named] == ["a.png", "b"]
    assert [str(each.out) for each in named] == ["a_segic", "b_segic"]
    with pytest.raises(UsageError, match="two of them called 'a'"):
        clip_paths([videos[0], videos[0]], ["x", "y"], None)
    (tmp_path / "m/b/0.png").unlink()
    (tmp_path / "m/b").rmdir()
    with pytest.raises(UsageError, match=r"neither b\.png nor a folder b"):
        clip_paths(videos, [str(tmp_path / "m")], None)


def test_what_is_chosen_is_said_once_and_recorded(program, clip, fake_model, monkeypatch):
    asked = []

    def load(choice, progress):
        asked.append(choice.size)
        return LoadedModel(fake_model, {})

    monkeypatch.setattr("segic_cli.vos.load", load)
    fake_model.canvas = lambda frame: Canvas.square(frame, 56)
    monkeypatch.setattr("segic_vos.memory.used_memory", lambda device: 0.0)
    shutil.copy(clip / "clip.mp4", clip / "other.mp4")
    both = ("clip.mp4", "other.mp4", "--masks", "first.png", "--masks", "first.png", "--end", 3, "--no-overlay")
    done = program(*both, "--quality", "fast", "--max-memory", "1G")
    assert done.exit_code == 0, done.output
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("fake: ")]
    assert "(--quality)" in said
    assert "batch 4 (--max-memory)" in said
    chosen = summary_of("other_segic")["choices"]
    assert (chosen["quality"], chosen["size_by"], chosen["batch"]) == ("fast", "--quality", 4)
    assert summary_of("other_segic")["settings"]["max_memory"] == 10**9
    assert program(*both, "--size", 300, "--overwrite", "--json").stderr == ""
    assert program(*both, "--overwrite", "--quiet").stderr == ""
    assert program(*both, "--weights", "mine.safetensors", "--overwrite").exit_code == 0
    assert asked == [336, 300, 476, None]


def test_later_clips_have_as_much_memory_as_the_first(program, clip, fake_model, monkeypatch):
    """What the first has left behind, which each is expected to take anyway, does not count against the second."""
    monkeypatch.setattr("segic_cli.vos.load", lambda choice, progress: LoadedModel(fake_model, {}))
    fake_model.canvas = lambda frame: Canvas.square(frame, 56)
    growing = iter(range(0, 10**12, 300_000_000))
    monkeypatch.setattr("segic_vos.memory.used_memory", lambda device: float(next(growing)))
    shutil.copy(clip / "clip.mp4", clip / "other.mp4")
    both = ("clip.mp4", "other.mp4", "--masks", "first.png", "--masks", "first.png", "--end", 3, "--no-overlay")
    done = program(*both, "--size", 300, "--max-memory", "350M")
    assert done.exit_code == 0, done.output
    assert summary_of("other_segic")["choices"]["batch"] == summary_of("clip_segic")["choices"]["batch"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--quality", "fast", "--size", 300), ["--quality fast", "--size 300"]),
        (("--quality", "fast", "--model", "segic-b"), ["segic-b", "--size"]),
        (("--max-memory", "2G", "--batch", 2), ["--batch", "--max-memory", "exclude"]),
        (("--max-memory", "lots"), ["'lots'", "800M"]),
        (("--max-memory", "1M"), ["1 MB", "one frame at a time", "2 objects in 64x48 frames", "--quality"]),
    ],
)
def test_quality_and_memory_that_cannot_be_met(program, clip, fake_model, args, words):
    fake_model.canvas = lambda frame: Canvas.square(frame, 56)
    done = program("clip.mp4", "--masks", "first.png", *args)
    assert done.exit_code == 2, done.output
    for word in words:
        assert word in done.output
    assert not (clip / "clip_segic").exists()


def test_a_model_that_finds_no_memory_is_one_line(clip, monkeypatch):
    def no_memory(*_args, **_more):
        raise MemoryError("Cannot allocate memory")

    monkeypatch.chdir(clip)
    monkeypatch.setattr("segic.load_model", no_memory)
    done = CliRunner().invoke(cli, ["vos", "run", "clip.mp4", "--masks", "first.png"])
    assert done.exit_code == 1
    assert done.output == "Error: segic-s does not fit into this machine's memory: Cannot allocate memory\n"
