"""Which masks a file, a folder or a pattern stands for."""

from __future__ import annotations

import os

import numpy as np
import pytest

from segic.errors import UsageError
from segic_vos.frames import Frame
from segic_vos.masks import read_annotations, read_objects
from segic_vos.sources.selection import Selection

VIDEO = None  # frames named by number


def frame(name, index=None, size=(4, 12)):
    return Frame(int(name) if index is None else index, name, np.zeros((*size, 3), np.uint8))


def stripe(at, value=255):
    """The mask of one object: block `at` of three."""
    mask = np.zeros((4, 12), np.uint8)
    mask[:, 4 * at : 4 * at + 4] = value
    return mask


def test_a_file_is_the_mask_of_the_first_frame_processed(save):
    masks = read_annotations(save("whatever.png", stripe(0, 1) + stripe(1, 5)))
    assert masks.form == "index"
    assert masks.at(frame("00010"), first=True).ids == (1, 5)
    assert masks.at(frame("00011"), first=False) is None
    assert "the first frame gives 2 objects, ids 1, 5" in masks.notes
    assert masks.unused == ()


def test_size_is_checked_when_the_frame_comes(save):
    masks = read_annotations(save("m.png", stripe(0)))
    with pytest.raises(UsageError, match=r"12x4, but the frame is 20x10"):
        masks.at(frame("00000", size=(10, 20)), first=True)


@pytest.mark.parametrize("names", [("1", "2", "3"), ("obj_1", "obj_2", "obj_3"), ("a01", "b02", "c003")])
@pytest.mark.parametrize("as_glob", [False, True])
def test_a_folder_of_binary_masks_is_one_per_object(save, tmp_path, names, as_glob):
    for at, name in enumerate(names):
        save(f"m/{name}.png", stripe(at))
    masks = read_annotations(str(tmp_path / "m" / "*.png") if as_glob else tmp_path / "m", frame_names=VIDEO)
    assert masks.form == "objects"
    found = masks.at(frame("00000"), first=True)
    assert found.ids == (1, 2, 3)
    assert np.array_equal(found.labels, stripe(0, 1) + stripe(1, 2) + stripe(2, 3))
    assert masks.at(frame("00001"), first=False) is None


def test_ids_come_from_the_number_at_the_end(save):
    files = [save("m/007.png", stripe(0)), save("m/obj_300.png", stripe(1, 1))]
    assert read_objects(files).annotation.ids == (7, 300)


def test_masks_without_number_take_free_ids_in_order_and_this_is_said(save):
    files = [save(f"m/{name}.png", stripe(at)) for at, name in enumerate(("cat", "dog", "tree1"))]
    read = read_objects(files)
    assert np.array_equal(read.annotation.labels, stripe(0, 2) + stripe(1, 3) + stripe(2, 1))
    assert any("cat.png is 2, dog.png is 3" in note for note in read.notes)


def test_the_later_mask_is_on_top(save):
    both = stripe(0) | stripe(1)
    read = read_objects([save("m/1.png", both), save("m/2.png", stripe(1))])
    assert np.array_equal(read.annotation.labels, stripe(0, 1) + stripe(1, 2))
    assert any("overlap in 16 pixels" in note for note in read.notes)


def test_an_object_that_is_empty_or_hidden_is_said(save):
    read = read_objects([save("m/1.png", stripe(0)), save("m/2.png", stripe(0)), save("m/3.png", stripe(0, 0))])
    assert read.annotation.ids == (2,)
    assert any("3.png is an empty mask" in note for note in read.notes)
    assert any("objects 1 are wholly covered" in note for note in read.notes)


@pytest.mark.parametrize(
    ("names", "said"),
    [(("a1", "b1"), "both give object 1"), (("a0", "a1"), "1 to 65535: got 0"), (("x70000",), "got 70000")],
)
def test_ids_that_cannot_be(save, names, said):
    with pytest.raises(UsageError, match=said):
        read_objects([save(f"m/{name}.png", stripe(at)) for at, name in enumerate(names)])


def test_objects_of_different_sizes(save):
    with pytest.raises(UsageError, match=r"2\.png is 5x5, but .*1\.png is 12x4"):
        read_objects([save("m/1.png", stripe(0)), save("m/2.png", np.ones((5, 5), np.uint8))])


def test_an_index_mask_is_no_object(save):
    with pytest.raises(UsageError, match=r"1\.png: expected the mask of one object .*found 2 values beside 0: 1, 2"):
        read_objects([save("m/1.png", stripe(0, 1) + stripe(1, 2))])


