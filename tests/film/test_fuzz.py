"""Damaged files: whatever bytes are flipped or cut, a film comes out or one line, never anything else."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from archivecolor.errors import ArchiveColorError
from archivecolor.film import FilmReader, FilmWriter, LumaFrame, OutputSettings, plan_output, sample_frames
from archivecolor.film.sequences import read_frame
from tests.clips import make_clip, picture, read_back
from tests.colorize.test_sequences import write_dpx

CASES = 40
SIZE = (64, 48)
Mutation = Callable[[bytearray, random.Random], None]


def flip(data: bytearray, dice: random.Random) -> None:
    for _ in range(dice.choice((1, 4, 32, 200))):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def cut(data: bytearray, dice: random.Random) -> None:
    del data[dice.randrange(1, len(data)) :]


def cut_out(data: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(data))
    del data[start : start + dice.randrange(1, 2000)]


def zeros(data: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(data))
    length = min(dice.randrange(1, 3000), len(data) - start)
    data[start : start + length] = bytes(length)


def flip_head(data: bytearray, dice: random.Random) -> None:
    for _ in range(dice.choice((1, 3, 10))):
        data[dice.randrange(min(600, len(data)))] = dice.randrange(256)


MUTATIONS: tuple[Mutation, ...] = (flip, cut, cut_out, zeros, flip_head)


def copied(source: Path, target: Path) -> int:
    """What colorize does to a film, without the colour; returns the number of frames."""
    with FilmReader(source, deinterlace="auto") as reader:
        plan = plan_output(reader.info, target, OutputSettings("h264", preset="ultrafast", pix_fmt="yuv420p"))
        sample_frames(reader.info, 4)
        picture_size = reader.info.picture
        half = np.full((-(-picture_size.height_px // 2), -(-picture_size.width_px // 2)), 128, np.uint8)
        with FilmWriter(target, reader.info, plan, offset_s=reader.time_offset_s) as writer:
            for item in reader:
                if isinstance(item, LumaFrame):
                    luma = (item.luma >> (picture_size.bit_depth - 8)).astype(np.uint8)
                    writer.write(luma, half, half, item.pts_ticks, item.time_base, item.duration_ticks)
                else:
                    writer.copy(item)
    assert writer.frames == reader.report.given > 0
    return writer.frames


@pytest.mark.parametrize(
    ("name", "clip"),
    [
        ("a.mp4", {"sound": "aac", "options": {"preset": "ultrafast", "bf": "2"}}),
        ("a.mkv", {"codec": "ffv1", "sound": "pcm_s16le", "options": {"level": "3", "slicecrc": "1"}}),
        ("a.ts", {"codec": "mpeg2video", "sound": "mp2", "options": {}}),
        ("a.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p", "sound": "pcm_s16le", "options": {}}),
        ("a.mov", {"codec": "prores_ks", "pix_fmt": "yuv422p10le", "sound": "pcm_s16le", "options": {}}),
        ("a.mxf", {"codec": "mpeg2video", "sound": "pcm_s16le", "options": {}}),
        ("a.webm", {"codec": "libvpx-vp9", "sound": "libopus", "options": {"cpu-used": "8", "deadline": "realtime"}}),
    ],
)
def test_a_damaged_film_is_a_film_or_one_line(tmp_path, name, clip):
    make_clip(tmp_path / name, size=SIZE, frames=12, **clip)
    whole = (tmp_path / name).read_bytes()
    frames = copied(tmp_path / name, tmp_path / "b.mkv")
    dice = random.Random(name)
    ends: Counter[str] = Counter()
    for case in range(CASES):
        data = bytearray(whole)
        MUTATIONS[case % len(MUTATIONS)](data, dice)
        damaged = tmp_path / f"damaged{case}{Path(name).suffix}"
        damaged.write_bytes(data)
        try:
            written = copied(damaged, tmp_path / "c.mkv")
        except ArchiveColorError as error:
            assert ("\n" not in str(error) and damaged.name in str(error)) or "c.mkv" in str(error), str(error)
            ends["refused"] += 1
        else:
            times = read_back(tmp_path / "c.mkv").times_s
            assert len(times) == written and times == sorted(times)
            ends["written"] += 1
    assert ends["written"] > CASES // 5, ends
    assert frames == 12


@pytest.mark.parametrize("name", ["a.dpx", "a.png", "a.tif"])
def test_a_damaged_frame_is_a_frame_or_one_line(tmp_path, name):
    import cv2

    luma = picture(3, *SIZE, 8, full_range=True)
    if name.endswith("dpx"):
        write_dpx(tmp_path / name, luma, "gray")
    else:
        cv2.imwrite(str(tmp_path / name), luma)
    whole = (tmp_path / name).read_bytes()
    dice = random.Random(name)
    for case in range(CASES):
        data = bytearray(whole)
        MUTATIONS[case % len(MUTATIONS)](data, dice)
        damaged = tmp_path / f"damaged{case}{Path(name).suffix}"
        damaged.write_bytes(data)
        try:
            frame = read_frame(damaged)
        except ArchiveColorError as error:
            assert "\n" not in str(error) and damaged.name in str(error)
        else:
            assert frame.luma.ndim == 2 and frame.luma.size
