"""Downloads from a real HTTP server on this machine: interrupted, resumed, damaged, changed, absent."""

import hashlib
import http.server
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from segic.errors import SegicError
from segic.weights.download import download

CONTENT = bytes(range(256)) * 12_000  # 3 MB: several pieces
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Site:
    """What the server serves, and how badly. `cuts`: for each answer to come, the bytes after which it breaks off."""

    url: str = ""
    content: bytes = CONTENT
    etag: str | None = '"v1"'
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    status: int | None = None
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def site():
    state = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            state.asked.append(asked)
            if state.status:
                self.send_error(state.status)
                return
            start = 0
            current = self.headers.get("If-Range") in (None, state.etag)
            if asked and state.ranges and current:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(state.content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(state.content)}")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(state.content) - 1}/{len(state.content)}")
            else:
                self.send_response(200)
            if state.etag:
                self.send_header("ETag", state.etag)
            body = state.content[start:]
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.cuts.pop(0)] if state.cuts else body)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/weights.pth"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_whole_file_and_progress(site, tmp_path):
    seen = []
    found = download(site.url, tmp_path / "w", sha256=SHA256, progress=lambda *call: seen.append(call))
    assert found == SHA256
    assert (tmp_path / "w").read_bytes() == CONTENT
    assert names(tmp_path) == ["w"]
    assert ("downloading w", len(CONTENT), len(CONTENT)) in seen


def test_hash_is_reported_where_none_is_known(site, tmp_path):
    assert download(site.url, tmp_path / "w") == SHA256


def test_a_connection_that_breaks_is_resumed_in_the_same_call(site, tmp_path):
    site.cuts = [1_000_000, 500_000]
    download(site.url, tmp_path / "w", sha256=SHA256)
    assert (tmp_path / "w").read_bytes() == CONTENT
    assert site.asked == [None, "bytes=1000000-", "bytes=1500000-"]


def test_a_later_call_goes_on_where_the_first_stopped(site, tmp_path):
    site.cuts = [1_000_000, 0]
    with pytest.raises(SegicError, match="1000000 bytes are kept"):
        download(site.url, tmp_path / "w")
    assert not (tmp_path / "w").exists()
    assert download(site.url, tmp_path / "w") == SHA256
    assert site.asked == [None, "bytes=1000000-", "bytes=1000000-"]


def test_ctrl_c_keeps_the_part(site, tmp_path):
    def interrupt(what, done, total):
        if done > 1_000_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(site.url, tmp_path / "w", progress=interrupt)
    kept = (tmp_path / "w.part").stat().st_size
    assert kept > 1_000_000
    assert download(site.url, tmp_path / "w") == SHA256
    assert site.asked[-1] == f"bytes={kept}-"


def test_a_file_that_changed_meanwhile_is_fetched_from_its_start(site, tmp_path):
    site.cuts = [1_000_000, 0]
    with pytest.raises(SegicError):
        download(site.url, tmp_path / "w")
    site.content, site.etag = CONTENT[::-1], '"v2"'
    download(site.url, tmp_path / "w")
    assert (tmp_path / "w").read_bytes() == CONTENT[::-1]


def test_without_validator_or_hash_nothing_is_joined(site, tmp_path):
    site.etag, site.cuts = None, [1_000_000]
    download(site.url, tmp_path / "w")
    assert (tmp_path / "w").read_bytes() == CONTENT
    assert site.asked == [None, None]


def test_without_validator_but_with_a_hash_it_is_resumed(site, tmp_path):
    site.etag, site.cuts = None, [1_000_000]
    download(site.url, tmp_path / "w", sha256=SHA256)
    assert site.asked == [None, "bytes=1000000-"]


def test_a_server_that_knows_no_ranges(site, tmp_path):
    site.ranges, site.cuts = False, [1_000_000]
    download(site.url, tmp_path / "w", sha256=SHA256)
    assert (tmp_path / "w").read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_dropped(site, tmp_path):
    (tmp_path / "w.part").write_bytes(CONTENT + b"more")
    (tmp_path / "w.part.version").write_text('"v1"')
    assert download(site.url, tmp_path / "w") == SHA256


def test_a_part_that_is_the_whole_file_is_not_fetched_again(site, tmp_path):
    """As when a call was stopped while it looked at what it had fetched."""
    (tmp_path / "w.part").write_bytes(CONTENT)
    (tmp_path / "w.part.version").write_text('"v1"')
    assert download(site.url, tmp_path / "w", sha256=SHA256) == SHA256
    assert site.asked == [f"bytes={len(CONTENT)}-"]
    assert names(tmp_path) == ["w"]


def test_wrong_hash_names_both_and_keeps_nothing(site, tmp_path):
    with pytest.raises(SegicError) as caught:
        download(site.url, tmp_path / "w", sha256="0" * 64)
    for part in (site.url, "0" * 64, SHA256):
        assert part in str(caught.value)
    assert names(tmp_path) == []


def test_absent_file(site, tmp_path):
    site.status = 404
    with pytest.raises(SegicError, match=r"404 Not Found.*give its path"):
        download(site.url, tmp_path / "w")
    assert len(site.asked) == 1


def test_no_server(tmp_path):
    url = "http://127.0.0.1:9/weights.pth"  # the discard port: nothing listens
    with pytest.raises(SegicError, match=r"127\.0\.0\.1:9/weights\.pth could not be downloaded: .*give its path"):
        download(url, tmp_path / "w")
    assert names(tmp_path) == []