def test_masks_named_by_frame_may_come_later(save, tmp_path):
    save("m/00000.png", stripe(0, 1))
    save("m/00012.png", stripe(0, 1) + stripe(1, 4))
    masks = read_annotations(tmp_path / "m", frame_names=VIDEO)
    assert masks.form == "frames"
    assert masks.at(frame("00000"), first=True).ids == (1,)
    assert masks.at(frame("00005"), first=False) is None
    assert masks.unused == ("00012.png",)
    assert masks.at(frame("00012"), first=False).ids == (1, 4)
    assert masks.unused == ()
    assert masks.notes == ("frame 00000 gives 1 object, id 1", "frame 00012 gives 1 object, id 4")


def test_numbers_match_whatever_their_zeros(save, tmp_path):
    save("m/0.png", stripe(0, 1) + stripe(1, 2))
    save("m/7.png", stripe(0, 1))
    masks = read_annotations(tmp_path / "m", frame_names=VIDEO)
    assert masks.at(frame("00007"), first=False).ids == (1,)


def test_names_of_a_folders_frames(save, tmp_path):
    names = ("img_a", "img_b", "img_c")
    save("m/img_b.png", stripe(0, 1))
    save("m/img_a.png", stripe(0, 1) + stripe(2, 2))
    masks = read_annotations(tmp_path / "m", frame_names=names)
    assert masks.form == "frames"
    assert masks.at(frame("img_b", 1), first=False).ids == (1,)
    assert masks.at(frame("img_c", 2), first=False) is None


def test_binary_masks_of_all_frames_are_told_from_objects(save, tmp_path):
    """As in DAVIS 2016: 0/255, one for every frame."""
    for number in range(5):
        save(f"m/{number:05d}.png", stripe(0))
    for names in (VIDEO, tuple(f"{number:05d}" for number in range(5))):
        masks = read_annotations(tmp_path / "m", frame_names=names)
        assert masks.form == "frames"
        assert masks.at(frame("00003"), first=False).ids == (255,)


def test_number_0_is_a_frame_since_no_object_has_that_id(save, tmp_path):
    for number in range(3):
        save(f"m/{number}.png", stripe(number))
    assert read_annotations(tmp_path / "m", frame_names=VIDEO).form == "frames"


def test_one_binary_mask_named_like_a_frame(save, tmp_path):
    save("m/00003.png", stripe(0))
    assert read_annotations(tmp_path / "m", frame_names=VIDEO).form == "frames"


def test_one_binary_mask_with_the_very_name_of_a_frame(save, tmp_path):
    save("masks/img_00002.png", np.full((4, 4), 255, np.uint8))
    found = read_annotations(tmp_path / "masks", frame_names=[f"img_{number:05d}" for number in range(3)])
    assert found.form == "frames"
    assert found.named("img_00002", first=False).ids == (255,)


@pytest.mark.parametrize("frame_names", [tuple(str(number) for number in range(1, 30)), ("001", "002", "003")])
def test_ambiguous_names_are_asked_about_and_can_be_told(save, tmp_path, frame_names):
    for at, name in enumerate(frame_names[:3]):
        save(f"m/{name}.png", stripe(at))
    with pytest.raises(UsageError, match=r"3 binary masks .* --mask-form frames or objects"):
        read_annotations(tmp_path / "m", frame_names=frame_names)
    objects = read_annotations(tmp_path / "m", frame_names=frame_names, form="objects")
    assert objects.at(frame(frame_names[0], 0), first=True).ids == (1, 2, 3)
    frames = read_annotations(tmp_path / "m", frame_names=frame_names, form="frames")
    assert frames.at(frame(frame_names[0], 0), first=True).ids == (255,)


def test_binary_masks_that_lie_on_each_other_are_no_objects(save, tmp_path):
    for number in range(1, 9):
        save(f"m/seq_{number}.png", stripe(0))
    with pytest.raises(UsageError, match="one object in several frames must be named as the frames are"):
        read_annotations(tmp_path / "m", frame_names=VIDEO)


def test_index_masks_that_match_no_frame(save, tmp_path):
    for name in ("a", "b"):
        save(f"m/{name}.png", stripe(0, 1) + stripe(1, 2))
    with pytest.raises(UsageError, match=r"2 mask files whose names match no frame, and a\.png holds more than one"):
        read_annotations(tmp_path / "m", frame_names=("00000", "00001"))


def test_a_folder_with_one_index_mask_is_that_of_the_first_frame(save, tmp_path):
    save("m/first.png", stripe(0, 1) + stripe(1, 2))
    masks = read_annotations(tmp_path / "m", frame_names=VIDEO)
    assert masks.form == "index"
    assert masks.at(frame("00000"), first=True).ids == (1, 2)


