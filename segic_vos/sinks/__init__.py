"""Where results go: mask files, an overlay video, COCO RLE JSON, soft masks."""

from .drawing import draw_overlay
from .mask_files import MaskWriter
from .overlay_video import OverlayWriter
from .probabilities import ProbabilityWriter
from .rle import RleWriter

__all__ = ["MaskWriter", "OverlayWriter", "ProbabilityWriter", "RleWriter", "draw_overlay"]
