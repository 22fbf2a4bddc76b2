"""What the training loop tells others, and what it asks of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from segic.decoder import Decoder
from segic.training.feeds import Skipped


@dataclass(frozen=True)
class StepReport:
    """What one step did. figures: by the names in `segic.training.chains.FIGURES`. images: frames of all processes.

    norm: of the gradient before clipping; a step whose gradient is not finite changes nothing.
    waited: share of the time so far in which the step waited for data. memory: most bytes held so far, on the GPU or,
    without one, by the process.
    """

    step: int
    figures: Mapping[str, float]
    lr: float
    norm: float
    seconds: float
    images: int
    waited: float
    memory: int
    skipped: tuple[Skipped, ...] = ()


class Observer(Protocol):
    """Who is told how the run goes. Called in the first process only."""

    def begin(self, start: int, steps: int) -> None: ...

    def step(self, report: StepReport) -> None: ...

    def validated(self, step: int, scores: Mapping[str, float], best: bool) -> None: ...


class Validate(Protocol):
    """What is measured while a run goes."""

    def due(self, step: int) -> bool:
        """Whether anything is to be measured after `step` steps."""
        ...

    def __call__(self, decoder: Decoder, step: int) -> Mapping[str, float]:
        """Scores of a decoder with averaged weights; "episodes" and "video" may choose the best checkpoint."""
        ...
