"""One film through the whole pipeline: every frame, its time, its lightness, its sound; and nothing left behind."""

from __future__ import annotations

import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import pytest
import torch

from archivecolor import color
from archivecolor.colorize.engine import Colours, Engine
from archivecolor.colorize.pipeline import colorize_film
from archivecolor.colorize.recombine import Recombiner
from archivecolor.config import ColorizeConfig
from archivecolor.errors import DeviceError, FilmDecodeError, FilmEncodeError
from archivecolor.film import FilmSegmentWriter, OutputSettings
from tests.clips import make_clip, read_back

CONFIG = ColorizeConfig(device="cpu", precision="fp32", batch_size=4)


@pytest.fixture(scope="module")
def engine(tiny_weights: Path) -> Engine:
    return Engine(ColorizeConfig(weights=str(tiny_weights), device="cpu", precision="fp32", batch_size=4))


def chroma_of(path: Path) -> np.ndarray:
    """Mean |chroma - neutral| of each frame, code values."""
    means = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            planes: Any = frame.to_ndarray(format="yuv444p")
            means.append(np.abs(planes[1:].astype(float) - 128).mean())
    return np.array(means)


def test_frames_times_and_sound_survive(tmp_path: Path, engine: Engine) -> None:
    pts = [0, 40, 41, 100, 220, 260, 300, 900, 940, 980, 1500]
    source = make_clip(
        tmp_path / "a.mp4",
        time_base=Fraction(1, 1000),
        pts=pts,
        sound="aac",
        sound_tracks=2,
        metadata={"title": "T", "comment": "Reel 4"},
    )
    report = colorize_film(source.path, tmp_path / "b.mp4", engine, CONFIG)
    before, after = read_back(source.path), read_back(tmp_path / "b.mp4")
    assert report.frames_read == report.frames_written == len(pts)
    assert after.times_s == before.times_s == source.times_s
    assert after.sound == before.sound
    assert after.metadata["title"] == "T"
    assert after.metadata["comment"].startswith("Reel 4 | Colour made by archivecolor")
    assert (chroma_of(tmp_path / "b.mp4") > 3).all()


@pytest.mark.parametrize(("pix_fmt", "bits"), [("yuv420p", 8), ("yuv420p10le", 10), ("gray", 8), ("gray12le", 12)])
def test_luma_mode_is_bit_for_bit(tmp_path: Path, engine: Engine, pix_fmt: str, bits: int) -> None:
    gray = pix_fmt.startswith("gray")
    source = make_clip(tmp_path / "a.mkv", codec="ffv1", pix_fmt=pix_fmt, frames=6, full_range=gray)
    colorize_film(
        source.path,
        tmp_path / "b.mkv",
        engine,
        ColorizeConfig(recombine="luma"),
        OutputSettings("ffv1", keep_luma=True),
    )
    after = read_back(tmp_path / "b.mkv")
    assert len(after.luma) == 6
    assert all(np.array_equal(a, b) for a, b in zip(after.luma, source.luma, strict=True))
    assert (chroma_of(tmp_path / "b.mkv") > 1).all()


def test_lab_mode_keeps_lightness(tmp_path: Path, engine: Engine) -> None:
    source = make_clip(tmp_path / "a.mkv", codec="ffv1", size=(96, 64), frames=4)
    colorize_film(source.path, tmp_path / "b.mkv", engine, CONFIG, OutputSettings("ffv1", pix_fmt="yuv444p"))
    table = color.lightness_table(8, full_range=False).numpy()
    with av.open(str(tmp_path / "b.mkv")) as container:
        for frame, luma in zip(container.decode(video=0), source.luma, strict=True):
            planes: Any = frame.to_ndarray(format="yuv444p")
            ycbcr = (torch.from_numpy(planes).float() - torch.tensor([16.0, 128, 128])[:, None, None]) / torch.tensor(
                [219.0, 224, 224]
            )[:, None, None]
            rgb = color.ycbcr_to_rgb(ycbcr, "smpte170m")
            unclipped = ((rgb > 0.01) & (rgb < 0.99)).all(dim=0).numpy()
            L = color.rgb_to_lab(rgb.clamp(0, 1))[0].numpy()
            assert unclipped.mean() > 0.2
            assert np.abs(L - table[luma])[unclipped].mean() < 0.5


