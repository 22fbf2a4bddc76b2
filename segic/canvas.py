"""Where a frame's pixels lie on the backbone's input: resized, and padded to a square where a checkpoint needs it."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Canvas:
    """frame: (H, W) of the picture as given. picture: its size after resizing. padded: the backbone's input, with the
    picture at the top left. All (height, width) in pixels.
    """

    frame: tuple[int, int]
    picture: tuple[int, int]
    padded: tuple[int, int]

    @classmethod
    def square(cls, frame: tuple[int, int], size: int) -> "Canvas":
        """The released checkpoints': the longer side becomes `size`, the other is floored, padding fills the square."""
        scale = size / max(frame)
        picture = (max(1, int(frame[0] * scale)), max(1, int(frame[1] * scale)))
        return cls(frame, picture, (size, size))

    @classmethod
    def own_aspect(cls, frame: tuple[int, int], size: int, stride: int) -> "Canvas":
        """The frame's own shape: about as many pixels as a 16:9 frame whose shorter side is `size`.

        A fixed number of tokens costs the same whatever the shape; both sides are rounded to multiples of `stride`.
        """
        area = size * size * 16 / 9
        scale = (area / (frame[0] * frame[1])) ** 0.5
        height, width = (max(stride, round(side * scale / stride) * stride) for side in frame)
        return cls(frame, (height, width), (height, width))

    @property
    def valid(self) -> tuple[int, int] | None:
        """The part that holds the picture, None where that is all of it; see `Backbone.__call__`."""
        return None if self.picture == self.padded else self.picture

    def place(self, images: Tensor) -> Tensor:
        """(B, C, H, W) images or masks of any dtype -> (B, C, *padded) float32, bilinear without antialiasing,
        zero-padded.
        """
        resized = images.float()
        if self.picture != self.frame:
            resized = F.interpolate(resized, self.picture, mode="bilinear", align_corners=False)
        return self._pad(resized)

    def cover(self, masks: Tensor, grid: tuple[int, int]) -> Tensor:
        """(N, H, W) masks -> (N, *grid) float32: the share of each token that the mask covers, padding as background.

        However small a mask is, something of it is left, which `place` cannot promise.
        """
        if self.valid is None:
            return coverage(masks, grid)
        return coverage(self._pad(coverage(masks, self.picture)), grid)

    def _pad(self, resized: Tensor) -> Tensor:
        bottom, right = self.padded[0] - self.picture[0], self.padded[1] - self.picture[1]
        return F.pad(resized, (0, right, 0, bottom)) if bottom or right else resized

    def restore(self, logits: Tensor, through_padded: bool) -> Tensor:
        """(N, h, w) logits over the padded canvas -> (N, H, W) over the frame, bilinear.

        through_padded: first to the canvas's full size, as the released checkpoints' procedure does; otherwise in one
        step, where there is no padding.
        """
        x = logits[None].float()
        if through_padded or self.valid is not None:
            x = F.interpolate(x, self.padded, mode="bilinear", align_corners=False)
            x = x[..., : self.picture[0], : self.picture[1]]
        return F.interpolate(x, self.frame, mode="bilinear", align_corners=False)[0]


def coverage(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """(N, H, W) masks or probabilities -> (N, *grid) float32, the share of each token's area that the mask covers."""
    return F.interpolate(masks[None].float(), grid, mode="area")[0]
