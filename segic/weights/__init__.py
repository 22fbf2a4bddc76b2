"""Weight files: which exist, where each comes from, a local cache, and the conversion to canonical names."""

from segic.weights.hashing import Progress, file_sha256
from segic.weights.registry import REGISTRY, WeightFile, find
from segic.weights.resolve import install, locate, resolve, verify
from segic.weights.tensors import load_tensors, read_header, save_tensors

__all__ = [
    "REGISTRY",
    "Progress",
    "WeightFile",
    "file_sha256",
    "find",
    "install",
    "load_tensors",
    "locate",
    "read_header",
    "resolve",
    "save_tensors",
    "verify",
]