def test_bars_stay_neutral(tmp_path: Path, engine: Engine) -> None:
    path = tmp_path / "bars.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        random = np.random.default_rng(0)
        for _ in range(5):
            planes = np.full((96, 96), 128, np.uint8)
            planes[:64] = 16
            planes[:64, 16:80] = random.integers(60, 200, (64, 64))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode(None))
    report = colorize_film(path, tmp_path / "b.mkv", engine, CONFIG, OutputSettings("ffv1"))
    assert report.picture is not None and (report.picture.left, report.picture.right) == (16, 80)
    with av.open(str(tmp_path / "b.mkv")) as container:
        for frame in container.decode(video=0):
            planes = frame.to_ndarray(format="yuv444p")
            assert (planes[1:, :, :14] == 128).all() and (planes[1:, :, 82:] == 128).all()
            assert np.abs(planes[1:, :, 20:76].astype(int) - 128).mean() > 3


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_cut_ends_the_chapters_too(tmp_path: Path, engine: Engine, suffix: str) -> None:
    chapters = [(0, 400, "one"), (400, 1200, "two"), (1200, 2000, "three")]
    source = make_clip(tmp_path / "a.mkv", frames=50, chapters=chapters).path
    output = tmp_path / f"b{suffix}"
    colorize_film(source, output, engine, ColorizeConfig(start_s=0.2, end_s=1.0))
    with av.open(str(output)) as made:
        found = [(c["metadata"]["title"], float(c["start"] * c["time_base"])) for c in made.chapters()]
        assert found == [("one", 0.0), ("two", pytest.approx(0.2))]
        assert max(float(c["end"] * c["time_base"]) for c in made.chapters()) == pytest.approx(0.8)
        assert (made.duration or 0) / av.time_base < 0.85


def test_a_cut_keeps_its_frames_and_begins_at_zero(tmp_path: Path, engine: Engine) -> None:
    source = make_clip(tmp_path / "a.mp4", frames=50, sound="aac")
    config = ColorizeConfig(device="cpu", batch_size=4, start_s=0.5, end_s=1.2)
    report = colorize_film(source.path, tmp_path / "b.mp4", engine, config)
    expected = [t for t in source.times_s if Fraction(1, 2) <= t < Fraction(6, 5)]
    assert report.frames_written == len(expected)
    after = read_back(tmp_path / "b.mp4")
    assert after.times_s == [t - Fraction(1, 2) for t in expected]
    assert abs(after.duration_s - 0.7) < 0.05


def test_undecodable_packets_are_counted(tmp_path: Path, engine: Engine) -> None:
    source = make_clip(tmp_path / "a.mkv", codec="ffv1", frames=10, options={"level": "3", "slicecrc": "1", "g": "1"})
    damaged = tmp_path / "damaged.mkv"
    with av.open(str(source.path)) as read, av.open(str(damaged), "w") as write:
        stream = write.add_stream_from_template(read.streams.video[0])
        for number, packet in enumerate(read.demux(video=0)):
            if packet.size:
                copy = av.Packet(bytes(packet)[:3] if number == 4 else bytes(packet))
                copy.pts, copy.dts, copy.time_base, copy.stream = packet.pts, packet.dts, packet.time_base, stream
                copy.is_keyframe = True
                write.mux(copy)
    report = colorize_film(damaged, tmp_path / "b.mkv", engine, CONFIG)
    assert report.undecodable_packets == 1
    assert report.frames_written == report.frames_read == 9
    assert any("1 packets" in warning for warning in report.warnings)


