"""The official davis2017-evaluation in place of the own measures, where a user has it installed."""

import importlib
from collections.abc import Iterator, Sequence

import numpy as np

from segic.errors import UsageError

from .masks import Labels
from .metrics import SequenceScores, score_sequence
from .score import Toolkit
from .truth import VOID


def find_toolkit(name: str) -> Toolkit:
    """The function that scores a sequence: "own", or "official" for the package davis2017."""
    if name == "own":
        return score_sequence
    try:
        measures = importlib.import_module("davis2017.metrics")
    except ImportError as error:
        raise UsageError(
            "--toolkit official needs the package davis2017 (github.com/davisvideochallenge/davis2017-evaluation) "
            f"in this environment; it is not importable: {error}"
        ) from None

    def official(truth: Iterator[Labels], predictions: Iterator[Labels], ids: Sequence[int]) -> SequenceScores:
        frames = list(zip(truth, predictions, strict=True))[1:-1]
        region, boundary = np.zeros((2, len(ids), len(frames)))
        for column, (wanted, got) in enumerate(frames):
            void = (wanted == VOID) & (VOID not in ids)
            for row, id_ in enumerate(ids):
                region[row, column] = measures.db_eval_iou(wanted == id_, got == id_, void)
                boundary[row, column] = measures.db_eval_boundary(wanted == id_, got == id_, void)
        return SequenceScores(tuple(ids), region, boundary)

    return official
