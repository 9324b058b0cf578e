"""A crop that a Matroska file asks players for is seen, whatever else is in the file."""

from __future__ import annotations

from archivecolor.film import FilmReader
from archivecolor.film.matroska import pixel_crop
from tests.clips import make_clip


def element(identity: str, payload: bytes) -> bytes:
    return bytes.fromhex(identity) + bytes([0x40 | len(payload) >> 8, len(payload) & 255]) + payload


def test_the_crop_of_the_picture(tmp_path):
    crop = element("54bb", b"\x08") + element("54aa", b"\x04") + element("54dd", b"\x01\x00")
    tracks = element("ae", element("d7", b"\x01")) + element("ae", element("e0", element("b0", b"\x40") + crop))
    segment = element("ec", bytes(9)) + element("1654ae6b", tracks) + element("1f43b675", b"")
    (tmp_path / "a.mkv").write_bytes(element("1a45dfa3", b"") + element("18538067", segment))
    assert pixel_crop(tmp_path / "a.mkv") == (8, 4, 0, 256)
    (tmp_path / "b.mkv").write_bytes((tmp_path / "a.mkv").read_bytes()[:30] + b"\0\xff")
    assert pixel_crop(tmp_path / "b.mkv") == (0, 0, 0, 0)


def test_the_reader_says_so(tmp_path):
    make_clip(tmp_path / "a.mkv", frames=2, colour=(1, 1, 1, 1))
    raw = (tmp_path / "a.mkv").read_bytes()
    # The picture's colour tags give way to a crop of the same length.
    at = raw.index(bytes.fromhex("55b0"), raw.rindex(bytes.fromhex("1654ae6b")))
    after = at + 3 + (raw[at + 2] & 0x7F)
    crop = element("54bb", b"\x08")
    filled = crop + element("ec", bytes(after - at - len(crop) - 3))
    (tmp_path / "b.mkv").write_bytes(raw[:at] + filled + raw[after:])
    for name, says_so in (("a.mkv", False), ("b.mkv", True)):
        with FilmReader(tmp_path / name) as reader:
            assert len(list(reader)) == 2
            assert any("8 top" in text for text in reader.report.warnings) is says_so
