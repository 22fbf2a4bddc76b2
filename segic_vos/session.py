"""One video, frame by frame: the first masks, propagation, and masks given later are one call."""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import compress
from math import inf, isfinite

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segic.errors import UsageError
from segic.images import to_batch
from segic.model import SEGIC, Encoded
from segic.precision import in_own_precision
from segic.propagation import NOBODY, Context
from segic.recorded import Recorded
from segic.renewal import on_turn
from segic.shots import Standing
from segic.thinning import thinned
from segic_vos.following import Followed, follow
from segic_vos.fovea import fitting_size, last_seen, scales
from segic_vos.frames import Annotation, FrameResult, annotation
from segic_vos.pending import Array, Fetched, Pending
from segic_vos.quality import QUALITIES, foveated_sizes

TOKENS = QUALITIES["segic-s"]["balanced"].tokens
SEARCH_EVERY = 4  # frames, one of which is seen whole while an object is out of sight, for it may come back anywhere
THEIRS = 0.3  # the share of a token that a followed object must cover for a given example to say nothing of it
MAX_GIVEN = 8  # given examples that are kept; more only where some object has no other


@dataclass(frozen=True)
class State:
    """All that a session knows of its video; its size depends on the number of objects, not of frames.

    ids: every object followed so far, ascending. given: examples with masks from a person, oldest first.
    recent: the last frames with the masks that were predicted or given for them, oldest first.
    """

    ids: tuple[int, ...] = ()
    given: tuple[Context, ...] = ()
    recent: tuple[Context, ...] = ()


