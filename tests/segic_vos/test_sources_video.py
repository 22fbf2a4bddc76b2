"""Video files as they come from cameras, editors and broken downloads."""

from __future__ import annotations

import gc
import os
import wave
import weakref
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from PIL import Image

from segic.errors import SegicError, UsageError
from segic_vos.sources import SourceWarning, open_source

X264 = pytest.mark.skipif("libx264" not in av.codecs_available, reason="FFmpeg without x264")
pytestmark = X264


def read_until_error(source):
    """The frames before the error, and the error (None where there is none)."""
    frames = []
    try:
        for frame in source:
            frames.append(frame)
    except SegicError as error:
        return frames, error
    return frames, None


def test_frames_come_in_display_order_with_names_times_and_rate(clips):
    path = clips.write("a.mp4", clips.numbered(30), rate=Fraction(30000, 1001), encoder={"bf": "3"})
    source = open_source(path)
    frames = list(source)
    assert [clips.number_of(frame.pixels) for frame in frames] == list(range(30))
    assert [frame.index for frame in frames] == list(range(30))
    assert [frame.name for frame in frames[::29]] == ["00000", "00029"]
    assert [frame.time for frame in frames] == [Fraction(1001 * i, 30000) for i in range(30)]
    assert source.info.rate == Fraction(30000, 1001)
    assert source.info.size == frames[0].size == (48, 64)
    assert source.info.expected_frames == 30
    assert source.names is None


def test_iterating_twice_starts_anew(clips):
    source = open_source(clips.write("a.mp4", clips.numbered(5)))
    next(iter(source))
    assert len(list(source)) == len(list(source)) == 5


