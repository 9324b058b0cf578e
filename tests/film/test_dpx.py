"""What the headers of DPX frames say is carried: into coloured DPX frames, and into films."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from archivecolor.cli import main
from archivecolor.film import probe, probe_sequence
from archivecolor.film.dpx import DpxHeader, with_header
from archivecolor.film.sequences import read_frame
from tests.clips import make_clip

SIZE = (64, 48)


def scan(path: Path, order: str, number: int, *, user: bytes = b"") -> Path:
    """A 10-bit scan with a full header, as a scanner writes it."""
    encoder = av.CodecContext.create("dpx", "w")
    encoder.width, encoder.height, encoder.time_base = *SIZE, Fraction(1, 24)
    encoder.pix_fmt = "gbrp10be" if order == ">" else "gbrp10le"
    frame = av.VideoFrame(*SIZE, encoder.pix_fmt)
    encoded = b"".join(bytes(p) for p in [*encoder.encode(frame), *encoder.encode(None)])
    head = bytearray(encoded[:1664] + b"\xff" * 384 + user)
    head[136:160] = b"2019:04:01:12:00:00:UTC\0"
    head[260 : 260 + 8], head[460 : 460 + 13] = b"Project\0", b"(c) Archive\0\0"
    head[1588 : 1588 + 5] = b"S/N7\0"
    head[1628:1636] = struct.pack(f"{order}2I", 16, 15)
    head[1664:1680] = b"KJ23" + b"000012345678"
    head[1712:1732] = struct.pack(f"{order}3I2f", number, 6, 1, 18.0, 180.0)
    head[1732:1742] = b"frame %03d\0" % number
    head[1920:1924] = struct.pack(f"{order}I", 0x10595900 + number)
    head[1940:1944] = struct.pack(f"{order}f", 18.0)
    head[1948:1952] = struct.pack(f"{order}f", 2.2)
    head[4:8] = head[808:812] = struct.pack(f"{order}I", len(head))
    head[24:36] = struct.pack(f"{order}3I", 1664, 384, len(user))
    path.write_bytes(bytes(head) + encoded[1664:])
    return path


def ffmpeg_tags(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return dict(next(container.decode(video=0)).metadata)


def run(*arguments: object) -> None:
    result = CliRunner().invoke(main, ["colorize", *map(str, arguments)])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("order", [">", "<"])
def test_a_scan_s_header_goes_on(tmp_path: Path, use_tiny_weights: Path, order: str) -> None:
    (tmp_path / "in").mkdir()
    user = b"scanner's own".ljust(32, b"\0") + bytes(range(100))
    sources = [scan(tmp_path / "in" / f"s_{n:04d}.dpx", order, n, user=user) for n in (7, 8)]
    run(tmp_path / "in", "--fps", "18", "-o", tmp_path / "out")
    for number, source in zip((7, 8), sources, strict=True):
        made = tmp_path / "out" / source.name
        found, told = DpxHeader.of(made), ffmpeg_tags(made)
        assert found.timecode == told["timecode"] == f"10:59:59:0{number}"
        assert found.copyright == "(c) Archive" and found.sample_aspect_ratio == Fraction(16, 15)
        assert found.user_data == user
        assert struct.pack(">5I", *map(found.number, range(1712, 1732, 4))) == struct.pack(
            ">3I2f", number, 6, 1, 18.0, 180.0
        )
        assert found.content[1664:1680] == b"KJ23000012345678" and b"frame %03d" % number in found.content
        assert found.content[1432:1442] == source.name.encode() and b"2019:04:01:12:00:00" in found.content
        assert found.number(1948) == 0xFFFFFFFF  # the source's gamma
        assert b"compositeWithTrainedAlgorithmicMedia" in found.content[160:260]
        assert found.number(16) == made.stat().st_size
        assert read_frame(made).luma.shape == SIZE[::-1]


def test_a_scan_s_time_code_and_aspect_reach_a_film(tmp_path: Path, use_tiny_weights: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(4):
        scan(tmp_path / "in" / f"s_{number:04d}.dpx", ">", number)
    for name in ("out.mov", "out.mkv"):
        run(tmp_path / "in", "--fps", "18", "--start", 1 / 9, "-o", tmp_path / name)
        info = probe(tmp_path / name)
        codes = [stream.timecode for stream in info.streams] + [info.metadata.get("TIMECODE")]
        assert "10:59:59:02" in codes and info.picture.sample_aspect_ratio == Fraction(16, 15)
        assert "(c) Archive" in info.metadata.values()


def test_a_film_s_time_code_counts_on_through_the_frames(tmp_path: Path, use_tiny_weights: Path) -> None:
    rate = Fraction(30000, 1001)
    clip = make_clip(tmp_path / "a.mov", frames=4, rate=rate, timecode="00:00:59;28")
    run(clip.path, "-o", tmp_path / "out" / "%04d.dpx")
    made = sorted((tmp_path / "out").glob("*.dpx"))
    assert [DpxHeader.of(file).timecode for file in made] == [
        "00:00:59;28", "00:00:59;29", "00:01:00;02", "00:01:00;03",
    ]  # fmt: skip


def test_headers_that_say_nothing_or_nonsense(tmp_path: Path) -> None:
    path = scan(tmp_path / "s_1.dpx", ">", 1)
    whole = path.read_bytes()
    for code in (0, 0xFFFFFFFF, 0x24000000, 0x10AB0000):
        path.write_bytes(whole[:1920] + struct.pack(">I", code) + whole[1924:])
        assert DpxHeader.of(path).timecode is None
    path.write_bytes(whole[:32] + struct.pack(">I", 1 << 31) + whole[36:])
    assert DpxHeader.of(path).user_data == b""
    for length in (0, 3, 500, 1700):
        path.write_bytes(whole[:length])
        header = DpxHeader.of(path)
        assert header.timecode is None
        made = with_header(whole[:1664] + whole[2048:], "me", path)
        assert len(made) == len(whole)
    cv2.imwrite(str(tmp_path / "a_1.png"), np.zeros((4, 4), np.uint8))
    assert probe_sequence(tmp_path / "a_%d.png", Fraction(24)).metadata == {}
