"""A download over HTTP(S) that survives interruption and keeps nothing whose hash is wrong.

Bytes go to `NAME.part`; a later call asks the server only for the rest (`Range`), and `If-Range` with the validator
that the first answer gave makes the server start again when the file behind the URL has changed meanwhile.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from pathlib import Path

from segic.errors import SegicError
from segic.weights.hashing import CHUNK, Progress, file_sha256

ATTEMPTS = 4
TIMEOUT = 30.0  # seconds without a byte


class _InterruptedError(Exception):
    """The transfer ended early; what arrived is in the .part file."""


def download(
    url: str, target: Path, *, sha256: str | None = None, progress: Progress | None = None, name: str = "NAME"
) -> str:
    """Fetch `url` into the file `target` and return the sha256 that was found.

    target: its folder exists. It appears only when it is complete and, where `sha256` is given, has that hash. name: of
    the weight file that it is for, for messages.
    Raises SegicError when the network or the server fails (the part that arrived is kept and resumed by the next call)
    and when the hash is wrong (nothing is kept).
    """
    part = target.with_name(target.name + ".part")
    for attempt in range(1, ATTEMPTS + 1):
        before = _size(part)
        try:
            _transfer(url, part, target.name, sha256 is not None, progress)
            break
        except _InterruptedError as error:
            if attempt == ATTEMPTS or _size(part) == before:  # another try helps only a transfer that moved
                raise SegicError(_failure(url, part, str(error), name)) from error
        except OSError as error:
            raise SegicError(f"{part} cannot be written: {error}") from error
    found = file_sha256(part, progress)
    if sha256 and found != sha256:
        _forget(part)
        raise SegicError(
            f"{url} has the wrong sha256: expected {sha256}, found {found}. The file was not kept. It was damaged on "
            "the way or is another file: try again, or get it another way and give its path"
        )
    part.replace(target)
    _forget(part)
    return found


def _transfer(url: str, part: Path, name: str, hash_known: bool, progress: Progress | None) -> None:
    """Append to `part` what it lacks of `url`."""
    validator = _validator(part)
    start = _size(part)
    if start and not validator.exists() and not hash_known:  # two versions of the file could be joined unseen
        part.unlink()
        start = 0
    headers = {"User-Agent": "segic", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator.exists():
            headers["If-Range"] = validator.read_text()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as response:
            resumed = response.status == http.client.PARTIAL_CONTENT
            if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                raise _InterruptedError(f"the server sent another part than the one from byte {start} on")
            if not resumed:
                start = 0
                _remember(validator, response.headers)
            length = int(response.headers.get("Content-Length") or 0)
            total = start + length if length else 0
            with part.open("ab" if resumed else "wb") as file:
                done = start
                while chunk := _read(response):
                    file.write(chunk)
                    done += len(chunk)
                    if progress:
                        progress(f"downloading {name}", done, total)
            if total and done != total:
                raise _InterruptedError(f"the connection ended after {done} of {total} bytes")
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            if error.headers.get("Content-Range") == f"bytes */{start}":  # all of it is here, and was not looked at yet
                return None
            _forget(part)
            return _transfer(url, part, name, hash_known, progress)
        raise _InterruptedError(f"the server answered {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _InterruptedError(str(error.reason)) from error
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise _InterruptedError(str(error) or type(error).__name__) from error


def _read(response: http.client.HTTPResponse) -> bytes:
    """The next piece; a network fault is told apart from one of the disk, which is an OSError as well."""
    try:
        return response.read(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _InterruptedError(str(error) or type(error).__name__) from error


def _validator(part: Path) -> Path:
    return part.with_name(part.name + ".version")


def _remember(validator: Path, headers: http.client.HTTPMessage) -> None:
    """Keep the strong ETag or else the date of the answer, for `If-Range`."""
    etag = headers.get("ETag", "")
    version = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")
    if version:
        validator.write_text(version)
    else:
        validator.unlink(missing_ok=True)


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _validator(part).unlink(missing_ok=True)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _failure(url: str, part: Path, reason: str, name: str) -> str:
    kept = f" {_size(part)} bytes are kept and the next call goes on from there." if _size(part) else ""
    return (
        f"{url} could not be downloaded: {reason}.{kept} Without a network, get the file another way and give its "
        f"path: `segic models fetch {name} --path FILE`"
    )