def test_nothing_is_left_behind_when_the_writer_fails(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_clip(tmp_path / "in" / "a.mp4" if (tmp_path / "in").mkdir() is None else tmp_path, frames=40)
    written = FilmSegmentWriter.write

    def full_disk(self: FilmSegmentWriter, *args: Any) -> None:
        if self.frames == 10:
            raise FilmEncodeError("b.mp4: cannot be written: No space left on device")
        written(self, *args)

    monkeypatch.setattr(FilmSegmentWriter, "write", full_disk)
    with pytest.raises(FilmEncodeError, match="No space"):
        colorize_film(source.path, tmp_path / "b.mp4", engine, CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert not [t for t in threading.enumerate() if t.name in ("reader", "colourist", "writer")]


def test_a_missing_frame_is_an_error_not_a_shorter_film(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_clip(tmp_path / "a.mp4", frames=12)
    written = FilmSegmentWriter.write
    dropped = iter([False] * 5 + [True] + [False] * 100)
    monkeypatch.setattr(FilmSegmentWriter, "write", lambda self, *a: None if next(dropped) else written(self, *a))
    with pytest.raises(FilmEncodeError, match="12 frames were read but 11 written"):
        colorize_film(source.path, tmp_path / "b.mp4", engine, CONFIG)
    assert not (tmp_path / "b.mp4").exists()


def test_a_frame_without_colour_is_an_error(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_clip(tmp_path / "a.mp4", frames=4)

    def without_colour(l_norm: torch.Tensor, wanted: list[bool]) -> Colours:
        return Colours(torch.full((len(l_norm), 2, 8, 8), torch.nan), wanted)

    monkeypatch.setattr(engine, "colours", without_colour)
    with pytest.raises(FilmDecodeError, match="no usable colour"):
        colorize_film(source.path, tmp_path / "b.mp4", engine, CONFIG)
    assert not (tmp_path / "b.mp4").exists()


@pytest.mark.parametrize("where", ["network", "recombination"])
def test_out_of_memory_halves_the_batch(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    engine = Engine(ColorizeConfig(weights=str(tiny_weights), device="cpu", precision="fp32", batch_size=8))
    source = make_clip(tmp_path / "a.mp4", frames=21)
    most = 2

    def small_memory(work: Any) -> Any:
        def limited(*args: Any) -> Any:
            frames = next(a.shape[0] for a in args if isinstance(a, torch.Tensor))
            if frames > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return work(*args)

        return limited

    if where == "network":
        monkeypatch.setattr(engine, "colours", small_memory(engine.colours))
    else:
        monkeypatch.setattr(Recombiner, "__call__", small_memory(Recombiner.__call__))
    report = colorize_film(source.path, tmp_path / "b.mp4", engine, CONFIG)
    assert report.frames_written == 21
    assert read_back(tmp_path / "b.mp4").times_s == source.times_s
    assert (chroma_of(tmp_path / "b.mp4") > 3).all()
    assert engine.batch_size == 2
    assert sum("out of memory" in warning for warning in report.warnings) == 2

    most = 0
    with pytest.raises(DeviceError, match="single frame"):
        colorize_film(source.path, tmp_path / "c.mp4", engine, CONFIG)
    assert not (tmp_path / "c.mp4").exists()


@pytest.mark.parametrize("fit", ["square", "aspect"])
def test_a_scene_that_reaches_into_the_bars_is_coloured_whole(
    tmp_path: Path, tiny_weights: Path, fit: Literal["square", "aspect"]
) -> None:
    """A title on black that every sample sees, and full frames that none of them sees."""
    engine = Engine(replace(CONFIG, weights=str(tiny_weights), fit=fit))
    path = tmp_path / "title.mkv"
    random = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=25, options={"qp": "0", "preset": "ultrafast", "g": "1000", "sc_threshold": "0"}
        )
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(60):
            planes = np.full((96, 96), 128, np.uint8)
            planes[:64] = 16
            full = 41 <= number < 45
            planes[(slice(0, 64) if full else slice(16, 48)), (slice(0, 96) if full else slice(16, 80))] = (
                random.integers(80, 180)
            )
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode(None))
    report = colorize_film(path, tmp_path / "b.mkv", engine, CONFIG, OutputSettings("ffv1"))
    assert report.picture is not None and report.picture.width_px == 64
    with av.open(str(tmp_path / "b.mkv")) as container:
        for number, frame in enumerate(container.decode(video=0)):
            corner = frame.to_ndarray(format="yuv444p")[1:, :8, :8].astype(int)
            assert (np.abs(corner - 128).max() > 3) == (41 <= number < 45), number
    assert any("4 frames reach into" in warning for warning in report.warnings)


def test_batching_changes_nothing(tiny_weights: Path) -> None:
    L = torch.rand(5, 1, 40, 56, generator=torch.Generator().manual_seed(2)) * 100
    config = ColorizeConfig(weights=str(tiny_weights), device="cpu", precision="fp32", batch_size=5)
    together = Engine(config).chroma(L)
    one_by_one = torch.cat([Engine(config).chroma(frame[None]) for frame in L])
    assert torch.allclose(together, one_by_one, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_colours_as_the_cpu_does(tmp_path: Path, tiny_weights: Path) -> None:
    L = torch.rand(5, 1, 40, 56, generator=torch.Generator().manual_seed(2)) * 100
    config = {"weights": str(tiny_weights), "precision": "fp32"}
    cpu = Engine(ColorizeConfig(device="cpu", **config)).chroma(L)
    gpu = Engine(ColorizeConfig(device="cuda", **config)).chroma(L.cuda()).cpu()
    assert (cpu - gpu).abs().max() < 0.5
