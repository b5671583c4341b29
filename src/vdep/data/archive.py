"""Images read in place from the archives they were published in, or from a folder: nothing is unpacked.

1.2 million small files never touch a file system. A ``Location`` is found once, when the data is prepared; reading it later
is one ``pread`` and, for deflated members, one decompression, with the CRC checked.
"""

from __future__ import annotations

import os
import struct
import threading
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")


@dataclass(frozen=True)
class Location:
    """Where a member's bytes lie. ``method`` is 0 (stored) or 8 (deflated). ``member`` names a file of a folder."""

    offset: int
    packed_size: int
    size: int
    crc: int
    method: int
    member: str = ""


class ImageFolder:
    """Images that are files of their own. Size and CRC are those of the file when it was located."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def locate(self, name: str) -> Location | None:
        """The file ``name`` within the folder, or None where there is none.

        Raises:
            DataError: where it cannot be read.
        """
        if ".." in Path(name).parts or not (self.path / name).is_file():
            return None
        data = self._bytes(name)
        return Location(0, len(data), len(data), zlib.crc32(data), 0, name)

    def read(self, location: Location) -> bytes:
        """The file's bytes.

        Raises:
            DataError: where they are not those that were located.
        """
        data = self._bytes(location.member)
        if len(data) != location.size or zlib.crc32(data) != location.crc:
            raise DataError(
                f"{self.path / location.member} is not the image that was prepared (checksum). Restore it, or delete the "
                "manifest of its asset and prepare the data again."
            )
        return data

    def _bytes(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise DataError(f"the image {self.path / name} cannot be read: {error.strerror}") from error


class ImageArchive:
    """One ZIP archive. Safe to share between threads and after a fork: it reads with ``pread`` and keeps no position."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise DataError(f"the image archive {path} cannot be opened: {error.strerror}") from error
        self._members: dict[str, zipfile.ZipInfo] | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        os.close(self._descriptor)

    def _index(self) -> dict[str, zipfile.ZipInfo]:
        with self._lock:
            if self._members is None:
                self._members = self._read_index()
            return self._members

    def _read_index(self) -> dict[str, zipfile.ZipInfo]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                infos = archive.infolist()
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(
                f"{self.path} is not a whole ZIP archive ({error}). Delete it and its manifest, and download it again."
            ) from error
        members: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            if info.is_dir():
                continue
            other = members.get(info.filename)
            if other is not None and (other.CRC, other.file_size) != (info.CRC, info.file_size):
                raise DataError(f"{self.path} holds two different members named {info.filename!r}")
            members[info.filename] = info
        return members

    def locate(self, name: str) -> Location | None:
        """Where member ``name`` lies, or None where the archive has none of that name.

        Raises:
            DataError: for an encrypted member, an unsupported compression, or a damaged header.
        """
        info = self._index().get(name)
        if info is None:
            return None
        if info.flag_bits & 0x1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{self.path}: {name} is encrypted or compressed in a way that is not supported")
        header = os.pread(self._descriptor, _LOCAL_HEADER.size, info.header_offset)
        if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            raise DataError(f"{self.path}: the header of {name} is damaged")
        *_, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        offset = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        return Location(offset, info.compress_size, info.file_size, info.CRC, info.compress_type)

    def read(self, location: Location) -> bytes:
        """The member's bytes.

        Raises:
            DataError: where they are not the bytes that were packed.
        """
        packed = b""
        while len(packed) < location.packed_size:
            part = os.pread(self._descriptor, location.packed_size - len(packed), location.offset + len(packed))
            if not part:
                break
            packed += part
        try:
            data = zlib.decompressobj(-15).decompress(packed, location.size + 1) if location.method == 8 else packed
        except zlib.error:
            data = b""
        if len(data) != location.size or zlib.crc32(data) != location.crc:
            raise DataError(
                f"{self.path}: the {location.size} bytes at {location.offset} are damaged (checksum). "
                "Delete the archive and its manifest, and download it again."
            )
        return data


def open_images(path: Path) -> ImageArchive | ImageFolder:
    """A ZIP archive, or a folder of image files."""
    return ImageFolder(path) if path.is_dir() else ImageArchive(path)
