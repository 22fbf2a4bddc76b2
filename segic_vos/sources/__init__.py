"""Where frames come from: video files, folders of pictures, iterators."""

from .folder import FrameFolder
from .naming import list_pictures, natural_key, trailing_number
from .notices import SourceWarning
from .opening import Decoder, open_source
from .pictures import read_rgb
from .selection import Selection
from .sizing import SizeChange
from .stream import IteratorSource
from .video import VideoFile, frame_name

__all__ = [
    "Decoder",
    "FrameFolder",
    "IteratorSource",
    "Selection",
    "SizeChange",
    "SourceWarning",
    "VideoFile",
    "frame_name",
    "list_pictures",
    "natural_key",
    "open_source",
    "read_rgb",
    "trailing_number",
]
