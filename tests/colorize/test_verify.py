"""The record beside an output, and verify: it passes what is right and names what is not."""

from __future__ import annotations

import hashlib
import json
import shutil
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import av
import numpy as np
import pytest
from click.testing import CliRunner

from archivecolor import __version__
from archivecolor.cli import main
from archivecolor.colorize.engine import Engine
from archivecolor.colorize.pipeline import colorize_film
from archivecolor.colorize.sidecar import read_record, sidecar_path
from archivecolor.colorize.stills import colorize_still
from archivecolor.colorize.verify import Verification, _compare_frames, verify
from archivecolor.config import ColorizeConfig
from archivecolor.errors import DataError
from archivecolor.film import LumaFrame, OutputSettings, write_still
from archivecolor.film.frames import ReadReport
from tests.clips import Clip, luma_frame, make_clip

LUMA = ColorizeConfig(device="cpu", precision="fp32", recombine="luma")
FFV1 = OutputSettings("ffv1", keep_luma=True)


@pytest.fixture(scope="module")
def engine(tiny_weights: Path) -> Engine:
    return Engine(ColorizeConfig(weights=str(tiny_weights), device="cpu", precision="fp32", batch_size=4))


@pytest.fixture
def film(tmp_path: Path) -> Clip:
    return make_clip(tmp_path / "a.mkv", sound="aac", frames=10, size=(320, 240), pts=list(range(0, 20, 2)))


def master(film: Clip, engine: Engine) -> Path:
    output = film.path.with_name("b.mkv")
    colorize_film(film.path, output, engine, LUMA, FFV1)
    return output


def failed(found: Verification) -> list[str]:
    return [check.name for check in found.checks if check.passed is False]


