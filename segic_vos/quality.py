"""`--quality`: which size a model looks at, with what that costs and brings as measured.

Nothing heavy is imported here: `segic vos run --help` shows the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from segic.errors import UsageError

Quality = Literal["fast", "balanced", "best"]
NAMES: tuple[Quality, ...] = get_args(Quality)


@dataclass(frozen=True)
class Setting:
    """size: pixels of whole frames, as `ModelConfig.size`. tokens: at most so many does a foveated frame need by the
    first masks, which gives the largest of `foveated_sizes`. Measured foveated: jf, mean J&F in percent on eight
    DAVIS-2016 train sequences (README); crowd, J&F on a clip of seven small objects (432x240); speed, frames a second
    of the whole pipeline relative to "balanced", one object, on two CPU cores. whole: jf and crowd of whole frames.
    None: not measured.
    """

    size: int
    tokens: int
    jf: float | None = None
    crowd: float | None = None
    speed: float | None = None
    whole: tuple[float, float] | None = None

    def __str__(self) -> str:
        parts = [f"{self.tokens} tokens"]
        if self.jf is not None:
            parts.append(f"J&F {self.jf:.1f}")
        if self.crowd is not None:
            parts.append(f"of small objects {self.crowd:.1f}")
        if self.speed is not None:
            parts.append(f"speed {self.speed:.1f}x")
        parts.append(f"or {self.size} px whole")
        if self.whole is not None:
            parts.append("J&F {:.1f} and {:.1f}".format(*self.whole))
        return ", ".join(parts)


SIZES = (336, 392, 476, 560, 672, 784)  # of foveated frames
LARGE = 672  # px: above, a frame that is seen whole, as the first one is, takes more than 4,080 tokens

# "balanced" is the preset's own size.
QUALITIES: Mapping[str, Mapping[Quality, Setting]] = {
    "segic-s": {
        "fast": Setting(336, 900, jf=88.9, crowd=59.4, speed=1.75, whole=(82.0, 58.6)),
        "balanced": Setting(476, 2100, jf=90.1, crowd=66.2, speed=1.0, whole=(88.4, 61.4)),
        "best": Setting(672, 4200, jf=90.1, crowd=68.2, speed=0.6, whole=(89.5, 65.7)),
    },
}


def foveated_sizes(tokens: int) -> tuple[int, ...]:
    """The sizes that foveated frames of at most so many tokens may have: above LARGE only where "best" has as many."""
    plenty = tokens >= QUALITIES["segic-s"]["best"].tokens
    return tuple(size for size in SIZES if size <= LARGE or plenty)


@dataclass(frozen=True)
class SizeChoice:
    """size: None for the model's own. quality: None where a size was given, or none is known for the model. why: what
    decided, in words that follow the value: "--quality", "the default on a CPU". tokens: what a foveated frame may
    have, from which its size follows; None for frames that are seen whole, at `size`.
    """

    size: int | None
    quality: Quality | None
    why: str
    tokens: int | None = None


def choose_size(
    model: str,
    *,
    quality: Quality | None = None,
    size: int | None = None,
    own_weights: bool = False,
    device: str = "cpu",
    fovea: bool | None = None,
) -> SizeChoice:
    """The size to run `model` at.

    own_weights: the decoder is another one than the model's, and knows its own size. device: its type ("cpu", "cuda",
    "mps"). Where nothing is asked for, CUDA devices take the best quality, since they have the speed to spare, and
    others the balanced one. fovea: whether a quality's frames are foveated; None for on CPUs only, since GPUs would
    rather have frames encoded ahead.
    Raises UsageError where both are given, for a model without measured sizes, and for a fovea beside a size.
    """
    if quality is not None and size is not None:
        raise UsageError(f"--quality {quality} and --size {size} exclude each other: a quality is a size")
    known = QUALITIES.get(model)
    if size is not None:
        if fovea:
            raise UsageError(f"--fovea and --size {size} exclude each other: foveated frames have the size that fits")
        return SizeChoice(size, None, "--size")
    if quality is not None:
        if known is None:
            raise UsageError(
                f"--quality {quality}: no sizes are measured for the model {model}, only for {', '.join(QUALITIES)}; "
                "give --size instead"
            )
        return _of(known, quality, "--quality", device, fovea)
    if known is None or own_weights:
        if fovea:
            raise UsageError(f"--fovea: no sizes are measured for these weights, only for {', '.join(QUALITIES)}")
        return SizeChoice(None, None, "the model's own")
    default: Quality = "best" if device == "cuda" else "balanced"
    why = f"the default on {'a CPU' if device == 'cpu' else device.upper()}"
    return _of(known, default, why, device, fovea)


def _of(known: Mapping[Quality, Setting], quality: Quality, why: str, device: str, fovea: bool | None) -> SizeChoice:
    setting = known[quality]
    foveated = device == "cpu" if fovea is None else fovea
    return SizeChoice(setting.size, quality, why, setting.tokens if foveated else None)


def describe_qualities(model: str) -> str:
    """One line: each quality of a model with what is known of it."""
    return "; ".join(f"{name}: {setting}" for name, setting in QUALITIES[model].items())
