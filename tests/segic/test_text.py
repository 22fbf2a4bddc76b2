"""The meta instruction: CLIP's text encoder on a tiny random model, stored features, prompts that cannot be had."""

import builtins
import json
import os
import sys

import pytest
import torch

from segic import text
from segic.errors import SegicError, UsageError
from segic.text import CLIP, WIDTH, CachedText, ClipTextEncoder, FixedPrompt, class_prompt, default_text
from segic.weights import load_tensors, save_tensors


class Fake:
    """Features that depend on the prompt alone; remembers what it was asked."""

    def __init__(self, width=WIDTH):
        self.width = width
        self.asked = []

    def __call__(self, prompts):
        self.asked.append(list(prompts))
        return torch.stack([torch.full((self.width,), float(len(prompt))) for prompt in prompts])


@pytest.fixture
def tiny_clip(tmp_path):
    """A folder with a random CLIP text encoder of 768 channels and one layer, and a tokenizer of single letters."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "clip"
    folder.mkdir()
    letters = [chr(c) for c in range(97, 123)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.model_max_length = 77
    tokenizer.save_pretrained(folder)
    config = transformers.CLIPTextConfig(
        vocab_size=len(words), hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4,
        projection_dim=WIDTH, bos_token_id=len(words) - 2, eos_token_id=len(words) - 1, pad_token_id=len(words) - 1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.CLIPTextModel(config)
    model.save_pretrained(folder)
    return folder, model.eval(), tokenizer


def test_clip_feature_is_the_end_tokens_before_the_projection(tiny_clip):
    folder, model, tokenizer = tiny_clip
    features = ClipTextEncoder(folder)(["a photo of a cat", "dog", ""])
    assert features.shape == (3, WIDTH)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    for prompt, feature in zip(["a photo of a cat", "dog", ""], features, strict=True):
        tokens = tokenizer(prompt, return_tensors="pt")  # alone, so without padding
        with torch.no_grad():
            hidden = model(**tokens).last_hidden_state
        torch.testing.assert_close(feature, hidden[0, -1], rtol=0, atol=1e-5)
    assert (features[0] - features[1]).abs().max() > 1e-3


def test_clip_cuts_long_prompts(tiny_clip):
    assert ClipTextEncoder(tiny_clip[0])(["cat " * 200]).shape == (1, WIDTH)


def test_clip_that_cannot_be_loaded(tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SegicError, match=r"empty could not be loaded.*offline.*leave the text out"):
        ClipTextEncoder(tmp_path / "empty")(["cat"])


def test_without_transformers_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] == "transformers":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UsageError, match=r"pip install 'segic\[hf\]'"):
        ClipTextEncoder()(["cat"])


def test_importing_text_does_not_import_transformers():
    import subprocess

    code = "import sys, segic.text; sys.exit('transformers' in sys.modules or 'torch' in sys.modules)"
    path = os.pathsep.join(filter(None, sys.path))
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": path}, check=False).returncode == 0


def test_prompts():
    assert class_prompt("cat") == "a photo of a cat"
    assert class_prompt("cat", text.CLASS_PROMPT) == "a photo of a cat."
    assert class_prompt(None) == class_prompt("") == ""
    assert text.INSTANCE_PROMPT == text.RELEASED_INSTANCE_PROMPT + "."


def test_each_prompt_is_encoded_once(tmp_path):
    store = tmp_path / "new" / "prompts.safetensors"
    fake = Fake()
    cached = CachedText(fake, store=store)
    features = cached(["cat", "", "cat", "__metadata__"])
    assert features[:, 0].tolist() == [3, 0, 3, 12]
    cached(["cat"])
    assert fake.asked == [["cat", "", "__metadata__"]]
    again = CachedText(None, store=store)
    torch.testing.assert_close(again(["__metadata__", "", "cat"]), features[[3, 1, 0]], rtol=0, atol=0)
    assert cached([]).shape == (0, WIDTH)


def test_new_prompts_join_those_of_another_process(tmp_path):
    store = tmp_path / "prompts.safetensors"
    first, second = CachedText(Fake(), store=store), CachedText(Fake(), store=store)
    first(["cat"])
    second(["horse"])
    fake = Fake()
    assert CachedText(fake, store=store)(["cat", "horse"])[:, 0].tolist() == [3, 5]
    assert fake.asked == []
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".lock", ".safetensors"]


def test_given_files_come_before_the_encoder_and_stay_unchanged(tmp_path):
    shipped, store = tmp_path / "shipped.safetensors", tmp_path / "store.safetensors"
    CachedText(Fake(), store=shipped)(["cat"])
    before = shipped.read_bytes()
    fake = Fake()
    cached = CachedText(fake, files=[shipped, tmp_path / "absent.safetensors"], store=store)
    cached(["cat", "dogs"])
    assert fake.asked == [["dogs"]]
    assert shipped.read_bytes() == before
    assert list(load_tensors(store)) == ["prompt:dogs"]


def test_an_unknown_prompt_without_an_encoder():
    with pytest.raises(UsageError, match=r"no stored text feature for 'cat'.*segic\[hf\]"):
        CachedText(None)(["cat"])


def test_a_store_that_cannot_be_written_does_not_stop_the_run(tmp_path):
    (tmp_path / "file").write_text("")
    assert CachedText(Fake(), store=tmp_path / "file" / "store.safetensors")(["cat"]).shape == (1, WIDTH)


def test_features_of_another_encoder_or_width_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    save_tensors({"prompt:cat": torch.zeros(WIDTH)}, path, {"encoder": "another"})
    with pytest.raises(UsageError, match=r"a\.safetensors .*'another', expected '" + CLIP):
        CachedText(None, files=[path])
    save_tensors({"prompt:cat": torch.zeros(3)}, path, {"encoder": CLIP})
    with pytest.raises(UsageError, match=r"shape \(3,\)"):
        CachedText(None, files=[path])
    with pytest.raises(SegicError, match=r"\(1, 512\), expected \(1, 768\)"):
        CachedText(Fake(512))(["cat"])


def test_a_model_with_a_fixed_prompt_refuses_text():
    with pytest.raises(UsageError, match=r"segic-s has one fixed prompt.*'dog'.*segic\[hf\]"):
        FixedPrompt("segic-s")(["dog"])


def test_default_text_keeps_prompts_in_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGIC_CACHE", str(tmp_path))
    cached = default_text()
    cached.encoder = Fake()
    cached(["cat"])
    monkeypatch.setattr(ClipTextEncoder, "_load", lambda self: pytest.fail("the language model was loaded"))
    assert default_text()(["cat"])[0, 0] == 3
