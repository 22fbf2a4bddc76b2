"""Which masks and which output folder are a video's."""

from __future__ import annotations

from pathlib import Path

import pytest

from segic.errors import UsageError
from segic_cli.clips import clip_paths, clip_stem


@pytest.fixture
def made(tmp_path, monkeypatch):
    """`made("a.mp4", "masks/")`: files, and folders, in the working directory."""
    monkeypatch.chdir(tmp_path)

    def make(*names: str) -> None:
        for name in names:
            path = Path(name)
            (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
            if not name.endswith("/"):
                path.touch()

    return make


def test_one_video_and_what_may_be_several_videos_masks_or_several_objects(made):
    """One of them called as the video is: no guess is safe."""
    made("dog.mp4", "cat.mp4", "masks/dog.png", "masks/cat.png")
    both = clip_paths([Path("dog.mp4"), Path("cat.mp4")], ["masks"], None)
    assert [Path(each.masks) for each in both] == [Path("masks/dog.png"), Path("masks/cat.png")]
    with pytest.raises(UsageError, match=r"dog\.png is called as the video is.*--masks .*--mask-form objects"):
        clip_paths([Path("dog.mp4")], ["masks"], None)
    assert clip_paths([Path("dog.mp4")], ["masks"], None, "objects")[0].masks == "masks"
    Path("masks/cat.png").unlink()
    assert clip_paths([Path("dog.mp4")], ["masks"], None)[0].masks == "masks"


@pytest.mark.parametrize(("video", "mask"), [("dog.mp4", "first.png"), ("00000.mp4", "00000.png")])
def test_a_folder_of_one_videos_masks_is_taken_whole(made, video, mask):
    """A video called as its frames are, too."""
    made(video, f"masks/{mask}", "masks/00005.png")
    assert clip_paths([Path(video)], ["masks"], None)[0].masks == "masks"


def test_masks_that_a_shell_had_no_value_for(made):
    made("dog.mp4", "first.png")
    with pytest.raises(UsageError, match="--masks is empty; expected a mask file"):
        clip_paths([Path("dog.mp4")], [""], None)


def test_a_link_has_its_own_name(made):
    made("one/frames/", "two/frames/")
    Path("shot_a").symlink_to("one/frames")
    Path("shot_b").symlink_to("two/frames")
    outs = [each.out for each in clip_paths([Path("shot_a"), Path("shot_b")], ["a.png", "b.png"], None)]
    assert outs == [Path("shot_a_segic"), Path("shot_b_segic")]


def test_where_one_is_has_a_name(made, monkeypatch, tmp_path):
    made("clip/frames/")
    monkeypatch.chdir("clip/frames")
    assert [clip_stem(Path(name)) for name in (".", "..", "../../clip")] == ["frames", "clip", "clip"]