def with_renewed_fixity(output: Path) -> None:
    """Make the record agree with a changed output, so that only the deeper checks can tell."""
    record = read_record(output)
    data = output.read_bytes()
    record["output"] |= {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    sidecar_path(output).write_text(json.dumps(record))


def test_the_record_says_what_was_made_of_what(film, engine):
    output = master(film, engine)
    record = json.loads(output.with_name("b.mkv.json").read_text())
    assert record["tool"] == {"name": "archivecolor", "version": __version__}
    assert record["model"]["sha256"] == engine.weights_sha256
    assert record["digital_source_type"].endswith("/compositeWithTrainedAlgorithmicMedia")
    assert record["source"]["path"] == str(film.path)
    assert record["source"]["sha256"] == hashlib.sha256(film.path.read_bytes()).hexdigest()
    assert record["source"]["size_bytes"] == film.path.stat().st_size
    assert record["output"]["sha256"] == hashlib.sha256(output.read_bytes()).hexdigest()
    assert record["settings"]["recombine"] == "luma" and record["settings"]["output"]["codec"] == "ffv1"
    assert record["frames"] | {"read": 10, "written": 10, "undecodable": 0, "repeated": 0} == record["frames"]
    assert [(s["kind"], s["action"], s["output_index"]) for s in record["streams"]] == [
        ("video", "coloured", 0),
        ("audio", "copied", 1),
    ]
    with av.open(str(output)) as container:
        assert "compositeWithTrainedAlgorithmicMedia" in container.metadata["COMMENT"]


def test_a_right_output_passes_every_check(film, engine):
    found = verify(master(film, engine))
    assert found.passed and all(check.passed for check in found.checks), found.checks
    names = " ".join(check.name for check in found.checks)
    assert all(word in names for word in ("unchanged", "times", "luma", "CRC", "audio", "frame count"))


@pytest.mark.parametrize("config", [ColorizeConfig(start_s=0.2, end_s=0.5), ColorizeConfig(deinterlace="fields")])
def test_cuts_and_encoded_copies_pass_too(film, engine, config):
    output = film.path.with_name("b.mp4")
    colorize_film(film.path, output, engine, config, OutputSettings("h264", preset="ultrafast"))
    found = verify(output)
    assert found.passed, found.checks


def test_converted_sound_passes_too(tmp_path, engine):
    film = make_clip(tmp_path / "a.mov", sound="aac", frames=10)
    colorize_film(film.path, tmp_path / "b.webm", engine, ColorizeConfig())
    pcm = make_clip(tmp_path / "c.mov", sound="adpcm_ima_qt", frames=10)
    colorize_film(pcm.path, tmp_path / "d.mkv", engine, ColorizeConfig())
    copied = make_clip(tmp_path / "e.mkv", sound="pcm_s16le", frames=10)
    colorize_film(copied.path, tmp_path / "f.mov", engine, ColorizeConfig())  # QuickTime cuts PCM anew
    assert verify(tmp_path / "f.mov").passed
    for output in ("b.webm", "d.mkv"):
        record = read_record(tmp_path / output)
        assert record["streams"][1]["action"] == "converted" and record["streams"][1]["packets"] > 0
        assert verify(tmp_path / output).passed


def test_one_flipped_bit_is_found_by_checksum_and_by_crc(film, engine):
    output = master(film, engine)
    data = bytearray(output.read_bytes())
    with av.open(str(output)) as container:
        packet = [p for p in container.demux(video=0) if p.size][5]
        payload = bytes(packet)
    at = bytes(data).index(payload[:64]) + len(payload) // 2
    data[at] ^= 1
    output.write_bytes(data)
    assert "output is unchanged" in failed(verify(output))
    with_renewed_fixity(output)
    assert "every slice has its CRC right" in failed(verify(output))


def test_a_missing_frame_and_lost_sound_are_found(film, engine):
    output = master(film, engine)
    made = film.path.with_name("d.mkv")
    with av.open(str(output)) as source, av.open(str(made), "w") as target:
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
        number = 0
        for packet in source.demux():
            if not packet.size:
                continue
            number += packet.stream.type == "video"
            if packet.stream.type == "audio" or number == 4:
                continue
            packet.stream = streams[packet.stream_index]
            target.mux(packet)
    made.replace(output)
    with_renewed_fixity(output)
    names = failed(verify(output))
    assert "a frame for each of the source's" in names and "frame count is the sidecar's" in names
    assert any("audio" in name for name in names)


def test_changed_luma_is_found(film, engine):
    output = master(film, engine)
    with av.open(str(film.path), "w") as target:  # the source changes under the record
        video = target.add_stream("libx264", rate=25, options={"qp": "0"})
        video.width, video.height, video.pix_fmt = 320, 240, "yuv420p"
        for number, luma in enumerate(film.luma):
            frame = luma_frame(luma ^ (number == 3), "yuv420p")
            frame.pts, frame.time_base = 2 * number, Fraction(1, 25)
            target.mux(video.encode(frame))
        target.mux(video.encode(None))
    names = failed(verify(output))
    assert "source is the one that was coloured" in names and "luma is the source's" in names
    assert "times are the source's" not in names


def test_luma_that_a_lossy_codec_changed_is_said_and_does_not_fail(film, engine, tmp_path):
    report = colorize_film(film.path, tmp_path / "out.mp4", engine, LUMA, OutputSettings(keep_luma=True))
    assert any("lossy" in text for text in report.warnings)
    found = verify(tmp_path / "out.mp4")
    assert found.passed
    assert [check.passed for check in found.checks if check.name == "luma is the source's"] == [None]


def test_a_source_that_is_gone_is_said_and_can_be_named(film, engine, tmp_path):
    output = master(film, engine)
    moved = tmp_path / "shelf.mkv"
    shutil.move(film.path, moved)
    found = verify(output)
    assert found.passed and any(check.passed is None for check in found.checks)
    assert all(check.passed for check in verify(output, moved).checks)


def test_stills_have_a_record_too(tmp_path, engine):
    write_still(tmp_path / "a.png", np.full((40, 50, 3), 90, np.uint8))
    colorize_still(tmp_path / "a.png", tmp_path / "b.png", engine, ColorizeConfig())
    assert read_record(tmp_path / "b.png")["source"]["path"] == str(tmp_path / "a.png")
    assert verify(tmp_path / "b.png").passed


def test_what_is_not_ours_is_one_line_and_is_left_alone(film, engine, tmp_path):
    with pytest.raises(DataError, match="no sidecar"):
        verify(film.path)
    sidecar_path(film.path).write_text("{}")
    with pytest.raises(DataError, match="not a sidecar"):
        verify(film.path)
    (tmp_path / "b.mp4.json").write_text('{"my": "notes"}')
    result = CliRunner().invoke(main, ["colorize", str(film.path), "-o", str(tmp_path / "b.mp4"), "--overwrite"])
    assert result.exit_code == 1 and "b.mp4.json" in result.output
    assert (tmp_path / "b.mp4.json").read_text() == '{"my": "notes"}'


def test_the_command(film, engine, use_tiny_weights):
    output = master(film, engine)
    good = CliRunner().invoke(main, ["verify", str(output)])
    assert good.exit_code == 0 and "all is well" in good.output
    as_json = CliRunner().invoke(main, ["verify", "--json", str(output)])
    assert json.loads(as_json.stdout)["results"][0]["passed"] is True
    output.write_bytes(output.read_bytes()[:-1])
    bad = CliRunner().invoke(main, ["verify", str(output)])
    assert bad.exit_code == 1 and "FAILED" in bad.output
    assert CliRunner().invoke(main, ["verify", str(output.with_name("none.mkv"))]).exit_code == 1


def test_a_folder_of_outputs(film, engine, use_tiny_weights, tmp_path):
    """Every output in it is checked that has a record, or of which the catalogue says that there is one."""
    shelf, out = tmp_path / "reels", tmp_path / "out"
    (shelf / "box").mkdir(parents=True)
    for name in ("one.mkv", "box/two.mkv", "three.mkv"):
        shutil.copy(film.path, shelf / name)
    assert CliRunner().invoke(main, ["colorize", str(shelf), "-o", str(out), "-q"]).exit_code == 0
    (out / "notes.json").write_text("{}")
    good = CliRunner().invoke(main, ["verify", str(out)])
    assert good.exit_code == 0 and good.stdout.count("all is well") == 3
    assert "3 outputs: 3 well, 0 FAILED" in good.stderr
    (out / "box" / "two.mkv").write_bytes(b"another")
    (out / "three.mkv").unlink()
    (out / "three.mkv.json").unlink()
    bad = CliRunner().invoke(main, ["verify", str(out), "--json"])
    assert bad.exit_code == 1
    passed = {Path(entry["output"]).name: entry["passed"] for entry in json.loads(bad.stdout)["results"]}
    assert passed == {"one.mkv": True, "two.mkv": False, "three.mkv": False}
    assert "three.mkv: is not there" in bad.stderr
    (tmp_path / "empty").mkdir()
    nothing = CliRunner().invoke(main, ["verify", str(tmp_path / "empty")])
    assert nothing.exit_code == 1 and "holds no outputs" in nothing.stderr


@pytest.mark.parametrize(("corrupt_frames", "passed"), [(0, False), (3, None)])
def test_luma_of_a_damaged_source_cannot_be_held_against_it(corrupt_frames, passed):
    """Decoders with several threads conceal damage otherwise each time."""

    def track(value: int) -> Any:
        info = SimpleNamespace(time_base=Fraction(1, 25))
        report = ReadReport(frames=1, corrupt_frames=corrupt_frames)
        track = MagicMock(frames=1, reader=SimpleNamespace(info=info, time_offset_s=Fraction(0), report=report))
        luma = np.full((4, 4), value, np.uint8)
        track.__iter__.return_value = iter([LumaFrame(luma, 0, Fraction(1, 25), 1, is_corrupt=False)])
        return track

    found = Verification(Path("a.mkv"))
    _compare_frames(found, track(16), track(17), keeps_luma=True)
    assert found.checks[-1].passed is passed and "1 frames differ" in found.checks[-1].detail
