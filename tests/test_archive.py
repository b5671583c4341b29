"""Images read in place: the bytes that were packed, or an error."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vdep.data.archive import ImageArchive
from vdep.data.images import decode_image
from vdep.errors import DataError

members = st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_characters="\0\\/"), min_size=1, max_size=12),
    st.tuples(st.binary(max_size=400), st.booleans()),
    min_size=1,
    max_size=6,
)


def pack(path: Path, content: dict[str, tuple[bytes, bool]], comment: bytes = b"") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = comment
        for name, (data, deflate) in content.items():
            archive.writestr(name, data, zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(members, st.binary(max_size=30))
def test_every_member_reads_back_as_it_was_packed(
    tmp_path: Path, content: dict[str, tuple[bytes, bool]], comment: bytes
) -> None:
    path = tmp_path / "images.zip"
    pack(path, content, comment)
    archive = ImageArchive(path)
    for name, (data, _) in content.items():
        location = archive.locate(name)
        assert location is not None
        assert archive.read(location) == data
    assert archive.locate("not there") is None
    archive.close()


def test_zip64_members_are_found(tmp_path: Path) -> None:
    path = tmp_path / "big.zip"
    with zipfile.ZipFile(path, "w") as archive, archive.open("a.jpg", "w", force_zip64=True) as member:
        member.write(b"x" * 1000)
    opened = ImageArchive(path)
    location = opened.locate("a.jpg")
    assert location is not None
    assert opened.read(location) == b"x" * 1000


def test_a_name_that_climbs_out_of_the_archive_is_only_a_name(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    path = tmp_path / "images.zip"
    pack(path, {"../secret.txt": (b"packed", False)})
    archive = ImageArchive(path)
    location = archive.locate("../secret.txt")
    assert location is not None
    assert archive.read(location) == b"packed", "nothing outside the archive is ever read, and nothing is unpacked"
    assert archive.locate("secret.txt") is None


def test_one_name_for_two_different_members_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.zip"
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jpg", b"one")
        archive.writestr("a.jpg", b"two")
    with pytest.raises(DataError, match=r"two different members named 'a\.jpg'"):
        ImageArchive(path).locate("a.jpg")


def test_the_same_member_twice_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "twice.zip"
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jpg", b"one")
        archive.writestr("a.jpg", b"one")
    opened = ImageArchive(path)
    location = opened.locate("a.jpg")
    assert location is not None
    assert opened.read(location) == b"one"


@pytest.mark.parametrize("deflate", [False, True])
def test_a_flipped_byte_is_noticed(tmp_path: Path, deflate: bool) -> None:
    path = tmp_path / "images.zip"
    pack(path, {"a.jpg": (bytes(range(256)) * 4, deflate)})
    archive = ImageArchive(path)
    location = archive.locate("a.jpg")
    assert location is not None
    damaged = bytearray(path.read_bytes())
    for offset in range(location.offset, location.offset + location.packed_size, 7):
        flipped = bytearray(damaged)
        flipped[offset] ^= 0x40
        path.write_bytes(flipped)
        with pytest.raises(DataError, match=r"damaged \(checksum\)"):
            ImageArchive(path).read(location)


def test_a_truncated_archive_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "images.zip"
    pack(path, {"a.jpg": (b"x" * 500, False)})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"not a whole ZIP archive .* download it again"):
        ImageArchive(path).locate("a.jpg")


def test_a_member_that_claims_to_be_small_does_not_unpack_into_a_large_one(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    pack(path, {"a.jpg": (b"\0" * 10_000_000, True)})
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        struct.pack_into("<I", data, data.index(signature) + offset, 100)
    path.write_bytes(data)
    archive = ImageArchive(path)
    location = archive.locate("a.jpg")
    assert location is not None
    with pytest.raises(DataError, match="damaged"):
        archive.read(location)


def png(size: tuple[int, int] = (40, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(size, 80).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def test_an_image_is_known_by_its_content_and_not_by_its_name() -> None:
    buffer = io.BytesIO()
    Image.new("P", (8, 8)).save(buffer, "GIF")
    image = decode_image(buffer.getvalue(), "page.jpg")
    assert image.mode == "RGB"
    assert image.size == (8, 8)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_image_is_never_decoded_in_part(share: float) -> None:
    data = png()
    with pytest.raises(DataError, match=r"page\.png is (not an image|damaged or truncated)"):
        decode_image(data[: int(share * len(data))], "page.png")
