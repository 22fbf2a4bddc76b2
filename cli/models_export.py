"""`segic models export`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Make one file of a training run.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="The .safetensors file; its card lies beside it.",
)
@click.option("--latest", is_flag=True, help="Take the newest checkpoint instead of the best one.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
def export(run: Path, out: Path, latest: bool, overwrite: bool) -> None:
    """Make one file of the training run RUN: its decoder in half precision, and a model card.

    The file works wherever weights are asked for: `segic vos run CLIP --weights FILE ...`.
    """
    from segic.training.card import export_run

    card = export_run(run, out, latest=latest, overwrite=overwrite)
    click.echo(f"{out}\n{card}")
