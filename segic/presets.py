"""Named models: how each is built, and which files it takes."""

from collections.abc import Mapping
from dataclasses import dataclass

from segic.config import InstructionConfig, MatchingConfig, ModelConfig
from segic.errors import UsageError

DEFAULT_MODEL = "segic-s"


@dataclass(frozen=True)
class Preset:
    """name: on the command line and of the decoder's weight file. config: the model."""

    name: str
    config: ModelConfig
    description: str

    @property
    def backbone(self) -> str:
        """Name of the backbone and of its weight file."""
        return self.config.backbone


PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "segic-s",
            ModelConfig(
                backbone="dinov2-s",
                layers=(6, 9),
                size=476,
                canvas="frame",
                matching=MatchingConfig(ridge=0.2, ridge_share=0.3, renew=5, width=384, carry=6),
                residual=True,
                detail=24,
                recent=1,
                reappear=0.4,
                drift=0.1,
                instructions=InstructionConfig(meta="constant"),
            ),
            "DINOv2 ViT-S/14 with dense matching; ships with the package",
        ),
        Preset("segic-l-80k", ModelConfig(), "the authors' DINOv2-L, 80k samples an epoch"),
        Preset("segic-l-160k", ModelConfig(), "the authors' DINOv2-L, 160k samples an epoch"),
        Preset("segic-b", ModelConfig(backbone="dinov2-b"), "the paper's ablations; to be trained"),
        Preset("segic-g", ModelConfig(backbone="dinov2-g"), "the paper's largest; to be trained"),
    )
}


def find_preset(name: str) -> Preset:
    """The preset of that name; UsageError lists those there are."""
    if name not in PRESETS:
        raise UsageError(f"no model is named {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
