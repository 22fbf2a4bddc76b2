"""Three-frame scenes made of photographs, as a source."""

import numpy as np

from segic.training.photographs import BrokenPicture
from segic.training.pools import Pools
from segic.training.scenes import SceneMix, make_scene
from segic.training.sources.sample import INSTANCES, Sample, Unusable


class SyntheticScenes:
    """Draws scenes; see `segic.training.scenes`."""

    def __init__(self, name: str, pools: Pools, size: int, mix: SceneMix, entities: int):
        self.name = name
        self.pools, self.mix = pools, mix
        self._size, self._entities = size, entities
        self.notes: tuple[str, ...] = (
            f"{len(pools.photographs)} photographs, {len(pools.instances)} objects to cut out, {len(pools.stamps)} "
            f"cut-outs with alpha, {len(pools.backgrounds)} backgrounds",
        )

    def draw(self, rng: np.random.Generator) -> Sample:
        """See `Source`."""
        try:
            scene = make_scene(rng, self.pools, self._size, self.mix)
        except BrokenPicture as error:
            raise Unusable(error.file, error.reason) from error
        ids = rng.permutation(np.arange(1, scene.count + 1))[: self._entities]
        masks = scene.labels[:, None] == ids[None, :, None, None]
        side = (self._size, self._size)
        texts = (INSTANCES,) * len(ids)
        return Sample(scene.frames, masks, (side,) * 3, texts, scene.kind, scene.has_recent, (f"{self.name} scene",))
