"""Three-frame scenes made of photographs, as a source."""

import numpy as np

from segic.training.pools import Pools
from segic.training.scenes import Scene, SceneMix, make_scene
from segic.training.sources.sample import INSTANCES, Sample


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

    def scene(self, rng: np.random.Generator) -> Scene:
        """One scene with all its objects."""
        return make_scene(rng, self.pools, self._size, self.mix)

    def draw(self, rng: np.random.Generator) -> Sample:
        """See `Source`."""
        scene = self.scene(rng)
        ids = rng.permutation(np.arange(1, scene.count + 1))[: self._entities]
        masks = scene.labels[:, None] == ids[None, :, None, None]
        side = (self._size, self._size)
        texts = (INSTANCES,) * len(ids)
        return Sample(scene.frames, masks, (side,) * 3, texts, scene.kind, scene.has_recent, (f"{self.name} scene",))
