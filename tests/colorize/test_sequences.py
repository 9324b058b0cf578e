"""Image sequences in and out: every frame, its number and its depth; what is missing or broken is named."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from archivecolor.cli import main
from archivecolor.colorize.sidecar import read_record
from archivecolor.colorize.verify import verify
from archivecolor.config import ColorizeConfig
from archivecolor.errors import ConfigError, FilmOpenError
from archivecolor.film import LumaFrame, SequenceReader, write_still
from archivecolor.film.sequences import read_frame
from tests.clips import make_clip, picture, read_back

SIZE = (64, 48)
RATE = Fraction(18)


def ramp(number: int, bits: int) -> np.ndarray:
    return picture(number, *SIZE, bits, full_range=True)


def write_dpx(path: Path, luma: np.ndarray, pix_fmt: str) -> None:
    encoder = av.CodecContext.create("dpx", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = *SIZE, pix_fmt, Fraction(1, 24)
    frame = av.VideoFrame(*SIZE, pix_fmt)
    for plane in frame.planes:
        dtype = (
            np.dtype(">u2" if frame.format.is_big_endian else "<u2")
            if frame.format.components[0].bits > 8
            else np.uint8
        )
        lines = np.frombuffer(plane, dtype).reshape(SIZE[1], -1)  # type: ignore[call-overload]
        samples = 3 if len(frame.planes) == 1 and len(frame.format.components) == 3 else 1
        lines[:, : SIZE[0] * samples] = np.repeat(luma, samples, axis=1)
    path.write_bytes(b"".join(bytes(p) for p in [*encoder.encode(frame), *encoder.encode(None)]))


def frames(folder: Path, kind: str, bits: int, numbers: range = range(86, 92)) -> list[np.ndarray]:
    folder.mkdir()
    made = [ramp(number, bits) for number in numbers]
    for number, luma in zip(numbers, made, strict=True):
        file = folder / f"scan_{number:05d}.{kind}"
        if kind == "dpx":
            write_dpx(file, luma, {8: "gray", 10: "gbrp10be", 12: "gbrp12be", 16: "gray16be"}[bits])
        else:
            cv2.imwrite(str(file), luma)
    return made


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["colorize", *map(str, arguments)])


@pytest.mark.parametrize(
    ("kind", "bits"),
    [("tif", 8), ("tif", 16), ("png", 8), ("png", 16), ("dpx", 8), ("dpx", 10), ("dpx", 12), ("dpx", 16)],
)
def test_every_frame_is_read_in_its_depth(tmp_path, kind, bits):
    made = frames(tmp_path / "in", kind, bits)
    for path in (tmp_path / "in", tmp_path / "in" / f"scan_%05d.{kind}"):
        with SequenceReader(path, RATE) as reader:
            read = [item for item in reader if isinstance(item, LumaFrame)]
        assert reader.info.picture.bit_depth == bits
        assert [frame.time_s for frame in read] == [n / RATE for n in range(6)]
        assert all(np.array_equal(frame.luma, luma) for frame, luma in zip(read, made, strict=True))


def test_a_cut_between_two_frames_moves_them_by_whole_ones(tmp_path):
    frames(tmp_path / "in", "png", 8)
    with SequenceReader(tmp_path / "in", RATE, start_s=2.5 / 18) as reader:
        assert reader.time_offset_s == 2 / RATE
        assert [item.time_s for item in reader] == [n / RATE for n in range(3, 6)]


def test_a_missing_frame_is_named_before_any_work(tmp_path):
    frames(tmp_path / "in", "png", 8)
    (tmp_path / "in" / "scan_00088.png").unlink()
    with pytest.raises(FilmOpenError, match=r"frame 88 missing \(after scan_00087.png\)"):
        SequenceReader(tmp_path / "in", RATE)


def test_what_is_no_sequence_is_one_line(tmp_path):
    frames(tmp_path / "in", "png", 8)
    with pytest.raises(ConfigError, match="--fps"):
        SequenceReader(tmp_path / "in", None)
    with pytest.raises(FilmOpenError, match="no file of that pattern"):
        SequenceReader(tmp_path / "in" / "%04d.tif", RATE)
    with pytest.raises(FilmOpenError, match="no such folder"):
        SequenceReader(tmp_path / "none" / "%04d.tif", RATE)
    cv2.imwrite(str(tmp_path / "in" / "other_1.png"), ramp(0, 8))
    with pytest.raises(FilmOpenError, match="several sequences"):
        SequenceReader(tmp_path / "in", RATE)


@pytest.mark.parametrize("kind", ["png", "dpx"])
def test_a_broken_frame_is_named_and_leaves_a_gap(tmp_path, use_tiny_weights, kind):
    frames(tmp_path / "in", kind, 8)
    broken = tmp_path / "in" / f"scan_00089.{kind}"
    broken.write_bytes(broken.read_bytes()[:100])
    result = run(tmp_path / "in", "--fps", "18", "-o", tmp_path / "out.mp4", "--json")
    assert result.exit_code == 0
    [report] = json.loads(result.stdout)["results"]
    assert report["undecodable_packets"] == 1 and any(broken.name in text for text in report["warnings"])
    assert read_back(tmp_path / "out.mp4").times_s == [n / RATE for n in (0, 1, 2, 4, 5)]


def test_frames_of_another_size_are_refused(tmp_path, use_tiny_weights):
    frames(tmp_path / "in", "png", 8)
    cv2.imwrite(str(tmp_path / "in" / "scan_00090.png"), np.zeros((10, 10), np.uint8))
    result = run(tmp_path / "in", "--fps", "18", "-o", tmp_path / "out.mp4")
    assert result.exit_code == 1 and "scan_00090.png: is 10x10" in result.stderr
    assert not (tmp_path / "out.mp4").exists()


def test_a_sequence_becomes_a_film(tmp_path, use_tiny_weights):
    frames(tmp_path / "in", "dpx", 10)
    result = run(tmp_path / "in" / "scan_%05d.dpx", "--fps", "23.976", "-o", tmp_path / "out.mkv")
    assert result.exit_code == 0, result.stderr
    after = read_back(tmp_path / "out.mkv")
    assert after.pix_fmt == "yuv420p10le" and len(after.luma) == 6
    assert all(abs(t - n * Fraction(1001, 24000)) < Fraction(1, 1000) for n, t in enumerate(after.times_s))
    assert read_record(tmp_path / "out.mkv")["settings"]["fps"] == "23.976"
    assert verify(tmp_path / "out.mkv").passed
    again = run(tmp_path / "in" / "scan_%05d.dpx", "--fps", "23.976", "-o", tmp_path / "out.mkv")
    assert again.exit_code == 0 and "whole already" in again.stdout
    (tmp_path / "in" / "scan_00091.dpx").unlink()
    again = run(tmp_path / "in" / "scan_%05d.dpx", "--fps", "23.976", "-o", tmp_path / "out.mkv")
    assert again.exit_code == 1 and "was made of another source" in again.stderr


@pytest.mark.parametrize(("kind", "bits", "to"), [("dpx", 10, "dpx"), ("tif", 16, "tif"), ("png", 8, "tif")])
def test_a_sequence_becomes_a_sequence_with_its_numbers(tmp_path, use_tiny_weights, kind, bits, to):
    frames(tmp_path / "in", kind, bits)
    target = tmp_path / "out" / f"scan_%05d.{to}" if to != kind else tmp_path / "out"
    result = run(tmp_path / "in", "--fps", "18", "-o", target)
    assert result.exit_code == 0, result.stderr
    written = sorted((tmp_path / "out").iterdir())
    assert [file.name for file in written] == [f"scan_{n:05d}.{to}" for n in range(86, 92)]
    for file in written:
        frame = read_frame(file)
        assert frame.bit_depth == bits and frame.luma.shape == SIZE[::-1]
        assert frame.chroma_deviation > 2
    found = verify(tmp_path / "out")
    assert found.passed and any("frame count" in check.name for check in found.checks)
    by_name = CliRunner().invoke(main, ["verify", str(tmp_path / "out" / f"scan_%05d.{to}")])
    assert by_name.exit_code == 0 and "all is well" in by_name.stdout
    again = run(tmp_path / "in", "--fps", "18", "-o", target)
    assert again.exit_code == 0 and "whole already" in again.stdout
    otherwise = run(tmp_path / "in", "--fps", "18", "-o", target, "--saturation", "0")
    assert otherwise.exit_code == 1 and "other settings; use --overwrite" in otherwise.stderr
    written[2].unlink()
    assert not verify(tmp_path / "out").passed
    again = run(tmp_path / "in", "--fps", "18", "-o", target)
    assert again.exit_code == 1 and "not as it was written; use --overwrite" in again.stderr
    assert run(tmp_path / "in", "--fps", "18", "-o", target, "--overwrite").exit_code == 0
    assert verify(tmp_path / "out").passed


def test_a_film_becomes_a_sequence(tmp_path, use_tiny_weights):
    clip = make_clip(tmp_path / "a.mp4", frames=5, sound="aac")
    result = run(clip.path, "-o", tmp_path / "out" / "%04d.png", "--saturation", "0")
    assert result.exit_code == 0, result.stderr
    assert "image sequences hold pictures only" in result.stderr  # the sound
    assert [file.name for file in sorted((tmp_path / "out").iterdir())] == [f"{n:04d}.png" for n in range(1, 6)]
    for number, luma in enumerate(clip.luma, 1):
        image = cv2.imread(str(tmp_path / "out" / f"{number:04d}.png"))
        assert image is not None
        wanted = np.clip((luma.astype(float) - 16) * 255 / 219, 0, 255)
        assert np.abs(image - wanted[..., None]).max() <= 1.5
    assert verify(tmp_path / "out").passed


def test_inspect_knows_sequences(tmp_path):
    frames(tmp_path / "in", "dpx", 10)
    result = CliRunner().invoke(main, ["inspect", str(tmp_path / "in"), "--fps", "18", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["Picture"]["bit_depth"] == 10 and found["Time"]["frames"] == 6 and found["Time"]["rate_fps"] == 18
    assert found["Colorize would"]["write"] == str(tmp_path / "in_colour.mkv") and "fail" not in found["Colorize would"]
    result = CliRunner().invoke(main, ["inspect", str(tmp_path / "in" / "scan_%05d.dpx"), "--fps", "18"])
    assert "in_colour.mkv" in result.stdout and result.exit_code == 0


def test_what_is_meant_is_asked_for(tmp_path, use_tiny_weights):
    frames(tmp_path / "dpx", "dpx", 8)
    frames(tmp_path / "png", "png", 8, range(12))
    assert "--fps" in run(tmp_path / "dpx", "-o", tmp_path / "out").stderr
    one_name = run(tmp_path / "dpx", "--fps", "18", "-o", tmp_path / "out.png")
    assert one_name.exit_code == 1 and "out/%06d.png" in one_name.stderr
    one_by_one = run(tmp_path / "png", "-o", tmp_path / "stills", "--include", "*0.png")
    assert one_by_one.exit_code == 0 and "with --fps they are one film" in one_by_one.stderr


def test_percent_signs_in_names(tmp_path, use_tiny_weights):
    frames(tmp_path / "in", "png", 8, range(2))
    for file in (tmp_path / "in").iterdir():
        file.rename(file.with_name(f"50% %s {file.name}"))
    result = run(tmp_path / "in", "--fps", "18", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert {file.name for file in (tmp_path / "out").iterdir()} == {f"50% %s scan_0000{n}.png" for n in range(2)}
    clip = make_clip(tmp_path / "%06d.mp4", frames=3)
    assert run(clip.path, "-o", tmp_path / "b.mp4").exit_code == 0


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path, use_tiny_weights):
    frames(tmp_path / "in", "png", 8)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("precious")
    for extra in ([], ["--overwrite"]):
        assert run(tmp_path / "in", "--fps", "18", "-o", tmp_path / "out" / "%05d.png", *extra).exit_code == 1
    assert (tmp_path / "out" / "mine.txt").read_text() == "precious"
    assert run(tmp_path / "in", "--fps", "18", "-o", tmp_path / "in" / "%05d.tif").exit_code == 1


def test_fps_is_for_sequences_only(tmp_path, use_tiny_weights):
    clip = make_clip(tmp_path / "a.mp4", frames=3)
    assert "--fps is for image sequences" in run(clip.path, "--fps", "24", "-o", tmp_path / "b.mp4").stderr
    assert ColorizeConfig(fps="29.97").rate == Fraction(30000, 1001)
    assert ColorizeConfig(fps="24").rate == 24 and ColorizeConfig(fps="24000/1001").rate == Fraction(24000, 1001)
    with pytest.raises(ConfigError):
        ColorizeConfig(fps="fast")


def test_a_folder_of_photographs_is_still_coloured_one_by_one(tmp_path, use_tiny_weights):
    (tmp_path / "in").mkdir()
    for name in ("a1.png", "b7.png"):
        write_still(tmp_path / "in" / name, np.full((40, 50, 3), 90, np.uint8))
    assert run(tmp_path / "in", "-o", tmp_path / "out").exit_code == 0
    assert {file.name for file in (tmp_path / "out").glob("*.png")} == {"a1.png", "b7.png"}
