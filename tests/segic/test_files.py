"""Files that are there whole or not at all."""

from __future__ import annotations

import pytest

from segic.files import whole


def test_a_file_appears_when_it_is_written(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with whole(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("written", [False, True])
def test_what_fails_leaves_the_old_file_alone(tmp_path, error, written):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with whole(path) as part:
            if written:
                part.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_missing_is_the_callers_to_make(tmp_path):
    with pytest.raises(FileNotFoundError), whole(tmp_path / "no" / "a.txt") as part:
        part.write_text("new")
