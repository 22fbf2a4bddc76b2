"""`segic models`: which weight files exist, where they come from, and the local cache of them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segic.errors import SegicError, UsageError
from segic.presets import DEFAULT_MODEL

from .models_export import export
from .progress import ByteBars

if TYPE_CHECKING:
    from segic.weights import WeightFile

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


@click.group()
def models() -> None:
    """Weight files: list, fetch, verify, convert and export them.

    They are kept in the user's cache folder, or in the one that SEGIC_CACHE names.
    """


models.add_command(export)


@models.command("list", short_help="Known weight files, and which are here.")
@as_json
def list_(as_json: bool) -> None:
    """Show every known weight file, and which of them are on this machine."""
    from segic.weights import REGISTRY

    if as_json:
        _print_json([_describe(file) for file in REGISTRY.values()])
        return
    rows = [("NAME", "KIND", "SIZE", "LICENCE", "STATE")]
    rows += [(file.name, file.kind, _size(file.size_bytes), file.licence, _state(file)) for file in REGISTRY.values()]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    for name, kind, size, licence, state in rows:
        columns = (name.ljust(widths[0]), kind.ljust(widths[1]), size.rjust(widths[2]), licence.ljust(widths[3]), state)
        click.echo("  ".join(columns).rstrip())


@models.command(short_help="Where a file comes from and where it lies.")
@click.argument("name")
@as_json
def info(name: str, as_json: bool) -> None:
    """Show where the weight file NAME comes from, its size, licence and sha256, and where it lies."""
    from segic.weights import find

    facts = _describe(find(name))
    if as_json:
        _print_json(facts)
        return
    facts["size"] = f"{_size(facts.pop('size_bytes'))}, about" if facts["url"] else _size(facts.pop("size_bytes"))
    facts["sha256"] = facts["sha256"] or "not published; recorded at the first download and compared afterwards"
    facts["needs"] = ", ".join(facts["needs"])
    shown = ("name", "kind", "state", "source", "origin", "licence", "size", "sha256", "needs", "path", "path_sha256")
    for key in shown:
        if facts.get(key):
            click.echo(f"{key.replace('_', ' ') + ':':<13}{facts[key]}")


@models.command(short_help="Fetch files and those that they need.")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--path", type=click.Path(path_type=Path), help="A local file to take NAME from, instead of the network.")
@click.option("--sha256", help="The hash that the download of NAME must have.")
@click.option("--force", is_flag=True, help="Fetch again what is in the cache.")
@as_json
def fetch(names: tuple[str, ...], path: Path | None, sha256: str | None, force: bool, as_json: bool) -> None:
    """Fetch the weight files NAME... and those that they need; without a NAME, what the default model needs.

    What is in the cache already is not fetched again, and needs no network. An interrupted download is resumed.
    """
    from segic.weights import file_sha256, find, install, resolve

    names = names or (DEFAULT_MODEL,)
    if (path or sha256) and len(names) != 1:
        raise UsageError(f"--path and --sha256 belong to one NAME, not to {len(names)}: {', '.join(names)}")
    first = find(names[0])
    if path and not first.cached:
        raise UsageError(f"{first.name} is not kept in the cache, so --path cannot fill it: {first.source}")
    if sha256 and not first.cached:
        raise UsageError(f"{first.name} is not downloaded, so --sha256 cannot check it: {first.source}")
    given_hash = sha256.lower() if sha256 else None
    wanted = dict.fromkeys(name for given in names for name in (given, *find(given).needs))
    results: list[dict[str, str]] = []
    with ByteBars() as progress:
        for name in wanted:
            own_hash = given_hash if name == names[0] else None
            if path and name == names[0]:
                ready = install(path, name, sha256=own_hash, progress=progress)
            else:
                ready = resolve(name, force=force, sha256=own_hash, progress=progress)
            results.append({"name": name, "path": str(ready), "sha256": file_sha256(ready, progress)})
    if as_json:
        _print_json(results)
        return
    for result in results:
        click.echo(f"{result['name']}: {result['path']}")


@models.command(short_help="Hash the files on this machine again.")
@as_json
def verify(as_json: bool) -> None:
    """Hash every weight file on this machine again; exit status 1 when one is damaged."""
    from segic.weights import verify as verify_all

    with ByteBars() as progress:
        checks = verify_all(progress)
    if as_json:
        _print_json([{**asdict(check), "path": str(check.path)} for check in checks])
    else:
        for check in checks:
            click.echo(f"{check.state:<10}  {check.path}")
        if not checks:
            click.echo("no weight file is on this machine")
    damaged = [check for check in checks if check.state == "damaged"]
    if damaged:
        raise SegicError(
            f"{len(damaged)} of {len(checks)} weight files are damaged: {', '.join(str(c.path) for c in damaged)}. "
            "Delete them, or run `segic models fetch --force NAME`"
        )


@models.command(short_help="Make safetensors of a released checkpoint.")
@click.argument("source", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--name", help="The registered name that FILE belongs to; by default found out from its tensors and its name."
)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Write this .safetensors file instead of filling the cache."
)
@click.option("--overwrite", is_flag=True, help="Replace --out if it exists.")
@as_json
def convert(source: Path, name: str | None, out: Path | None, overwrite: bool, as_json: bool) -> None:
    """Convert a released SEGIC checkpoint or a dinov2_vit*_pretrain.pth to safetensors.

    The result goes into the cache, where its name finds it from then on, or to --out.
    """
    from segic.weights import file_sha256, find, install
    from segic.weights.convert import convert as convert_file

    if name:
        find(name)
    if out and out.suffix != ".safetensors":
        raise UsageError(f"--out {out}: expected a name that ends in .safetensors")
    if out and out.exists() and not overwrite:
        raise UsageError(f"--out {out} exists: choose another name, or add --overwrite")
    with ByteBars() as progress:
        if out:
            convert_file(source, name, progress=progress).save(out)
        else:
            out = install(source, name, progress=progress)
        sha256 = file_sha256(out, progress)
    if as_json:
        _print_json({"source": str(source), "path": str(out), "sha256": sha256})
    else:
        click.echo(f"{source} -> {out}")


def _describe(file: WeightFile) -> dict[str, Any]:
    """Everything that is known of `file`, as JSON values."""
    from segic.weights import file_sha256, locate
    from segic.weights.cache import read_record

    path = locate(file)
    record = read_record(path) if path else None
    found = file_sha256(path) if path and file.asset else None  # parts of segic are small and have no record
    return {
        "name": file.name,
        "kind": file.kind,
        "state": _state(file),
        "source": file.source,
        "origin": file.origin,
        "licence": file.licence,
        "size_bytes": file.size_bytes,
        "sha256": file.sha256,
        "url": file.url,
        "needs": list(file.needs),
        "path": str(path) if path else None,
        "path_sha256": record.sha256 if record else found,
    }


def _state(file: WeightFile) -> str:
    from segic.weights import locate

    if file.kind == "text":
        return "kept by transformers"
    if locate(file):
        return "part of segic" if file.asset else "in the cache"
    return "missing" if file.asset else "to fetch"


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2))
