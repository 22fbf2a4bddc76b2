"""SEGIC: segmentation by in-context example (Meng et al., ECCV 2024).

    import segic
    model = segic.load_model()
    result = model.segment(image, [segic.Example(example_image, example_mask)])

Names are loaded on first use, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segic.errors import SegicError as SegicError
    from segic.errors import UsageError as UsageError
    from segic.images import Example as Example
    from segic.images import Prompt as Prompt
    from segic.images import Segmentation as Segmentation
    from segic.loading import load_model as load_model
    from segic.model import SEGIC as SEGIC

_WHERE = {
    "SEGIC": "model",
    "Example": "images",
    "Prompt": "images",
    "Segmentation": "images",
    "SegicError": "errors",
    "UsageError": "errors",
    "load_model": "loading",
}

__all__ = list(_WHERE)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"segic.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'segic' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
