"""Model versions on disk: written whole or not at all, numbered without gaps in time, verified before they are used.

    REGISTRY/NAME/1/manifest.json ...     immutable
    REGISTRY/NAME/aliases.json            which version is the champion; the only file that changes

Several processes may train and promote at once: a version appears by one rename, its number is taken by that rename.
"""

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from fraudstream.codec.times import write_time
from fraudstream.errors import ModelError
from fraudstream.models.artefact import (
    CARD,
    FILES,
    MANIFEST,
    Artefact,
    Manifest,
    decode_manifest,
    encode_manifest,
    sha256,
)

ALIASES: Final = "aliases.json"
CHAMPION: Final = "champion"
LATEST: Final = "latest"
DEFAULT_NAME: Final = "fraud"
# A forest of a thousand deep trees has about 100 MB; beyond this it is no model but a mistake, and would fill a worker.
FILE_BYTES_MAX: Final = 1 << 30
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_VERSION: Final = re.compile(r"[1-9][0-9]{0,8}")


class Aliases(Struct, frozen=True, forbid_unknown_fields=True):
    """Which version decides, and which did before it."""

    champion: int
    previous: int | None = None
    updated_at: str = ""


class Registry:
    """A directory of model versions.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> Registry(Path(mkdtemp())).names()
    []
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def names(self) -> list[str]:
        """The names of all models."""
        return [path.name for path in self._listed(self.directory) if _NAME.fullmatch(path.name) and path.is_dir()]

    def versions(self, name: str) -> list[int]:
        """The versions of a model, oldest first; empty if there is none."""
        found = self._listed(self._home(name))
        return sorted(int(path.name) for path in found if _VERSION.fullmatch(path.name) and path.is_dir())

    def latest(self, name: str) -> int:
        """The newest version. Raises `ModelError` if there is none."""
        versions = self.versions(name)
        if not versions:
            known = ", ".join(self.names()) or "none"
            raise ModelError(f"registry {self.directory}: no model {name!r} (models there: {known}); train one first")
        return versions[-1]

    def aliases(self, name: str) -> Aliases | None:
        """The aliases of a model; None if none was set. Raises `ModelError` if they cannot be read."""
        path = self._home(name) / ALIASES
        try:
            return msgspec.json.decode(path.read_bytes(), type=Aliases)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise ModelError(f"{path}: cannot be read: {error}; set the champion anew") from error

    def champion(self, name: str) -> int:
        """The version that decides. Raises `ModelError` if none is set."""
        aliases = self.aliases(name)
        if aliases is None:
            self.latest(name)
            raise ModelError(f"registry {self.directory}: model {name!r} has no champion; promote a version")
        return aliases.champion

    def set_champion(self, name: str, version: int) -> Aliases:
        """Make a version the champion, after loading it to see that it can be. Atomic; the last caller wins."""
        self.load(name, version)
        before = self.aliases(name)
        if before is not None and before.champion == version:
            return before
        aliases = Aliases(version, before.champion if before else None, write_time(time.time_ns() // 1_000_000))
        with self._written_beside(self._home(name) / ALIASES, msgspec.json.encode(aliases)) as new:
            new.replace(self._home(name) / ALIASES)
        return aliases

    def resolve(self, name: str, version: str | int = CHAMPION) -> int:
        """The number of a version that may be called `champion` or `latest`."""
        if version == CHAMPION:
            return self.champion(name)
        if version == LATEST:
            return self.latest(name)
        if not _VERSION.fullmatch(str(version)):
            raise ModelError(f"{version!r} is not a version: give its number, {CHAMPION} or {LATEST}")
        return int(version)

    def manifest(self, name: str, version: str | int = CHAMPION) -> Manifest:
        """The manifest alone, its digest verified."""
        number = self.resolve(name, version)
        return self._manifest(name, number, self._read(name, number, MANIFEST))

    def load(self, name: str, version: str | int = CHAMPION) -> Artefact:
        """Read a version and verify every file. Raises `ModelError` with one line if anything is not as written."""
        number = self.resolve(name, version)
        manifest = self._manifest(name, number, self._read(name, number, MANIFEST))
        files = {}
        for file in FILES:
            data = self._read(name, number, file)
            if sha256(data) != manifest.files.get(file):
                raise ModelError(
                    f"model {name} version {number}: {file} is not the file that was registered (sha256 differs); "
                    "restore it or train the version anew"
                )
            files[file] = data
        return Artefact(manifest, files)

    def add(
        self,
        name: str,
        files: Mapping[str, bytes],
        manifest_of: Callable[[int, str], Manifest],
        card: Callable[[Manifest], str],
    ) -> Manifest:
        """Write a new version; the first one of a name becomes its champion.

        `manifest_of` makes the manifest for a version number and a creation time, `card` the model card for a manifest;
        file digests and the seal are filled in here. Returns the manifest as written.
        """
        home = self._home(name)
        created_at = write_time(time.time_ns() // 1_000_000)
        staged = home / f".new-{secrets.token_hex(8)}"
        try:
            staged.mkdir(parents=True)
            while True:
                manifest = manifest_of(max(self.versions(name), default=0) + 1, created_at)
                contents = {**files, CARD: card(manifest).encode()}
                digests = {file: sha256(contents[file]) for file in FILES}
                manifest = msgspec.structs.replace(manifest, files=digests).sealed()
                for file in FILES:
                    _write(staged / file, contents[file])
                _write(staged / MANIFEST, encode_manifest(manifest))
                _sync(staged)
                try:
                    staged.rename(home / str(manifest.version))
                    break
                except OSError:
                    # Another training took this number in the meantime; anything else is not ours to mend.
                    if not (home / str(manifest.version)).exists():
                        raise
            _sync(home)
            self._first_champion(name, manifest.version)
        except OSError as error:
            raise ModelError(f"registry {self.directory}: cannot write: {error.strerror or error}") from error
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        return manifest

    def _first_champion(self, name: str, version: int) -> None:
        aliases = Aliases(version, None, write_time(time.time_ns() // 1_000_000))
        path = self._home(name) / ALIASES
        # A link is made only where there is nothing yet: of two first versions, one wins.
        with self._written_beside(path, msgspec.json.encode(aliases)) as new, contextlib.suppress(FileExistsError):
            path.hardlink_to(new)

    @contextlib.contextmanager
    def _written_beside(self, path: Path, data: bytes) -> Iterator[Path]:
        new = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
        try:
            _write(new, data + b"\n")
            yield new
            _sync(path.parent)
        except OSError as error:
            raise ModelError(f"{path}: cannot be written: {error.strerror or error}") from error
        finally:
            new.unlink(missing_ok=True)

    def _manifest(self, name: str, version: int, data: bytes) -> Manifest:
        manifest = decode_manifest(data, f"model {name} version {version}")
        if (manifest.name, manifest.version) != (name, version):
            raise ModelError(
                f"model {name} version {version}: its manifest says {manifest.name} version {manifest.version}; "
                "versions must not be moved or copied under another name"
            )
        return manifest

    def _read(self, name: str, version: int, file: str) -> bytes:
        path = self._home(name) / str(version) / file
        try:
            if not path.parent.is_dir():
                have = ", ".join(map(str, self.versions(name))) or "none"
                raise ModelError(f"registry {self.directory}: model {name!r} has no version {version} (it has: {have})")
            if path.stat().st_size > FILE_BYTES_MAX:
                raise ModelError(f"{path}: larger than {FILE_BYTES_MAX >> 20} MiB")
            return path.read_bytes()
        except FileNotFoundError as error:
            raise ModelError(f"model {name} version {version}: {file} is missing; restore it or train anew") from error
        except OSError as error:
            raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error

    def _home(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ModelError(f"{name!r} is not a model name: use lower case letters, digits, - and _, a letter first")
        return self.directory / name

    def _listed(self, directory: Path) -> list[Path]:
        try:
            return sorted(directory.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ModelError(f"registry {directory}: cannot be read: {error.strerror or error}") from error


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    """Make the names in a directory outlive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
