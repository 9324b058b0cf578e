"""What a GPU makes of a film, held against what the CPU makes of it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from archivecolor.colorize import stages
from archivecolor.colorize.colourist import Colourist
from archivecolor.colorize.engine import Engine
from archivecolor.colorize.mattes import Rectangle
from archivecolor.colorize.motion import find_links, glimpse
from archivecolor.colorize.pipeline import colorize_film
from archivecolor.colorize.recombine import PlaneFormat, Recombiner
from archivecolor.colorize.stages import Batch, Steadying, colour_batches, warm_up
from archivecolor.colorize.temporal import Steadier
from archivecolor.colorize.transfer import download, fetch, upload, upload_floats
from archivecolor.colorize.warping import warps_of
from archivecolor.colorize.workers import Workers
from archivecolor.config import ColorizeConfig
from archivecolor.film import LumaFrame, OutputSettings
from tests.colorize.moving import SIDE_PX, make_shots, moved, texture, worn

CPU = torch.device("cpu")
without_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
GPU = pytest.param("cuda", marks=[pytest.mark.gpu, without_gpu])
on_gpu = pytest.mark.parametrize("device", [GPU])
everywhere = pytest.mark.parametrize("device", ["cpu", GPU])


def engine_on(device: str, weights: Path, **settings: object) -> Engine:
    config = {"weights": str(weights), "precision": "fp32", "render_size_px": 64} | settings
    return Engine(ColorizeConfig(device=device, **config))  # type: ignore[arg-type]


@pytest.fixture
def exact_convolutions() -> None:
    """On a GPU float32 convolutions are rounded to 10 bits otherwise."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    yield
    torch.backends.cudnn.allow_tf32 = before


@on_gpu
@pytest.mark.parametrize(("precision", "most", "mean"), [("fp32", 0.05, 0.01), ("bf16", 8.0, 1.0)])
def test_colours(
    device: str, precision: str, most: float, mean: float, tiny_weights: Path, exact_convolutions: None
) -> None:
    L = torch.from_numpy(np.stack([texture(seed) for seed in range(5)]))[:, None]
    expected = engine_on("cpu", tiny_weights).chroma(L)
    engine = engine_on(device, tiny_weights, precision=precision)
    ab = engine.chroma(L.to(device))
    assert ab.device.type == device
    difference = (ab.cpu() - expected).abs()
    assert difference.max() < most and difference.mean() < mean


@on_gpu
def test_colours_of_repeated_frames(device: str, tiny_weights: Path) -> None:
    one, other = (torch.from_numpy(texture(seed))[None, None].to(device) for seed in (1, 2))
    engine = engine_on(device, tiny_weights)
    colours = engine.colours(engine.network_input(torch.cat([one, one + 0.1, other, other, one])))
    ab = colours.ab
    assert colours.repeated == [False, True, False, True, False]
    assert torch.equal(ab[0], ab[1]) and torch.equal(ab[2], ab[3])
    torch.testing.assert_close(ab[4], ab[0], atol=0.5, rtol=0)


@on_gpu
@pytest.mark.parametrize("mode", ["lab", "luma"])
@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize("log2_chroma", [(1, 1), (1, 0), (0, 0)])
@pytest.mark.parametrize("upsampling", ["bicubic", "bilinear", "guided"])
def test_planes(device: str, mode: str, depth: int, log2_chroma: tuple[int, int], upsampling: str) -> None:
    """A GPU converts each pixel; so does the CPU here, which otherwise takes shorter ways."""
    out = PlaneFormat(depth, False, "bt709", *log2_chroma)
    codes = np.stack([texture(seed)[:90, :121] for seed in range(3)]) / 100 * (219 << depth - 8) + (16 << depth - 8)
    luma = list(np.round(codes).astype(np.uint8 if depth == 8 else np.uint16))
    random = torch.Generator().manual_seed(0)
    ab = torch.nn.functional.interpolate(torch.randn(3, 2, 5, 5, generator=random) * 25, (32, 32), mode="bicubic")
    planes = {}
    for name in ("cpu", device):
        where = torch.device(name)
        join = Recombiner(
            bit_depth=depth,
            full_range=False,
            out=out,
            mode=mode,  # type: ignore[arg-type]
            device=where,
            upsampling=upsampling,  # type: ignore[arg-type]
        )
        join._table, join._converts_each_pixel = None, True
        planes[name] = download(join(upload(luma, where), ab.to(where), Rectangle(0, 90, 8, 112)), depth)
    for expected, plane in zip(planes["cpu"], planes[device], strict=True):
        assert plane.dtype == expected.dtype and plane.shape == expected.shape
        difference = np.abs(plane.astype(int) - expected.astype(int))
        assert difference.max() <= depth - 7 and difference.mean() < 0.01
    if mode == "luma":
        np.testing.assert_array_equal(planes[device][0], np.stack(luma))


@on_gpu
@pytest.mark.parametrize("level", [False, True])
def test_steadying(device: str, level: bool) -> None:
    rng, one, other = np.random.default_rng(0), texture(1), texture(2)
    frames = [worn(moved(one, n, 0), rng) for n in range(29)] + [worn(moved(other, 0, n), rng) for n in range(21)]
    frames[9] = np.full_like(one, 100)
    ab = torch.from_numpy(np.stack([[texture(n + 50), texture(n + 150)] for n in range(50)])) - 50
    seen = [glimpse(frame) for frame in frames]
    links = find_links(None, seen)
    steady = {}
    for name in ("cpu", device):
        steadier, warps = Steadier(0.9, level=level), warps_of(links, (SIDE_PX, SIDE_PX), torch.device(name))
        out = []
        for start in range(0, 50, 12):
            some = slice(start, start + 12)
            out += steadier.push(ab[some].to(name), seen[some], warps[some])
        steady[name] = torch.stack([*out, *steadier.flush()]).cpu()
        assert list(steadier.shot_starts) == [0, 29]
    assert (steady["cpu"] - ab).abs().mean() > 1
    assert (steady["cpu"] - steady[device]).abs().max() < 0.05