class VideoSession:
    """Follows the objects of one video.

    probabilities: results carry each object's soft mask as well.
    meta: (768,) text feature, for models that take text.
    foveated: what is far from the objects' last masks is seen at a lower resolution (`segic_vos.fovea`); frames can
    then not be encoded ahead.
    """

    def __init__(
        self, model: SEGIC, *, probabilities: bool = False, meta: Tensor | None = None, foveated: bool = False
    ):
        if foveated and model.config.matching is None:
            raise UsageError(f"{model.name or 'this model'} does not match densely, so its frames cannot be foveated")
        self.model = model
        self.foveated = foveated
        self.probabilities = probabilities
        self.meta = None if meta is None else meta.to(model.device)
        self._ids: tuple[int, ...] = ()
        self._given: list[Context] = []
        self._recent: deque[Context] = deque(maxlen=max(1, model.config.recent))
        self._size: tuple[int, int] | None = None
        self._last_seen: dict[int, Tensor] = {}
        self._predicted = 0  # frames since masks were given
        gpu = model.device.type == "cuda"
        self._recorded = Recorded(partial(follow, model), urgent=True) if gpu else None
        self._renew = Recorded(model.renew, urgent=True) if gpu else model.renew

    @classmethod
    def close_to(
        cls, model: SEGIC, labels: NDArray[np.integer] | NDArray[np.bool_] | Annotation, *, tokens: int = TOKENS,
        probabilities: bool = False, meta: Tensor | None = None,
    ) -> "VideoSession":  # fmt: skip
        """A foveated session for objects such as in `labels`, (H, W) with 0 for background, or an annotation: at the
        largest of the measured sizes at which a frame with these masks needs at most so many tokens; a few more make
        whole steps. Raises UsageError as `annotation`, and for a frame without a pixel.
        """
        if not isinstance(labels, Annotation) and np.ndim(labels) != 2:
            raise UsageError(f"the labels are of shape {np.shape(labels)}; expected (H, W), the frame's")
        given = labels if isinstance(labels, Annotation) else annotation(labels)
        if not given.labels.size:
            raise UsageError(f"the labels are of shape {given.labels.shape}, without a pixel; expected the frame's")
        if tokens < 1:
            raise UsageError(f"tokens {tokens}: expected a number from 1")
        fitted = model.at_size(fitting_size(model, given.objects, foveated_sizes(tokens), tokens))
        return cls(fitted, probabilities=probabilities, meta=meta, foveated=True)

    @property
    def device(self) -> torch.device:
        """The model's."""
        return self.model.device

    @property
    def ids(self) -> tuple[int, ...]:
        """Every object followed so far, ascending."""
        return self._ids

    @property
    def state(self) -> State:
        """What the session keeps."""
        return State(self._ids, tuple(self._given), tuple(self._recent))

    def step(self, pixels: NDArray[np.uint8], annotation: Annotation | None = None) -> FrameResult:
        """The next frame, (H, W, 3) uint8 RGB, and its masks if a person gave some; see `step_encoded`."""
        return self.step_encoded(self.encode(pixels, whole=annotation is not None), annotation)

    @in_own_precision
    def encode(self, pixels: NDArray[np.uint8], *, whole: bool = True) -> Encoded:
        """The next frame, (H, W, 3) uint8 RGB, encoded. whole: at full resolution everywhere, as examples are.

        Raises UsageError for a frame of another size than the first one.
        """
        batch = to_batch(pixels)
        size = self._checked_size((pixels.shape[0], pixels.shape[1]))
        if self.foveated and self._recent:
            self._last_seen = last_seen(self._last_seen, self._recent[-1])
        return self.model.encode(batch, None if whole else self._coarsest(size))[0]

    def _coarsest(self, frame: tuple[int, int]) -> Tensor | None:
        """(h, w) int64, how coarsely the next frame's tokens may be seen; None for a frame that is seen whole."""
        if not self.foveated or not self._recent:
            return None
        last = self._recent[-1]
        present = [here for key, here in zip(last.entities, last.present, strict=True) if key != NOBODY]
        # Who is out of sight may come back anywhere.
        if not any(present) or (not all(present) and self._predicted % SEARCH_EVERY == 0):
            return None
        weights = torch.stack(list(self._last_seen.values())).unflatten(1, self.model.grid(frame))
        return scales(weights, learnt=on_turn(self._predicted + 1, self.model.config.renew_every))

    def step_encoded(self, image: Encoded, annotation: Annotation | None = None) -> FrameResult:
        """The next frame, encoded; see `submit`."""
        return self.submit(image, annotation).result()

    @in_own_precision
    def submit(self, image: Encoded, annotation: Annotation | None = None) -> Pending:
        """The next frame, encoded. A GPU may still be at work on the result when this returns: frames to come can be
        submitted before it is read.

        Given masks are an in-context example from this frame on, and they are this frame's output to the pixel. Objects
        that were followed before and that the annotation does not show are still predicted, on what it leaves as
        background. Before any mask was given the result has no objects.

        Raises UsageError for a frame or a mask of another size than the first frame's, and for an id that the
        annotation names but does not show. The session stays as it was then.
        """
        followed = self._take(image, annotation)
        fetched = None
        if followed:
            out = self._follow(image, followed)
            standing = out.frame.standing
            known = (None, None) if standing is None else (standing.likeness, standing.away)
            fetched = Fetched(out.labels, out.scores, out.soft, *known)
            if annotation is None:  # last: a frame that runs out of memory can be tried again
                self._learn(out.frame, image.grid, out.scores)
        predicted = Pending(fetched, partial(_predicted, image.canvas.frame, self._ids, followed))
        return predicted if annotation is None else self._given_result(image, annotation, predicted.result())

    def _take(self, image: Encoded, annotation: Annotation | None) -> tuple[int, ...]:
        """Checks the next frame and the masks given for it; the objects followed before that they do not show."""
        if annotation is not None:
            _check_annotation(annotation, image.canvas.frame)
        self._size = self._checked_size(image.canvas.frame)
        shown = annotation.ids if annotation is not None else ()
        return tuple(i for i in self._ids if i not in shown)

    def _given_result(self, image: Encoded, annotation: Annotation, predicted: FrameResult) -> Pending:
        """That of a frame with given masks, which become an example. predicted: the other objects."""
        shown, followed = annotation.ids, tuple(predicted.scores)
        ids, kept = tuple(sorted({*self._ids, *shown})), self._given
        given = annotation.objects  # what is undecided is nobody's, though the result shows it
        owned = np.where(given != 0, given, predicted.labels)
        labels = np.where(annotation.labels != 0, annotation.labels, owned)
        last = None
        if followed:
            last = self._standing(self._example(image, owned, ids), predicted.likeness, predicted.away)
        if shown:
            example = self._example(image, given, shown)
            kept = self._with_given(example if last is None else _sparing(example, last, followed))
        # Not before: a frame that runs out of memory can be tried again.
        self._ids, self._given, self._predicted = ids, kept, 0
        if ids:
            # The same one where nothing was predicted: it is then known not to be a second example.
            self._recent.append(last or kept[-1])
        scores = {**predicted.scores, **dict.fromkeys(shown, 1.0)}
        probabilities = None
        if self.probabilities:
            probabilities = self._given_probabilities(owned, followed, predicted.probabilities)
        told = dict(sorted(scores.items()))
        known = predicted.likeness, predicted.away
        return Pending.known(FrameResult(labels, self._ids, told, True, probabilities, *known))

    @in_own_precision
    def remember(
        self,
        image: Encoded,
        labels: NDArray[np.int32],
        scores: Mapping[int, float] | None = None,
        annotation: Annotation | None = None,
    ) -> None:
        """Takes a frame whose masks are known, (H, W) of the session's ids, as if it had just predicted them, but for
        what was uncertain at their edges, with these scores; without any, nobody is certain. annotation: masks that
        were given for it, as in `submit`; the others are known then.

        Used to go on with a video that was interrupted: the given frames and the last few written masks through this,
        and `skip` for frames in between.
        """
        followed = self._take(image, annotation)
        known = {key: (scores or {}).get(key, 0.0) for key in followed}
        if annotation is not None:
            others = np.where(np.isin(labels, followed), labels, 0)
            self._given_result(image, annotation, FrameResult(others, self._ids, known))
        elif followed:
            frame = self._example(image, labels, followed)
            self._learn(
                frame, image.grid, torch.tensor(list(known.values()), device=self.model.device, dtype=torch.float32)
            )

    def skip(self) -> None:
        """Counts a frame that was predicted earlier and of which the frames to come need nothing."""
        self._predicted += 1

    def recall(self, likeness: Mapping[int, float], away: Collection[int]) -> None:
        """Takes the last remembered frame's objects to have stood so with the given examples, as in `FrameResult`."""
        if self._recent and self._recent[-1] not in self._given:
            self._recent[-1] = self._standing(self._recent[-1], likeness, away)

    def forget(self, *ids: int) -> None:
        """Follows these objects no longer. What they cover is background from the next frame on; masks given later may
        have their ids, for the same objects or for others. Raises UsageError for an id that nobody has; all are
        followed on then.
        """
        if unknown := sorted(set(ids).difference(self._ids)):
            said = ", ".join(map(str, self._ids)) or "none"
            raise UsageError(f"no object has the id {unknown[0]}; those that are followed: {said}")
        self._ids = tuple(key for key in self._ids if key not in ids)
        known = {each: each.without(ids) for each in (*self._given, *self._recent)}
        self._given = [known[each] for each in self._given if not set(self._ids).isdisjoint(each.entities)]
        frames = list(map(known.__getitem__, self._recent)) if self._ids else []
        self._recent = deque(frames, self._recent.maxlen)
        self._last_seen = {key: seen for key, seen in self._last_seen.items() if key in self._ids}
        if self._recorded is not None:
            self._recorded.forget()

    def _standing(self, frame: Context, likeness: Mapping[int, float], away: Collection[int]) -> Context:
        """A frame whose objects stand so with the given examples, where anything is known of that."""
        if not likeness and not away:
            return frame
        device = self.model.device
        values = torch.tensor([likeness.get(key, -inf) for key in frame.entities], device=device, dtype=torch.float32)
        gone = torch.tensor([key in away for key in frame.entities], device=device)
        return replace(frame, standing=Standing(values, gone))

    def _learn(self, frame: Context, grid: tuple[int, int], scores: Tensor) -> None:
        """Takes a predicted frame as a recent one, and every few frames for the examples' linear models. scores: (N,)
        of its entities.
        """
        if on_turn(self._predicted + 1, self.model.config.renew_every):
            fitted = [self._renew(example, frame, grid, scores).renewed for example in self._given]
            self._given = [example.renewing(model) for example, model in zip(self._given, fitted, strict=True)]
        self._predicted += 1
        self._recent.append(frame)

    def _example(self, image: Encoded, labels: NDArray[np.int32], ids: Sequence[int]) -> Context:
        masks = torch.from_numpy(np.stack([labels == i for i in ids]))
        return self.model.context(image, masks, ids)

    def _follow(self, image: Encoded, followed: tuple[int, ...]) -> Followed:
        """`followed`, of the session's objects, on a frame."""
        recent = tuple(self._recent)
        rest = recent, self._ids, followed, self.meta, self.probabilities
        # Foveated frames have ever new numbers of tokens; a given example as the last frame comes once.
        usual = image.fovea is None and followed == self._ids and recent[-1] not in self._given
        if self._recorded is None or not usual or not all(all(example.present) for example in self._given):
            return follow(self.model, image, tuple(self._given), *rest)
        try:
            return self._recorded(image, tuple(example.settled for example in self._given), *rest)
        except torch.cuda.OutOfMemoryError:
            self._recorded.forget()
            raise

    def _checked_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) of a frame, where it is that of the first one, or this is the first one."""
        if self._size is not None and self._size != size:
            raise UsageError(
                f"this frame is {size[1]}x{size[0]} pixels, the first one was {self._size[1]}x{self._size[0]}; "
                "one session takes frames of one size"
            )
        return size

    def _with_given(self, example: Context) -> list[Context]:
        """The given examples with another. Beyond MAX_GIVEN the oldest but the first goes that is no object's only
        one.
        """
        if self._recorded is not None:  # no frame to come has the same number of examples
            self._recorded.forget()
        given, position = [*self._given, example], 1
        while len(given) > MAX_GIVEN and position < len(given) - 1:
            rest = given[:position] + given[position + 1 :]
            shown = {NOBODY, *(i for context in rest for i in context.entities)}
            if shown.issuperset(given[position].entities):
                given = rest
            else:
                position += 1
        matching = self.model.config.matching
        return given if matching is None else thinned(given, matching.topk)

    def _given_probabilities(
        self, labels: NDArray[np.int32], followed: Sequence[int], predicted: NDArray[np.float16] | None
    ) -> NDArray[np.float16]:
        """(len(ids), H, W): certain for given masks, predicted for the others."""
        out = np.zeros((len(self._ids), *labels.shape), np.float16)
        for row, i in enumerate(self._ids):
            out[row] = labels == i if predicted is None or i not in followed else predicted[followed.index(i)]
        return out


def _sparing(example: Context, last: Context, followed: Sequence[int]) -> Context:
    """A given example without tokens that objects were predicted on which it does not show: as its background they
    would speak against what they are. last: the frame with all masks. followed: those objects.
    """
    if last.weights is None:
        return example
    rows = [row for row, key in enumerate(last.entities) if key in followed]
    return replace(example, left_out=(last.weights[rows] > THEIRS).any(0))


def _check_annotation(annotation: Annotation, frame: tuple[int, int]) -> None:
    """Raises UsageError where the masks do not fit the frame or an object has none."""
    if not isinstance(annotation, Annotation):
        raise UsageError(f"the masks are given as a {type(annotation).__name__}; expected segic_vos.annotation(labels)")
    if annotation.labels.ndim != 2 or annotation.labels.dtype.kind not in "iu":
        raise UsageError(
            f"the mask is {annotation.labels.dtype} of shape {annotation.labels.shape}; expected integers, (H, W)"
        )
    if annotation.labels.shape != frame:
        raise UsageError(
            f"the mask is {annotation.labels.shape[1]}x{annotation.labels.shape[0]} pixels, its frame is "
            f"{frame[1]}x{frame[0]}; they must be of one size"
        )
    for i in annotation.ids:
        if not (annotation.labels == i).any():
            raise UsageError(f"the mask names the object {i} but has no pixel of it; leave the id out")


def _predicted(
    size: tuple[int, int], ids: tuple[int, ...], followed: tuple[int, ...], found: Sequence[Array | None]
) -> FrameResult:
    """The result for `ids`, of whom `followed` were predicted. found: their labels, scores, soft masks, and how they
    stand with the examples (`Standing`); nothing where nobody was.
    """
    if not found:
        return FrameResult(np.zeros(size, np.int32), ids)
    labels, scores, soft, likeness, away = found
    assert labels is not None
    assert scores is not None
    by_id = dict(zip(followed, scores.tolist(), strict=True))
    if likeness is None or away is None:
        return FrameResult(labels, ids, by_id, False, soft)
    speak = {key: value for key, value in zip(followed, likeness.tolist(), strict=True) if isfinite(value)}
    return FrameResult(labels, ids, by_id, False, soft, speak, frozenset(compress(followed, away.tolist())))
