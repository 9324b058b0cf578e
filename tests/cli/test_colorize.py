"""``archivecolor colorize`` as a user meets it: exit codes, messages, folders, nothing lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from archivecolor.cli import main
from archivecolor.cli.console import _Lines
from tests.clips import make_clip, read_back
from tests.conftest import Start

pytestmark = pytest.mark.usefixtures("use_tiny_weights")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["colorize", *map(str, arguments)])


def files_in(folder: Path) -> list[str]:
    """All files but the sidecars of outputs that are there, and the catalogue of them."""
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    files = {file for file in files if Path(file).name != "catalogue.sqlite3"}
    return sorted(
        file for file in files if file.removesuffix(".json") == file or file.removesuffix(".json") not in files
    )


def test_one_film(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "film.mp4", frames=9)
    result = run(source.path, "-o", tmp_path / "out.mp4")
    assert result.exit_code == 0, result.output
    assert "9 frames" in result.stdout
    assert len(read_back(tmp_path / "out.mp4").times_s) == 9
    assert files_in(tmp_path) == ["film.mp4", "out.mp4"]


def test_json_says_what_was_done(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "film.mp4", frames=5)
    result = run(source.path, "-o", tmp_path / "out.mp4", "--json")
    [entry] = json.loads(result.stdout)["results"]
    assert entry["state"] == "coloured"
    assert entry["frames_read"] == entry["frames_written"] == 5
    assert len(entry["weights_sha256"]) == 64


def test_what_is_left_out_is_told_before_the_work_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_clip(tmp_path / "film.mkv", frames=5, attachment=b"a note")
    assert run(source.path, "-o", tmp_path / "out.mp4").stderr.count("left out") == 1
    told: list[str | None] = []
    monkeypatch.setattr(_Lines, "say", lambda self, text: told.append(text))
    monkeypatch.setattr(_Lines, "update", lambda self, *arguments: told.append(None))
    assert "left out" not in run(source.path, "-o", tmp_path / "again.mp4").stderr
    assert told[0] is not None and "left out" in told[0] and None in told


@pytest.mark.parametrize("name", ["Ünïcödé фильм 映画.mp4", "with space.mp4", "-dash-.mp4", "100%.mp4", "[x].mp4"])
def test_awkward_names(tmp_path: Path, name: str) -> None:
    source = make_clip(tmp_path / name, frames=3)
    result = run("-o", tmp_path / "out" / name, "--", source.path)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / name).exists()


def bad_inputs(folder: Path) -> dict[str, Path]:
    """Files that cannot be colourised, by what is wrong with them."""
    good = make_clip(folder / "good.mp4", frames=20, sound="aac").path
    made = {
        "missing": folder / "missing.mp4",
        "empty": folder / "empty.mp4",
        "text": folder / "text.mp4",
        "truncated": folder / "truncated.mp4",
        "sound": folder / "sound.wav.mp4",
        "no films": folder / "folder",
    }
    made["empty"].touch()
    made["text"].write_text("This is not a film.\n" * 50)
    made["truncated"].write_bytes(good.read_bytes()[:3000])
    made["no films"].mkdir()
    (made["no films"] / "notes.txt").write_text("nothing here")
    import av

    with av.open(str(made["sound"]), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return made


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "truncated", "sound", "no films"])
def test_bad_input_is_one_line_and_exit_code_1(tmp_path: Path, kind: str) -> None:
    (tmp_path / "in").mkdir()
    source = bad_inputs(tmp_path / "in")[kind]
    before = files_in(tmp_path)
    result = run(source, "-o", tmp_path / "out.mp4")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert source.name in result.stderr
    assert files_in(tmp_path) == before


def test_wrong_usage_is_exit_code_2(tmp_path: Path) -> None:
    assert run(tmp_path / "a.mp4").exit_code == 2
    assert run(tmp_path / "a.mp4", "-o", "b.mp4", "--start", "abc").exit_code == 2
    assert run(tmp_path / "a.mp4", "-o", "b.mp4", "--render-size", "100").exit_code == 2
    assert run(tmp_path / "a.mp4", "-o", "b.mp4", "--saturation", "9").exit_code == 2
    assert run(tmp_path / "a.mp4", "-o", "b.mp4", "--start", "nan").exit_code == 2


def test_the_source_is_never_replaced(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "film.mp4", frames=3).path
    content = source.read_bytes()
    (tmp_path / "link.mp4").symlink_to(source)
    for target in (source, tmp_path / "." / "film.mp4", tmp_path / "link.mp4", tmp_path):
        result = run(source, "-o", target, "--overwrite")
        assert result.exit_code == 1
        assert "is the source itself" in result.stderr
    assert source.read_bytes() == content


def test_an_output_that_is_there_is_only_replaced_on_request(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "film.mp4", frames=3)
    target = tmp_path / "out.mp4"
    target.write_text("precious")
    result = run(source.path, "-o", target)
    assert result.exit_code == 1 and "--overwrite" in result.stderr
    assert target.read_text() == "precious"
    assert run(source.path, "-o", target, "--overwrite").exit_code == 0
    assert len(read_back(target).times_s) == 3


def test_codec_and_container_that_do_not_fit_are_refused_before_work(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "film.mp4", frames=3)
    result = run(source.path, "-o", tmp_path / "out.webm", "--codec", "prores")
    assert result.exit_code == 1 and ".mkv" in result.stderr
    result = run(source.path, "-o", tmp_path / "out.xyz")
    assert result.exit_code == 1 and ".mp4" in result.stderr
    assert files_in(tmp_path) == ["film.mp4"]


def test_a_folder_mirrors_its_tree_and_goes_on_past_a_bad_file(tmp_path: Path) -> None:
    reels = tmp_path / "reels"
    (reels / "b" / "c").mkdir(parents=True)
    make_clip(reels / "one.mp4", frames=4)
    make_clip(reels / "b" / "two.mkv", frames=5)
    make_clip(reels / "b" / "c" / "three.avi", codec="mpeg4", options={}, frames=6)
    cv2.imwrite(str(reels / "b" / "photo.png"), np.full((40, 60), 128, np.uint8))
    (reels / "b" / "bad.mp4").write_text("not a film")
    (reels / "readme.txt").write_text("not even trying")
    out = tmp_path / "colour"

    result = run(reels, "-o", out)
    assert result.exit_code == 1
    assert "4 coloured, 0 skipped, 1 failed" in result.stderr
    assert "bad.mp4" in result.stderr
    assert files_in(out) == ["b/c/three.mkv", "b/photo.png", "b/two.mkv", "one.mp4"]

    result = run(reels, "-o", out)
    assert "0 coloured, 4 skipped, 1 failed" in result.stderr


@pytest.mark.parametrize("name", ["reel.mp4", "reel.mkv"])
def test_an_output_that_was_cut_short_is_made_again(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    make_clip(tmp_path / "in" / name, frames=60, size=(160, 120), options={"preset": "ultrafast", "crf": "5"})
    assert run(tmp_path / "in", "-o", tmp_path / "out").exit_code == 0
    target = tmp_path / "out" / name
    target.write_bytes(target.read_bytes()[: target.stat().st_size * 6 // 10])
    result = run(tmp_path / "in", "-o", tmp_path / "out")
    assert "1 coloured, 0 skipped, 0 failed" in result.stderr
    assert len(read_back(target).times_s) == 60


def test_a_folder_job_never_replaces_a_file_that_is_not_its_own(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", frames=5).path
    (tmp_path / "in").mkdir()
    source.rename(tmp_path / "in" / "x.mp4")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x.mp4").write_text("precious")
    result = run(tmp_path / "in", "-o", tmp_path / "out")
    assert result.exit_code == 1 and "--overwrite" in result.stderr
    assert (tmp_path / "out" / "x.mp4").read_text() == "precious"


def test_outputs_made_with_other_settings_are_not_taken_for_done(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    make_clip(tmp_path / "in" / "a.mp4", frames=30)
    out = tmp_path / "out"
    assert run(tmp_path / "in", "-o", out).exit_code == 0
    before = (out / "a.mp4").read_bytes()
    for other in (["--saturation", "2"], ["--start", "0.4"], ["--crf", "30"]):
        result = run(tmp_path / "in", "-o", out, *other)
        assert result.exit_code == 1 and "other settings" in result.stderr and "--overwrite" in result.stderr
        assert (out / "a.mp4").read_bytes() == before
    assert "1 skipped" in run(tmp_path / "in", "-o", out).stderr
    assert run(tmp_path / "in", "-o", out, "--saturation", "2", "--overwrite").exit_code == 0
    assert (out / "a.mp4").read_bytes() != before


@pytest.mark.parametrize("output", ["b.mkv", "b/%03d.png"])
def test_work_that_was_kept_is_not_taken_for_what_is_asked_for_now(tmp_path: Path, output: str) -> None:
    source, out = make_clip(tmp_path / "a.mkv", codec="ffv1", frames=5).path, tmp_path / output
    assert run(source, "-o", out, "--keep-work").exit_code == 0
    assert run(source, "-o", out, "--keep-work").exit_code == 0
    result = run(source, "-o", out, "--saturation", 0, "--keep-work")
    assert result.exit_code == 1 and "use --overwrite" in result.stderr


def test_a_cut_behind_the_end_says_how_long_the_film_is(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", frames=50)
    result = run(source.path, "-o", tmp_path / "b.mp4", "--start", "5")
    assert result.exit_code == 1 and "2.000 s long" in result.stderr
    assert files_in(tmp_path) == ["a.mp4"]


def test_inputs_that_would_become_one_output_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        make_clip(tmp_path / folder / "x.mp4", frames=3)
    result = run(tmp_path / "a" / "x.mp4", tmp_path / "b" / "x.mp4", "-o", tmp_path / "out")
    assert result.exit_code == 1 and "would both become" in result.stderr
    assert not (tmp_path / "out").exists()
    result = run(tmp_path / "a", tmp_path / "a" / "x.mp4", "-o", tmp_path / "out")  # one film, named twice
    assert "1 coloured" in result.stderr and result.exit_code == 0


def test_an_output_is_never_another_source(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4", frames=3)
    (tmp_path / "sub").mkdir()
    make_clip(tmp_path / "sub" / "a.mp4", frames=4)
    result = run(tmp_path / "a.mp4", tmp_path / "sub" / "a.mp4", "-o", tmp_path / "sub", "--overwrite")
    assert (result.exit_code == 1 and "is the source itself" in result.stderr) or "another source" in result.stderr
    assert len(read_back(tmp_path / "sub" / "a.mp4").times_s) == 4


def test_a_folder_job_needs_a_folder_as_output(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4", frames=3)
    result = run(tmp_path, "-o", tmp_path / "all.mp4")
    assert result.exit_code == 1 and "need a folder" in result.stderr


def test_an_unexpected_error_is_one_line_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from archivecolor.colorize import batch

    (tmp_path / "in").mkdir()
    for name in ("a.mp4", "b.mp4"):
        make_clip(tmp_path / "in" / name, frames=3)
    colour = batch.colorize_film

    def buggy(source: Path, *args: object, **kwargs: object) -> object:
        if source.name == "a.mp4":
            raise IndexError("index 5 is out\nof bounds")
        return colour(source, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(batch, "colorize_film", buggy)
    result = run(tmp_path / "in", "-o", tmp_path / "out")
    assert result.exit_code == 1 and "1 coloured, 0 skipped, 1 failed" in result.stderr
    assert "unexpected IndexError (index 5 is out of bounds)" in result.stderr
    assert files_in(tmp_path / "out") == ["b.mp4"]


def test_an_output_folder_inside_the_input_is_not_coloured_again(tmp_path: Path) -> None:
    make_clip(tmp_path / "one.mp4", frames=3)
    assert run(tmp_path, "-o", tmp_path / "colour").exit_code == 0
    result = run(tmp_path, "-o", tmp_path / "colour")
    assert "0 coloured, 1 skipped, 0 failed" in result.stderr


def test_two_reels_of_one_name_do_not_meet(tmp_path: Path) -> None:
    make_clip(
        tmp_path / "in" / "reel.avi" if (tmp_path / "in").mkdir() is None else tmp_path, codec="mpeg4", options={}
    )
    make_clip(tmp_path / "in" / "reel.mpg", codec="mpeg2video", options={}, size=(64, 48), frames=6)
    assert run(tmp_path / "in", "-o", tmp_path / "out").exit_code == 0
    assert files_in(tmp_path / "out") == ["reel.avi.mkv", "reel.mpg.mkv"]


@pytest.mark.parametrize(
    ("suffix", "dtype"), [(".png", np.uint8), (".png", np.uint16), (".tif", np.uint16), (".jpg", np.uint8)]
)
def test_stills(tmp_path: Path, suffix: str, dtype: type) -> None:
    white = np.iinfo(dtype).max
    ramp = np.tile(np.linspace(0.3 * white, 0.7 * white, 61), (43, 1)).astype(dtype)
    cv2.imwrite(str(tmp_path / f"a{suffix}"), ramp)
    result = run(tmp_path / f"a{suffix}", "-o", tmp_path / f"b{suffix}")
    assert result.exit_code == 0, result.output
    done = cv2.imread(str(tmp_path / f"b{suffix}"), cv2.IMREAD_UNCHANGED)
    assert done.shape == (43, 61, 3) and done.dtype == dtype
    spread = (done.max(axis=2).astype(float) - done.min(axis=2)).mean() / white
    assert spread > 0.05
    lab = cv2.cvtColor((done / white).astype(np.float32), cv2.COLOR_BGR2Lab)
    grey = cv2.cvtColor(np.repeat((ramp / white).astype(np.float32)[:, :, None], 3, axis=2), cv2.COLOR_BGR2Lab)
    unclipped = ((done > 0) & (done < white)).all(axis=2)
    assert unclipped.mean() > 0.8
    assert np.abs(lab[:, :, 0] - grey[:, :, 0])[unclipped].mean() < (1.0 if suffix == ".jpg" else 0.3)


def test_saturation_zero_is_grey(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.tile(np.arange(200, dtype=np.uint8), (32, 1)))
    assert run(tmp_path / "a.png", "-o", tmp_path / "b.png", "--saturation", 0).exit_code == 0
    done = cv2.imread(str(tmp_path / "b.png"), cv2.IMREAD_UNCHANGED)
    assert (done[:, :, 0] == np.arange(200)).all() and (done.max(axis=2) == done.min(axis=2)).all()


def test_no_weights_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHIVECOLOR_WEIGHTS", str(tmp_path / "nowhere.safetensors"))
    source = make_clip(tmp_path / "film.mp4", frames=3)
    result = run(source.path, "-o", tmp_path / "out.mp4", "--weights", tmp_path / "none.safetensors")
    assert result.exit_code == 1 and "none.safetensors" in result.stderr


def test_an_unknown_device_is_named(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "film.mp4", frames=3)
    result = run(source.path, "-o", tmp_path / "out.mp4", "--device", "warp9")
    assert result.exit_code == 1 and "warp9" in result.stderr and "Traceback" not in result.output


def test_the_same_command_again_finds_the_film_done(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "film.mp4", frames=5)
    assert run(source.path, "-o", tmp_path / "out.mp4").exit_code == 0
    made = (tmp_path / "out.mp4").stat().st_mtime_ns
    result = run(source.path, "-o", tmp_path / "out.mp4")
    assert result.exit_code == 0 and "was whole already" in result.stdout
    assert (tmp_path / "out.mp4").stat().st_mtime_ns == made


def wait_for(folder: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not list(folder.glob(pattern)) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_leaves_nothing_behind(tmp_path: Path, number: signal.Signals, start_colorize: Start) -> None:
    source = make_clip(tmp_path / "film.mp4", size=(640, 480), frames=400, options={"preset": "ultrafast"})
    process = start_colorize(source.path, "-o", tmp_path / "out.mp4")
    wait_for(tmp_path, ".out.mp4-*.work/part-*/*.partial", process)
    process.send_signal(number)
    assert process.stderr is not None
    assert "stopping once the segment" in process.stderr.readline()
    process.send_signal(number)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert stderr == "error: interrupted\n"
    assert files_in(tmp_path) == ["film.mp4"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_finishes_the_segment_and_the_rerun_goes_on(
    tmp_path: Path, number: signal.Signals, start_colorize: Start
) -> None:
    source = make_clip(tmp_path / "film.mp4", size=(320, 240), frames=240, options={"preset": "ultrafast"})
    arguments = (source.path, "-o", tmp_path / "out.mp4", "--segment-frames", 32, "--json")
    process = start_colorize(*arguments)
    wait_for(tmp_path, ".out.mp4-*.work/part-*/*.segment", process)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert stderr.endswith("error: stopped; the same command goes on from there\n")
    assert json.loads(stdout)["results"][0]["state"] == "stopped"
    [work] = tmp_path.glob(".out.mp4-*.work")
    assert not list(work.glob("part-*/*.partial"))
    segments = len(list(work.glob("part-*/*.segment")))
    assert len((work / "part-0000" / "journal.jsonl").read_text().splitlines()) == segments >= 1

    result = run(*arguments)
    [entry] = json.loads(result.stdout)["results"]
    assert entry["frames_written"] == 240 and 0 < entry["frames_kept"] < 240
    assert "going on behind them" in result.stderr
    assert files_in(tmp_path) == ["film.mp4", "out.mp4"]
