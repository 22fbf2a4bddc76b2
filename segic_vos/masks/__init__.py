"""Masks that a person gives: read from files, judged, and found by frame."""

from .annotations import Annotations, check_size, read_annotations
from .matching import Form
from .objects import read_objects
from .reading import MaskFile, describe_renewed, read_mask

__all__ = [
    "Annotations",
    "Form",
    "MaskFile",
    "check_size",
    "describe_renewed",
    "read_annotations",
    "read_mask",
    "read_objects",
]
