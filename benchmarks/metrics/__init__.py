"""The measures that the benchmarks report, computed as their official toolkits compute them."""

from .boundary import boundary_measure, boundary_pixels, boundary_radius
from .region import region_similarity
from .sequence import ObjectScores, SequenceScores, Summary, score_sequence, summarise
from .statistics import Statistics, statistics

__all__ = [
    "ObjectScores",
    "SequenceScores",
    "Statistics",
    "Summary",
    "boundary_measure",
    "boundary_pixels",
    "boundary_radius",
    "region_similarity",
    "score_sequence",
    "statistics",
    "summarise",
]
