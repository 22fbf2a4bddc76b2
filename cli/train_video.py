"""Scores of a decoder in training on videos: the benchmarks' own way of running and measuring."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segic.backbones import Backbone
    from segic.config import ModelConfig
    from segic.decoder import Decoder


class VideoValidation:
    """J&F over a folder in DAVIS's layout: "video", and "video/SEQUENCE" for each. Opened, and so checked, at once."""

    def __init__(self, folder: Path):
        from segic_benchmarks.davis import DavisBenchmark
        from segic_benchmarks.davis_layout import find_davis

        self._bench = DavisBenchmark(2017, find_davis(folder, 2017))

    def __call__(self, config: ModelConfig, backbone: Backbone, decoder: Decoder) -> dict[str, float]:
        from segic.model import SEGIC
        from segic_benchmarks.follow import following

        model = SEGIC(config, backbone, decoder)
        with tempfile.TemporaryDirectory(prefix="segic-validation-") as folder:
            result = self._bench.run(following(model), Path(folder) / "run", {})
        if result is None:
            return {}
        rows = {f"video/{name}": row["J&F"] for name, row in result.rows.items() if "/" not in name}
        return {"video": result.value, **rows}