def test_some_masks_without_a_frame_are_said(save, tmp_path):
    save("m/00000.png", stripe(0, 1) + stripe(1, 2))
    save("m/extra.png", stripe(0, 1))
    masks = read_annotations(tmp_path / "m", frame_names=VIDEO)
    assert any("1 of 2 masks are not named like any frame" in note for note in masks.notes)


def test_two_masks_of_one_frame(save, tmp_path):
    save("m/0.png", stripe(0, 1))
    save("m/00000.png", stripe(0, 1) + stripe(1, 2))
    with pytest.raises(UsageError, match="masks of the same frame"):
        read_annotations(tmp_path / "m", frame_names=VIDEO)


def test_what_holds_for_many_masks_is_said_once_and_notes_only_grow(save, tmp_path):
    for number in range(4):
        save(f"m/{number:05d}.png", stripe(0, 1 if number == 2 else 0))
    masks = read_annotations(tmp_path / "m", frame_names=VIDEO)
    before = ()
    for number in range(4):
        masks.at(frame(f"{number:05d}"), first=number == 0)
        assert masks.notes[: len(before)] == before
        before = masks.notes
    assert sum("empty" in note for note in masks.notes) == 1


@pytest.mark.parametrize("spec", ["gone.png", "gone/*.png", "."])
def test_nothing_there(tmp_path, spec):
    with pytest.raises(UsageError, match=r"no such mask|no picture"):
        read_annotations(tmp_path / spec)


@pytest.mark.parametrize(("form", "said"), [("index", "2 pictures"), ("frames", "none of the 2 masks"), ("x", "form=")])
def test_a_form_that_does_not_fit(save, tmp_path, form, said):
    for at, name in enumerate(("a", "b")):
        save(f"m/{name}.png", stripe(at))
    with pytest.raises(UsageError, match=said):
        read_annotations(tmp_path / "m", frame_names=VIDEO, form=form)


def test_brackets_in_a_folders_name_are_no_pattern(save, tmp_path):
    save("clip[1]/00000.png", stripe(0))
    assert read_annotations(tmp_path / "clip[1]", frame_names=VIDEO).form == "frames"


def test_a_mask_of_two_frames_of_one_number_is_refused(save, tmp_path):
    save("m/1.png", stripe(0))
    with pytest.raises(UsageError, match=r"1\.png could be of the frames 001 and 1; rename all but one"):
        read_annotations(tmp_path / "m", frame_names=["000", "001", "1", "002"], form="frames")
    save("n/2.png", stripe(0))
    assert read_annotations(tmp_path / "n", frame_names=["000", "001", "1", "002"], form="frames").form == "frames"


def test_a_pattern_in_a_folder_with_brackets(save, tmp_path):
    for name in ("00000", "00004"):
        save(f"clip [1]/{name}.png", stripe(0))
    masks = read_annotations(str(tmp_path / "clip [1]" / "*.png"), frame_names=VIDEO, form="frames")
    assert masks.at(frame("00004"), first=False) is not None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_masks_from_a_pipe_are_refused_without_reading_it(tmp_path):
    os.mkfifo(tmp_path / "63")
    with pytest.raises(UsageError, match="63: a pipe or a device, expected a mask file"):
        read_annotations(tmp_path / "63", frame_names=VIDEO)


def test_255_is_no_void_where_an_earlier_mask_gives_the_object_255(save, tmp_path):
    save("m/00000.png", stripe(0))
    save("m/00004.png", stripe(0) + stripe(1, 2))
    masks = read_annotations(tmp_path / "m", frame_names=VIDEO, form="frames")
    assert masks.at(frame("00000"), first=True).ids == (255,)
    later = masks.at(frame("00004"), first=False)
    assert (later.ids, later.void) == ((2, 255), None)
    assert not any("void" in note for note in masks.notes)


def test_the_opening_masks_are_the_first_that_show_an_object(save, tmp_path):
    for name, mask in (("00002", stripe(0, 0)), ("00010", stripe(0, 3)), ("00011", stripe(0, 4) + stripe(1, 5))):
        save(f"m/{name}.png", mask)
    masks = read_annotations(tmp_path / "m", frame_names=VIDEO, form="frames")
    assert masks.opening(VIDEO, Selection()).ids == (3,)
    assert masks.opening(VIDEO, Selection(start=1, every=2)).ids == (4, 5)
    assert masks.opening(VIDEO, Selection(end=10)).ids == ()
    names = [f"{index:05d}" for index in range(12, -1, -1)]  # in the order of a folder
    assert read_annotations(tmp_path / "m", frame_names=names).opening(names, Selection()).ids == (4, 5)
    with pytest.raises(UsageError, match="no mask is of a frame that is taken"):
        masks.opening(VIDEO, Selection(start=12))


