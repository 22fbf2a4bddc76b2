"""Data sets for training: found in their published layouts, checked before the first step, drawn as episodes."""

from segic.training.sources.opening import open_sources
from segic.training.sources.sample import Sample, Source, Unusable

__all__ = ["Sample", "Source", "Unusable", "open_sources"]
