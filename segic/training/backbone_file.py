"""Which weights of the backbone a decoder is trained on: without them, its own are worth nothing."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from segic.errors import UsageError
from segic.weights import find, resolve
from segic.weights.cache import read_record
from segic.weights.hashing import file_sha256


@dataclass(frozen=True)
class BackboneFile:
    """path: the user's own file, None for the one that is kept under the backbone's name (`segic models`).
    sha256: of the user's file, or of that which the kept one was made of. genuine: whether that is the registered one,
    and not another that was put in its place (`segic models fetch NAME --path OTHER`).
    """

    path: Path | None
    sha256: str
    genuine: bool = False

    @classmethod
    def at(cls, path: Path) -> "BackboneFile":
        """The user's file as it is now. UsageError where it cannot be read."""
        try:
            return cls(path.resolve(), file_sha256(path))
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error

    @classmethod
    def kept(cls, name: str) -> "BackboneFile | None":
        """The file that is kept for the backbone `name`, fetched if need be; None where it has no record. Errors as
        `segic.weights.resolve`.
        """
        file = find(name)
        record = read_record(resolve(name))
        if record is None:
            return None
        # Of makers who publish no sha256, by the file's name, wherever it was copied from.
        named = PurePosixPath(record.source.replace("\\", "/")).name == PurePosixPath(file.source).name
        genuine = record.source_sha256 == file.sha256 if file.sha256 else named
        return cls(None, record.source_sha256, genuine)

    @property
    def cache_key(self) -> str:
        """What tells its features from those of the registered file, whose key is ""."""
        return "" if self.genuine else self.sha256

    def as_dict(self) -> dict[str, Any]:
        """For `from_dict`, after a trip through JSON."""
        return {"path": str(self.path) if self.path else None, "sha256": self.sha256}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "BackboneFile":
        return cls(Path(values["path"]) if values["path"] else None, values["sha256"])

    def __str__(self) -> str:
        return f"{self.path or 'those kept by `segic models`'} (sha256 {self.sha256})"