@pytest.mark.parametrize("names", [VIDEO, tuple(f"{number:05d}" for number in range(30))])
def test_a_bad_later_mask_is_told_before_work_begins(save, tmp_path, names):
    save("m/00000.png", stripe(0, 1) + stripe(1, 2))
    bad = save("m/00020.png", np.ones((5, 6), np.uint8))
    masks = read_annotations(tmp_path / "m", frame_names=names)
    with pytest.raises(UsageError, match=r"m/00020\.png, given for frame 00020, is 6x5, but the frame is 12x4"):
        masks.opening(names, Selection(), (4, 12))
    assert masks.opening(names, Selection()).ids == (1, 2)  # of frames whose size is not known
    assert masks.opening(names, Selection(end=20), (4, 12)).ids == (1, 2)
    assert masks.opening(names, Selection(every=3), (4, 12)).ids == (1, 2)
    smooth = np.arange(1, 49, dtype=np.uint8).reshape(4, 12)
    for content, said in ((b"no picture", "cannot be read as a mask"), (smooth, "does not look like an index mask")):
        bad.write_bytes(content) if isinstance(content, bytes) else save("m/00020.png", content)
        with pytest.raises(UsageError, match=said):
            masks.opening(names, Selection(), (4, 12))
    assert masks.notes == ()


def test_masks_read_ahead_are_noted_when_their_frame_comes(save, tmp_path):
    """255 beside another id is void where no mask before has the object 255, as it is during the run."""
    save("m/00000.png", stripe(0))
    save("m/00004.png", stripe(0) + stripe(1, 2))
    masks = read_annotations(tmp_path / "m", frame_names=VIDEO, form="frames")
    masks.opening(VIDEO, Selection(), (4, 12))
    assert masks.notes == ()
    assert masks.unused == ("00000.png", "00004.png")
    for number in (0, 4):
        masks.at(frame(f"{number:05d}"), first=number == 0)
    assert masks.notes == ("frame 00000 gives 1 object, id 255", "frame 00004 gives 1 object, id 2")


def test_ids_of_any_mask_have_a_colour_and_this_is_said_once(save, tmp_path):
    padded = bytes([0, 0, 0, 255, 0, 0]).ljust(768, b"\0")
    save("m/00000.png", stripe(0, 1), palette=padded)
    save("m/00004.png", stripe(0, 1) + stripe(1, 4), palette=padded)
    masks = read_annotations(tmp_path / "m", frame_names=VIDEO, form="frames")
    palette = np.frombuffer(masks.opening(VIDEO, Selection()).palette, np.uint8).reshape(256, 3)
    assert palette[[1, 4]].tolist() == [[255, 0, 0], [0, 0, 128]]
    assert not palette[[2, 3]].any()
    (said,) = masks.notes
    assert "id 4 cannot be told from the background or another id" in said
    alone = read_annotations(tmp_path / "m", frame_names=VIDEO, form="frames")
    assert alone.opening(VIDEO, Selection(end=4)).palette == padded
    assert alone.notes == ()


def test_masks_without_a_palette_have_none(save):
    assert read_annotations(save("m.png", stripe(0, 1))).opening(VIDEO, Selection()).palette is None


def test_masks_past_a_videos_end_do_not_stop_it(save, tmp_path):
    save("m/00001.png", stripe(0, 3))
    save("m/00900.png", stripe(0, 3)[:, :5])
    masks = read_annotations(tmp_path / "m", frame_names=VIDEO, form="frames")
    assert masks.opening(VIDEO, Selection(), (4, 12), 40).ids == (3,)
    assert masks.opening(VIDEO, Selection(start=1, every=2), (4, 12), 20).ids == (3,)
    with pytest.raises(UsageError, match="given for frame 00900"):
        masks.opening(VIDEO, Selection(), (4, 12))


def test_masks_numbered_like_frames_of_another_name_are_refused(save):
    for number in (1, 5):
        save(f"masks/mask_{number:04d}.png", np.full((4, 4), 255, np.uint8))
    folder = save("masks/mask_0001.png", np.full((4, 4), 255, np.uint8)).parent
    names = [f"frame_{number:04d}" for number in range(8)]
    for frames in (names, None):
        with pytest.raises(UsageError, match=r"mask_0001, mask_0005\) are numbered as frames are, but named like none"):
            read_annotations(folder, frame_names=frames)
    both = read_annotations(folder, frame_names=names, form="objects")
    assert both.form == "objects"