def test_pixels_are_rgb(clips):
    frame = next(iter(open_source(clips.write("a.mp4", [clips.quadrants()] * 2))))
    assert np.abs(frame.pixels[8::47, 8::79].astype(int) - clips.quadrants()[8::47, 8::79]).max() < 8


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_and_mirror_are_applied(clips, degrees, mirrored):
    if not hasattr(av.VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV cannot write a display matrix")
    path = clips.write("a.mp4", [clips.quadrants()] * 2, rotation=(degrees, mirrored))
    source = open_source(path)
    frame = next(iter(source))
    turned = np.rot90(clips.quadrants(), degrees // 90)
    expected = turned[:, ::-1] if mirrored else turned
    assert frame.size == source.info.size == expected.shape[:2]
    assert np.abs(frame.pixels.astype(int) - expected).mean() < 4


@pytest.mark.parametrize(("orientation", "quarters"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_pictures_with_exif_data_are_turned_by_it(clips, tmp_path, orientation, quarters):
    """PyAV 18 knows no such data beside a frame, and raises where it is asked for any of it."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "a camera"
    Image.fromarray(clips.quadrants()).save(tmp_path / "a.jpg", exif=exif, quality=95, subsampling=0)
    source = open_source(tmp_path / "a.jpg")
    (frame,) = source
    expected = np.rot90(clips.quadrants(), quarters)
    assert frame.size == source.info.size == expected.shape[:2]
    assert np.abs(frame.pixels.astype(int) - expected).mean() < 4


@pytest.mark.parametrize(("degrees", "expected"), [(0, Fraction(4, 3)), (90, Fraction(3, 4)), (180, Fraction(4, 3))])
def test_pixels_that_are_not_square_are_known_upright(clips, degrees, expected):
    if degrees and not hasattr(av.VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV cannot write a display matrix")
    rotation = (degrees, False) if degrees else None
    path = clips.write("a.mp4", [clips.quadrants()] * 2, rotation=rotation, pixel_aspect=Fraction(4, 3))
    assert open_source(path).info.pixel_aspect == expected
    assert open_source(clips.write("b.mp4", [clips.quadrants()] * 2, rotation=rotation)).info.pixel_aspect == 1


def test_variable_frame_rate_keeps_order_and_exact_times(clips):
    times = [Fraction(n, 1000) for n in (0, 33, 67, 500, 533, 1700, 1733)]
    frames = list(open_source(clips.write("a.mp4", clips.numbered(7), times=times)))
    assert [frame.time for frame in frames] == times
    assert [frame.index for frame in frames] == list(range(7))


def test_edit_list_hides_frames(clips, tmp_path):
    """A copy that starts between key frames keeps the frames before its start in the file, and hides them."""
    whole = clips.write("a.mp4", clips.numbered(40), encoder={"g": "40", "bf": "0"})
    trimmed = tmp_path / "b.mp4"
    with av.open(str(whole)) as source, av.open(str(trimmed), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        shift = 15 * stream.duration // 40
        for packet in source.demux(stream):
            if packet.size:
                packet.pts -= shift
                packet.dts -= shift
                packet.stream = copy
                target.mux(packet)
    shown = [clips.number_of(frame.pixels) for frame in open_source(trimmed)]
    assert shown == list(range(15, 40)), shown


@pytest.mark.parametrize("size", [(47, 63), (48, 63), (47, 64)])
def test_odd_sizes(clips, size):
    path = clips.write("a.mkv", clips.numbered(3, *size), codec="ffv1", pixel_format="bgr0")
    assert next(iter(open_source(path))).size == size


def test_10_bit(clips):
    try:
        path = clips.write("a.mp4", [clips.quadrants()] * 2, pixel_format="yuv420p10le")
    except av.FFmpegError:
        pytest.skip("this x264 writes no 10 bit")
    frame = next(iter(open_source(path)))
    assert frame.pixels.dtype == np.uint8
    assert np.abs(frame.pixels[8::47, 8::79].astype(int) - clips.quadrants()[8::47, 8::79]).max() < 8


def test_start_end_every(clips):
    path = clips.write("a.mp4", clips.numbered(20))
    source = open_source(path, start=3, end=14, every=4)
    frames = list(source)
    assert [frame.index for frame in frames] == [3, 7, 11]
    assert [clips.number_of(frame.pixels) for frame in frames] == [3, 7, 11]
    assert [frame.name for frame in frames] == ["00003", "00007", "00011"]
    assert source.info.expected_frames == 3
    assert source.info.rate == Fraction(25, 4)


def test_start_after_the_end_is_told(clips):
    with pytest.raises(UsageError, match=r"start=9, but it has only 5 frames"):
        list(open_source(clips.write("a.mp4", clips.numbered(5)), start=9))


@pytest.mark.parametrize("wrong", [{"start": -1}, {"start": 3, "end": 3}, {"every": 0}, {"decoder": "cv"}])
def test_impossible_requests(clips, wrong):
    with pytest.raises(UsageError, match=f"{list(wrong)[-1]}="):
        open_source(clips.write("a.mp4", clips.numbered(2)), **wrong)


# Cut off and damaged files


@pytest.mark.parametrize(
    ("name", "codec", "muxer"),
    [
        ("faststart.mp4", "libx264", {"movflags": "+faststart"}),
        ("fragments.mp4", "libx264", {"movflags": "+frag_keyframe+empty_moov"}),
        ("a.mkv", "libx264", {}),
        ("a.avi", "mpeg4", {}),
    ],
)
@pytest.mark.parametrize("share", [0.5, 0.61, 0.8])
def test_a_cut_off_file_gives_its_good_frames_then_says_where_it_stopped(clips, name, codec, muxer, share):
    whole = clips.write(name, clips.numbered(60), codec=codec, muxer=muxer, encoder={"g": "10", "b": "4M"})
    source = open_source(clips.cut(whole, int(whole.stat().st_size * share)))
    frames, error = read_until_error(source)
    assert 5 < len(frames) < 60
    assert [clips.number_of(frame.pixels) for frame in frames] == list(range(len(frames)))
    assert error is not None
    assert error.exit_status == 1
    assert f"stopped after frame {frames[-1].name} at {float(frames[-1].time):.3f} s" in str(error)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_no_frame_after_a_cut_takes_the_place_of_one_that_is_lost(clips, name):
    """Frames that were to be shown before them come after them in the file: the decoder holds back ones that it can
    give, and that are not the next.
    """
    whole = clips.write(
        name, clips.numbered(30), muxer={"movflags": "+faststart"} if name == "a.mp4" else {},
        encoder={"bf": "3", "b_strategy": "0", "b": "4M"},
    )  # fmt: skip
    size, found = whole.stat().st_size, []
    for share in range(30, 100, 3):
        frames, error = read_until_error(open_source(clips.cut(whole, size * share // 100)))
        numbers = [clips.number_of(frame.pixels) for frame in frames]
        assert numbers == list(range(len(numbers)))
        assert error is not None or name == "a.ts"  # which may end after any of its packets
        found.append(len(numbers))
    assert found == sorted(found)
    assert found[-1] >= 25


def test_what_the_decoder_holds_is_not_lost_with_a_last_packet_of_garbage(clips):
    whole = clips.write(
        "a.mp4", clips.numbered(20), muxer={"movflags": "+faststart"}, encoder={"bf": "3", "b_strategy": "0"}
    )
    with av.open(str(whole)) as container:
        entries = list(container.streams.video[0].index_entries)
        packets = [packet for packet in container.demux(video=0) if packet.size]
    data = bytearray(whole.read_bytes())
    data[entries[-1].pos : entries[-1].pos + entries[-1].size] = b"\xff" * entries[-1].size
    whole.write_bytes(data)
    frames, error = read_until_error(open_source(whole))
    lost = packets[-1].pts // min(two.pts - one.pts for one, two in pairwise(sorted(packets, key=lambda p: p.pts)))
    assert [clips.number_of(frame.pixels) for frame in frames] == list(range(lost))
    assert error is not None


def test_a_cut_between_two_packets_is_noticed(clips):
    """Here the demuxer sees nothing wrong: only the index tells that more was there."""
    whole = clips.write("a.mp4", clips.numbered(30), muxer={"movflags": "+faststart"}, encoder={"bf": "0"})
    with av.open(str(whole)) as container:
        entries = list(container.streams.video[0].index_entries)
    frames, error = read_until_error(open_source(clips.cut(whole, entries[20].pos)))
    assert len(frames) == 20
    assert "its index names data up to byte" in str(error)


def test_frames_wanted_before_the_cut_give_no_error(clips):
    whole = clips.write("a.mp4", clips.numbered(60), muxer={"movflags": "+faststart"}, encoder={"g": "10"})
    cut = clips.cut(whole, int(whole.stat().st_size * 0.6))
    assert len(list(open_source(cut, end=8))) == 8


@pytest.mark.filterwarnings("ignore::segic_vos.sources.SourceWarning")
def test_a_transport_stream_with_half_a_packet_at_its_end(clips):
    whole = clips.write("a.ts", clips.numbered(60), encoder={"g": "10"})
    frames, error = read_until_error(open_source(clips.cut(whole, 188 * 60 + 100)))
    assert frames
    assert error is not None


def test_garbage_in_the_middle_keeps_what_came_before(clips):
    whole = clips.write("a.mp4", clips.numbered(60), muxer={"movflags": "+faststart"}, encoder={"bf": "0", "g": "60"})
    with av.open(str(whole)) as container:
        entry = container.streams.video[0].index_entries[25]
    data = bytearray(whole.read_bytes())
    data[entry.pos : entry.pos + entry.size] = b"\xff" * entry.size
    whole.write_bytes(data)
    frames, error = read_until_error(open_source(whole))
    assert [clips.number_of(frame.pixels) for frame in frames] == list(range(25))
    assert "stopped after frame 00024" in str(error)


def test_damaged_frames_between_good_ones_are_kept_and_told(clips):
    """A transport stream that lost packets on its way."""
    whole = clips.write("a.ts", clips.numbered(60), encoder={"g": "15", "bf": "0"})
    packets = [whole.read_bytes()[at : at + 188] for at in range(0, whole.stat().st_size, 188)]
    lost = len(packets) // 2
    whole.write_bytes(b"".join(packets[: lost - 1] + packets[lost + 1 :]))
    with pytest.warns(SourceWarning, match="damaged frames, used as decoded; the first is 000") as told:
        frames = list(open_source(whole))
    assert "1 damaged frames" not in str(told[0].message)
    assert str(told[0].message).endswith(", 1 in all")
    assert len(frames) >= 59


@pytest.mark.parametrize("stated", [3, 1000])
def test_the_containers_frame_count_is_not_believed(clips, stated):
    """AVI states its frame count in two headers of its own; here both are wrong."""
    path = clips.write("a.avi", clips.numbered(20), codec="mpeg4")
    data = bytearray(path.read_bytes())
    stream_header = data.index(b"strh")
    for at in (data.index(b"avih") + 8 + 16, stream_header + 8 + 32):
        assert int.from_bytes(data[at : at + 4], "little") == 20
        data[at : at + 4] = stated.to_bytes(4, "little")
    path.write_bytes(data)
    assert len(list(open_source(path))) == 20


# Files that are no videos


def test_missing_file(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.mp4: no such file"):
        open_source(tmp_path / "gone.mp4")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "clip.mp4")
    with pytest.raises(UsageError, match=r"clip\.mp4: a pipe or a device, expected a regular file"):
        open_source(tmp_path / "clip.mp4")


@pytest.mark.parametrize("written", ["http://host/a.mp4", "HTTPS://host/a.mp4", "rtsp://host:5/a"])
def test_an_address_is_refused_as_one(written):
    with pytest.raises(UsageError, match=f"^{written}: an address, expected a path; download"):
        open_source(written)
    with pytest.raises(UsageError, match="no such file"):
        open_source("c:/a.mp4")


@pytest.mark.parametrize("content", [b"", b"not a video at all" * 100])
@pytest.mark.parametrize("name", ["a.mp4", "a.txt"])
def test_not_a_video(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.(mp4|txt): "):
        open_source(path)


def test_sound_only(tmp_path):
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(1600))
    with pytest.raises(UsageError, match="no video stream"):
        open_source(path)


def test_a_video_without_frames(clips):
    whole = clips.write("a.mkv", clips.numbered(3), encoder={"g": "1"})
    with av.open(str(whole)) as container:
        first = next(packet for packet in container.demux(video=0))
    head = whole.read_bytes().index(bytes(first)[:32])
    with pytest.raises(SegicError, match=r"frames|decoded"):
        open_source(clips.cut(whole, head - 20))


def test_an_mp4_that_lost_its_index(clips):
    whole = clips.write("a.mp4", clips.numbered(30))
    with pytest.raises(UsageError, match="lost its index"):
        open_source(clips.cut(whole, whole.stat().st_size // 2))


def test_names_with_colons_and_percent_signs_are_files(clips):
    path = clips.write("plain.mp4", clips.numbered(2))
    odd = path.rename(path.with_name("http:%03d.mp4"))
    assert len(list(open_source(odd))) == 2


def test_a_picture_size_that_changes(clips):
    """Two H.264 streams of different sizes, one after the other."""
    small = clips.write("a.h264", clips.numbered(4), encoder={"bf": "0"})
    large = clips.write("b.h264", clips.numbered(4, 64, 80), encoder={"bf": "0"})
    joined = small.with_name("c.h264")
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    with pytest.raises(UsageError, match=r"frame 00004 is 80x64, but the first frame is 64x48"):
        list(open_source(joined))
    assert {frame.size for frame in open_source(joined, on_size_change="resize")} == {(48, 64)}


def test_no_picture_is_kept_after_it_was_handed_out(clips):
    """Neither by the source nor by a cycle that waits for Python's collector."""
    source = open_source(clips.write("a.mp4", clips.numbered(60)))
    gc.collect()
    gc.disable()
    try:
        handed_out = []
        for frame in source:
            handed_out.append(weakref.ref(frame))
            assert sum(1 for one in handed_out if one() is not None) <= 2
        assert sum(1 for one in gc.get_objects() if type(one) is av.VideoFrame) <= 3
    finally:
        gc.enable()


def test_one_picture_is_a_clip_of_one_frame(save, clips):
    path = save("a.png", clips.quadrants())
    assert np.array_equal(next(iter(open_source(path))).pixels, np.asarray(Image.open(path)))


def test_decord_missing_names_the_extra(clips, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "decord", None)
    with pytest.raises(UsageError, match=r"pip install 'segic\[decord\]'"):
        open_source(clips.write("a.mp4", clips.numbered(2)), decoder="decord")


def test_decord_gives_the_same_frames(clips):
    pytest.importorskip("decord")
    path = clips.write("a.mp4", clips.numbered(20))
    ours = list(open_source(path, start=2, every=3))
    theirs = list(open_source(path, decoder="decord", start=2, every=3))
    assert [frame.name for frame in theirs] == [frame.name for frame in ours]
    assert [clips.number_of(frame.pixels) for frame in theirs] == [frame.index for frame in ours]
    assert [float(frame.time) for frame in theirs] == pytest.approx([float(frame.time) for frame in ours], abs=1e-4)
