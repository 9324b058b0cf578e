"""VC-1, which FFmpeg decodes but cannot encode: key frames of its simple profile (SMPTE ST 421), written bit by bit."""

from __future__ import annotations

import random
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np

from archivecolor.film import OutputSettings, probe
from tests.clips import read_back
from tests.film.test_writer import through

WIDTH, HEIGHT, FRAMES = 64, 48, 10
SEQUENCE = 0x00018001  # simple profile; of all tools only the fast transform and fast motion vectors, which are a must


def key_frame(seed: int) -> bytes:
    """Blocks without detail, each as light as its neighbour or one step off."""
    dice = random.Random(seed)
    bits = "00" + "0" + "0000000" + f"{10:05b}" + "000"  # number, key frame, buffer, quantiser, tables
    for _ in range(WIDTH // 16 * HEIGHT // 16):
        bits += "10"  # no detail, no prediction of it
        bits += "".join(dice.choice(("1", "1", "010", "011")) for _ in range(4)) + "00" * 2
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8)) + bytes(4)


def write_rcv(path: Path) -> None:
    """The test format of the standard's annex L: a header, and frames behind their sizes."""
    head = struct.pack("<II", FRAMES | 0xC5 << 24, 4) + struct.pack(">I", SEQUENCE)
    content = head + struct.pack("<3I", HEIGHT, WIDTH, 12) + bytes(8) + struct.pack("<I", 25)
    for number in range(FRAMES):
        frame = key_frame(number)
        content += struct.pack("<2I", len(frame) | 0x80 << 24, number) + frame
    path.write_bytes(content)


def test_vc1_comes_through(tmp_path: Path) -> None:
    write_rcv(tmp_path / "a.rcv")
    assert probe(tmp_path / "a.rcv").codec == "wmv3"
    through(tmp_path / "a.rcv", tmp_path / "b.mkv", OutputSettings("ffv1"))
    before, after = read_back(tmp_path / "a.rcv"), read_back(tmp_path / "b.mkv")
    assert len(after.times_s) == FRAMES and all(map(np.array_equal, before.luma, after.luma))
    assert not np.array_equal(after.luma[0], after.luma[1]) and after.luma[0].std() > 1
    assert before.times_s == after.times_s == [Fraction(n, 25) for n in range(FRAMES)]
