"""The meta instruction (paper, eq. 4): m = F_t(meta), the pooled feature of a frozen CLIP ViT-L/14 text encoder.

Prompts that were encoded once are kept, so that fixed prompts need no language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from segic.errors import SegicError, UsageError
from segic.weights.cache import cache_dir, locked
from segic.weights.tensors import load_tensors, read_header, save_tensors

if TYPE_CHECKING:
    import torch

CLIP = "openai/clip-vit-large-patch14"
WIDTH = 768  # of a text feature

# The paper's words (algorithm 2) ...
CLASS_PROMPT = "a photo of a {}."
INSTANCE_PROMPT = "please segment the instances."
# ... and those that the released models were trained with, without the full stop.
RELEASED_CLASS_PROMPT = "a photo of a {}"
RELEASED_INSTANCE_PROMPT = "please segment the instances"

_KEY = "prompt:"  # before a prompt in a file: an empty name, or safetensors' own `__metadata__`, would not do


class TextEncoder(Protocol):
    """Texts in, features m of eq. 4 out."""

    def __call__(self, prompts: Sequence[str]) -> torch.Tensor:
        """The text features (len(prompts), 768), float32 on the CPU. Raises SegicError when they cannot be had."""
        ...


def class_prompt(name: str | None, template: str = RELEASED_CLASS_PROMPT) -> str:
    """The prompt for a class; the empty prompt when there is no class, as in the released code."""
    return template.format(name) if name else ""


class ClipTextEncoder:
    """CLIP's text encoder from the package transformers (extra `hf`), loaded at the first call.

    The feature is that of the end token after the last norm, before CLIP's projection to the image's space: the
    released decoders were trained on it. (The projected one has 768 channels as well, so nothing would complain.)
    Prompts of more than 77 tokens are cut.

    source: a name on the Hugging Face Hub (downloaded once, into transformers' own cache) or a local folder.
    """

    def __init__(self, source: str | Path = CLIP, device: torch.device | str = "cpu") -> None:
        self.source = str(source)
        self.device = device
        self._loaded: tuple[Any, Any] | None = None

    def __call__(self, prompts: Sequence[str]) -> torch.Tensor:
        """See `TextEncoder`. Raises UsageError without transformers, SegicError when the model cannot be loaded."""
        import torch

        tokenizer, model = self._load()
        tokens = tokenizer(list(prompts), padding=True, truncation=True, return_tensors="pt").to(self.device)
        with torch.inference_mode():
            pooled = model(**tokens).pooler_output
        return pooled.float().cpu().clone()

    def _load(self) -> tuple[Any, Any]:
        """(tokenizer, model)."""
        if self._loaded is None:
            try:
                from transformers import AutoTokenizer, CLIPTextModel
            except ImportError as error:
                raise UsageError(
                    "models that take text need its encoder, with a text or without, and that the package "
                    "transformers, which is not installed: pip install 'segic[hf]'"
                ) from error
            try:
                tokenizer = AutoTokenizer.from_pretrained(self.source)
                model: Any = CLIPTextModel.from_pretrained(self.source)
            except (OSError, ValueError) as error:
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                raise SegicError(
                    f"the text encoder {self.source} could not be loaded: {reason} It is downloaded once from the "
                    "Hugging Face Hub and works offline from then on; without a network, copy its folder from another "
                    "machine and give that, or leave the text out"
                ) from error
            self._loaded = tokenizer, model.to(self.device).eval()
        return self._loaded


class CachedText:
    """Text features by prompt from files; only a prompt that is in none of them is given to the encoder.

    encoder: makes the features that are missing; None when there is no language model.
    files:   safetensors files with features, as this class writes them; those that do not exist are passed over.
    store:   the file that new features are added to; it is read as well. None keeps them in memory only.
    name:    of the encoder that the features come from: features of another one are refused.
    """

    def __init__(
        self, encoder: TextEncoder | None, files: Sequence[Path] = (), store: Path | None = None, name: str = CLIP
    ) -> None:
        self.encoder = encoder
        self.store = store
        self.name = name
        self._features: dict[str, torch.Tensor] = {}
        for path in [*files, *([store] if store else [])]:
            if path.is_file():
                self._features.update(_read(path, name))

    def __call__(self, prompts: Sequence[str]) -> torch.Tensor:
        """See `TextEncoder`. Raises UsageError when a prompt is not known and there is no encoder."""
        import torch

        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._features]
        if missing:
            self._encode(missing)
        if not prompts:
            return torch.zeros(0, WIDTH)
        return torch.stack([self._features[prompt] for prompt in prompts])

    def _encode(self, prompts: Sequence[str]) -> None:
        if self.encoder is None:
            raise UsageError(
                f"there is no stored text feature for {', '.join(map(repr, prompts))} and no language model to make one"
                ": pip install 'segic[hf]', or leave the text out"
            )
        features = self.encoder(prompts)
        if features.shape != (len(prompts), WIDTH):
            expected = (len(prompts), WIDTH)
            raise SegicError(
                f"the text encoder gave features of the shape {tuple(features.shape)}, expected {expected}"
            )
        new = {prompt: feature.float().cpu() for prompt, feature in zip(prompts, features, strict=True)}
        self._features.update(new)
        if self.store:
            _add(self.store, self.name, new)


class FixedPrompt:
    """The text encoder of a model whose meta instruction is a learned constant: it refuses every text.

    model: its name, for the message.
    """

    def __init__(self, model: str) -> None:
        self.model = model

    def __call__(self, prompts: Sequence[str]) -> torch.Tensor:
        """Raises UsageError, always."""
        raise UsageError(
            f"the model {self.model} takes no class text: {self.model} has one fixed prompt, learned in training, and "
            f"cannot use {', '.join(map(repr, prompts))}; leave the text out, or take a model with a text encoder "
            "(segic-l-80k; pip install 'segic[hf]')"
        )


def default_text(device: torch.device | str = "cpu") -> CachedText:
    """CLIP's text encoder behind the features in the user's cache."""
    store = cache_dir() / "prompts" / f"{CLIP.replace('/', '--')}.safetensors"
    return CachedText(ClipTextEncoder(device=device), store=store)


def _read(path: Path, name: str) -> dict[str, torch.Tensor]:
    """Features (768,) by prompt. Raises UsageError when the file is not one of `CachedText` or of another encoder."""
    shapes, metadata = read_header(path)
    if metadata.get("encoder") != name:
        raise UsageError(f"{path} holds text features of the encoder {metadata.get('encoder')!r}, expected {name!r}")
    for key, shape in shapes.items():
        if not key.startswith(_KEY) or shape != (WIDTH,):
            raise UsageError(f"{path}: the tensor {key!r} has the shape {shape}, expected '{_KEY}...' and ({WIDTH},)")
    return {key[len(_KEY) :]: tensor.clone() for key, tensor in load_tensors(path).items()}


def _add(store: Path, name: str, new: dict[str, torch.Tensor]) -> None:
    """Add features to the file `store`, with those that another process has added meanwhile."""
    # A cache that cannot be written costs time at the next run, not this one's result.
    with suppress(SegicError), locked(store):
        known = _read(store, name) if store.is_file() else {}
        tensors = {_KEY + prompt: feature for prompt, feature in (known | new).items()}
        save_tensors(tensors, store, {"format": "segic-prompts", "encoder": name})
