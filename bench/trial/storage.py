"""Where checkpoints lie: a folder, or an address of shared storage such as `s3://bucket/folder`, as Ray takes them.

pyarrow knows s3, gs, abfs, hdfs and file; any other scheme goes to fsspec, which needs the package for it. Keys and regions come
from the environment, as those libraries read them; nothing of an address but its scheme and host is ever printed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.records import write_atomic


@dataclass(frozen=True)
class Folder:
    """A folder that this machine sees (its own, or NFS): files appear whole or not at all."""

    path: Path

    def read(self, name: str) -> bytes | None:
        """The file's content, None where there is none. Raises `OSError`."""
        path = self.path / name
        return path.read_bytes() if path.exists() else None

    def write(self, name: str, data: bytes | memoryview) -> None:
        """Replace the file. Raises `OSError`; then the old one is still there."""
        write_atomic(self.path / name, data)

    def remove(self, name: str) -> None:
        """Raises `OSError`, but not for a file that is not there."""
        (self.path / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class Remote:
    """Shared storage behind an address. Everything that goes wrong is an `OSError` without a credential in it.

    An object appears when its upload ends; file systems that show files while they grow get them by renaming.
    """

    uri: str

    def read(self, name: str) -> bytes | None:
        from pyarrow.fs import FileType

        with self._faults():
            system, folder = self._opened()
            path = f"{folder}/{name}"
            if system.get_file_info(path).type == FileType.NotFound:
                return None
            with system.open_input_stream(path) as stream:
                return bytes(stream.read())

    def write(self, name: str, data: bytes | memoryview) -> None:
        with self._faults():
            system, folder = self._opened()
            whole = system.type_name in ("s3", "gcs", "abfs")  # an upload that breaks off leaves the old object
            if not whole:
                system.create_dir(folder, recursive=True)
            written = f"{folder}/{name}" if whole else f"{folder}/.{name}.tmp"
            with system.open_output_stream(written) as stream:
                stream.write(data)
            if not whole:
                with contextlib.suppress(FileNotFoundError):  # some cannot move onto a file
                    system.delete_file(f"{folder}/{name}")
                system.move(written, f"{folder}/{name}")

    def remove(self, name: str) -> None:
        from pyarrow.fs import FileType

        with self._faults():
            system, folder = self._opened()
            if system.get_file_info(f"{folder}/{name}").type != FileType.NotFound:
                system.delete_file(f"{folder}/{name}")

    def _opened(self) -> tuple[Any, str]:
        from pyarrow import ArrowInvalid
        from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

        try:
            system, path = FileSystem.from_uri(self.uri)
        except ArrowInvalid:  # a scheme that pyarrow does not know
            import fsspec

            plain, path = fsspec.core.url_to_fs(self.uri)
            system = PyFileSystem(FSSpecHandler(plain))
        return system, path.rstrip("/")

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # botocore, google and the rest have no common base
            parts = urlsplit(self.uri)
            raise OSError(f"{parts.scheme}://{parts.hostname or ''}: {type(error).__name__}") from None


Storage = Folder | Remote


def storage(place: str | Path) -> Storage:
    return Remote(str(place)) if "://" in str(place) else Folder(Path(place))