@everywhere
def test_floats_come_back(device: str) -> None:
    arrays = [np.random.default_rng(n).standard_normal((7, 5, 2)).astype(np.float32) for n in range(3)]
    sent = upload_floats(arrays, torch.device(device))
    [back] = fetch([sent])
    assert back.device == CPU
    np.testing.assert_array_equal(back.numpy(), np.stack(arrays))


@everywhere
def test_copies_do_not_overtake_computing(device: str) -> None:
    """Batches that several threads send, compute with and fetch at the same time, through memory that is used again."""
    where = torch.device(device)

    def work(number: int) -> bool:
        planes = [np.full((540, 960), (number * 7 + row) % 250, np.uint8) for row in range(8)]
        luma = upload(planes, where)
        for _ in range(20):
            luma = luma.flip(0) + 1
        [codes] = download([luma - 20], 8)
        return all((code == plane).all() for code, plane in zip(codes, planes, strict=True))

    with Workers(4) as workers:
        assert all(workers.map(work, range(60 if device == "cuda" else 8)))


@everywhere
def test_warming_up_goes_all_the_way(device: str, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_on(device, tiny_weights, batch_size=5)
    out = PlaneFormat(8, False, "bt709", 1, 1)
    join = Recombiner(bit_depth=8, full_range=False, out=out, mode="lab", device=engine.device)
    colourist = Colourist(Path("film"), engine, join, Rectangle(0, SIDE_PX, 0, SIDE_PX))
    coloured = []

    def counted(*arguments: object, **options: object) -> object:
        for batch in colour_batches(*arguments, **options):  # type: ignore[arg-type]
            coloured.append([len(planes[0]) for planes in batch.planes])
            yield batch

    monkeypatch.setattr(stages, "colour_batches", counted)
    with Workers(2) as workers:
        warm_up(colourist, workers, np.round(texture(1) * 2).astype(np.uint8), 5, Steadying(0.9))
    assert coloured == [[5], [5]]


@everywhere
def test_batches_keep_their_order_and_their_frames(device: str, tiny_weights: Path) -> None:
    """Each frame's luma comes out with its own picture, however many batches are under way."""
    engine = engine_on(device, tiny_weights)
    out = PlaneFormat(8, False, "bt709", 1, 1)
    join = Recombiner(bit_depth=8, full_range=False, out=out, mode="luma", device=engine.device)
    colourist = Colourist(Path("film"), engine, join, Rectangle(0, 64, 0, 96))
    luma = [np.full((64, 96), 20 + n, np.uint8) for n in range(90)]
    frames = [LumaFrame(plane, n, Fraction(1, 25), 1, False) for n, plane in enumerate(luma)]
    with Workers(4) as workers:
        batches = [Batch(frames[start : start + 6]) for start in range(0, 90, 6)]
        done = list(colour_batches(batches, colourist, workers, Steadying(0.9)))
    y = [plane for batch in done for planes in batch.planes for plane in planes[0]]
    np.testing.assert_array_equal(np.stack(y), np.stack(luma))


def decoded(path: Path) -> tuple[list[Fraction], list[list[np.ndarray]]]:
    """Times and planes of a film's frames."""
    times, planes = [], []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            times.append((frame.pts or 0) * (frame.time_base or 1))
            wide = frame.format.components[0].bits > 8
            lines = [np.frombuffer(p, np.uint16 if wide else np.uint8).reshape(p.height, -1) for p in frame.planes]
            planes.append([line[:, : p.width].astype(int) for line, p in zip(lines, frame.planes, strict=True)])
    return times, planes


@on_gpu
@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize("settings", [{}, {"temporal": 0.0}, {"recombine": "luma"}, {"shot_consistency": True}])
def test_a_whole_film(
    device: str,
    settings: dict[str, object],
    depth: int,
    tiny_weights: Path,
    tmp_path: Path,
    exact_convolutions: None,
) -> None:
    source = make_shots(tmp_path / "source.mkv", [31, 12, 40], bits=depth)
    films = {}
    for name in ("cpu", device):
        engine = engine_on(name, tiny_weights, batch_size=7)
        config = ColorizeConfig(device=name, weights=str(tiny_weights), render_size_px=64, **settings)  # type: ignore[arg-type]
        output = tmp_path / f"{name}.mkv"
        keeps_luma = config.recombine == "luma"
        report = colorize_film(source, output, engine, config, OutputSettings(codec="ffv1", keep_luma=keeps_luma))
        films[name] = decoded(output)
        assert report.frames_written == len(films[name][0]) == 83
    (times, expected), (gpu_times, planes) = films["cpu"], films[device]
    assert gpu_times == times
    for number, (one, other) in enumerate(zip(expected, planes, strict=True)):
        for a, b in zip(one, other, strict=True):
            difference = np.abs(a - b) / (1 << depth - 8)  # most at hard edges, where the CPU takes shorter ways
            assert np.quantile(difference, 0.99) <= 4 and difference.mean() < 0.5, number
