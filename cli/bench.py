"""`segic bench`: the paper's benchmarks."""

from __future__ import annotations

import click

from .lazy import LazyCommand, LazyGroup

COMMANDS = {
    "davis16": LazyCommand("bench_davis", "davis16", "DAVIS 2016: J&F of the merged foreground."),
    "davis17": LazyCommand("bench_davis", "davis17", "DAVIS 2017: J&F of every object."),
    "yvos18": LazyCommand("bench_yvos", "yvos18", "YouTube-VOS 2018: submission, and G where masks are at hand."),
    "yvos19": LazyCommand("bench_yvos", "yvos19", "YouTube-VOS 2019: the same."),
    "coco20i": LazyCommand("bench_images", "coco20i", "COCO-20i: one-shot mean IoU."),
    "fss1000": LazyCommand("bench_images", "fss1000", "FSS-1000: one-shot mean IoU."),
    "lvis92i": LazyCommand("bench_images", "lvis92i", "LVIS-92i: one-shot mean IoU."),
    "coco-sem": LazyCommand("bench_images", "coco_sem", "COCO, semantic segmentation."),
    "ade20k": LazyCommand("bench_images", "ade20k", "ADE20K, semantic segmentation."),
    "pc459": LazyCommand("bench_images", "pc459", "PASCAL Context, 459 classes."),
    "ade847": LazyCommand("bench_images", "ade847", "ADE20K, 847 classes."),
    "spair71k": LazyCommand("bench_images", "spair71k", "SPair-71k: PCK of the backbone's correspondence."),
    "speed": LazyCommand("bench_speed", "speed", "Frames a second and memory by stage."),
    "report": LazyCommand("bench_report", "report", "Results beside the paper's table: text, Markdown, JSON, HTML."),
}


@click.command(cls=LazyGroup, lazy=COMMANDS)
def bench() -> None:
    """Run the paper's benchmarks with their official measures, and compare with its tables.

    Runs can be stopped and go on where they were with the same command, and can be split: with `--shard i/n`, or under
    torchrun, each process takes a part, and the one that finds all parts done writes the result.
    """
