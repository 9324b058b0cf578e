"""The engine's choice of arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from archivecolor.colorize.engine import Engine
from archivecolor.config import ColorizeConfig, GeneratorConfig
from archivecolor.errors import DeviceError
from archivecolor.networks import Generator, supports_int8
from archivecolor.weights import save_generator

has_int8 = supports_int8(torch.device("cpu"))
needs_int8 = pytest.mark.skipif(not has_int8, reason="a CPU without 8-bit dot products")


def _engine(weights: Path, precision: str = "auto") -> Engine:
    return Engine(ColorizeConfig(weights=str(weights), device="cpu", precision=precision, render_size_px=64))


def _frames(count: int = 6) -> list[torch.Tensor]:
    torch.manual_seed(2)
    return [torch.rand(1, 1, 48, 80) * 100 for _ in range(count)]


@needs_int8
def test_a_film_goes_through_int8_when_its_colours_stay(tiny_weights: Path) -> None:
    engine = _engine(tiny_weights)
    frames = _frames()
    expected = engine.chroma(frames[0])
    assert engine.precision != "int8"
    engine.fit([engine.network_input(frame) for frame in frames])
    assert engine.precision == "int8"
    moved = (engine.chroma(frames[0]) - expected).abs().mean()
    assert 0 < moved < 1.0
    engine.fit([])
    assert torch.equal(engine.chroma(frames[0]), expected)


@needs_int8
def test_int8_is_not_used_when_it_would_change_the_colours(tmp_path: Path) -> None:
    torch.manual_seed(7)
    generator = Generator(GeneratorConfig(widths=(8, 12, 16), spectral_norm=False))
    with torch.no_grad():
        generator.output.weight.mul_(400)  # saturates at the slightest change of its input
    save_generator(generator, tmp_path / "wild.safetensors")
    engine = _engine(tmp_path / "wild.safetensors")
    engine.fit([engine.network_input(frame) for frame in _frames()])
    assert engine.precision != "int8"


def test_fp32_stays_fp32(tiny_weights: Path) -> None:
    engine = _engine(tiny_weights, "fp32")
    engine.fit([engine.network_input(frame) for frame in _frames()])
    assert engine.precision == "fp32"


def test_int8_where_there_is_none_is_an_error(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archivecolor.colorize.engine.supports_int8", lambda device: False)
    with pytest.raises(DeviceError, match="--precision auto"):
        _engine(tiny_weights, "int8")


def test_frames_that_repeat_an_earlier_one_take_its_colour(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _engine(tiny_weights, "fp32")
    a, b = _frames(2)
    noise = torch.rand_like(a) * 0.2
    shown = engine.network_input(torch.cat([a, a + noise, b, b, a]))
    asked = []
    generator = engine._generator
    monkeypatch.setattr(engine, "_generator", lambda l_norm: asked.append(len(l_norm)) or generator(l_norm))
    colours = engine.colours(shown)
    ab = colours.ab
    assert (colours.repeated, asked) == ([False, True, False, True, False], [3])
    assert torch.equal(ab[0], ab[1]) and torch.equal(ab[2], ab[3])
    torch.testing.assert_close(ab[[0, 2, 4]], engine.chroma(torch.cat([a, b, a])))


def test_the_network_is_shown_the_frames_that_are_wanted(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _engine(tiny_weights, "fp32")
    a, b = _frames(2)
    shown = engine.network_input(torch.cat([a, b, b, a]))
    expected = engine.colours(shown).ab
    asked = []
    generator = engine._generator
    monkeypatch.setattr(engine, "_generator", lambda l_norm: asked.append(len(l_norm)) or generator(l_norm))
    some = engine.colours(shown, [False, False, True, True])
    assert (asked, some.repeated) == ([2], [False, False, True, False])
    torch.testing.assert_close(some.ab[2:], expected[2:], atol=1e-3, rtol=0)
    assert not some.ab[:2].any()
    assert not engine.colours(shown, [False] * 4).ab.any() and len(asked) == 1


@pytest.mark.parametrize(
    ("size", "render_size_px", "expected"),
    [
        ((480, 640), 128, (128, 168)),
        ((640, 480), 128, (168, 128)),
        ((360, 640), 64, (64, 112)),
        ((500, 512), 64, (64, 64)),
        ((400, 960), 64, (64, 152)),
    ],
)
def test_the_network_can_see_the_films_own_aspect(
    tiny_weights: Path, size: tuple[int, int], render_size_px: int, expected: tuple[int, int]
) -> None:
    """The tiny network takes sizes in multiples of 8."""
    settings = {"weights": str(tiny_weights), "device": "cpu", "render_size_px": render_size_px}
    L = torch.rand(1, 1, *size) * 100
    assert Engine(ColorizeConfig(**settings)).chroma(L).shape[-2:] == (render_size_px, render_size_px)
    engine = Engine(ColorizeConfig(**settings, fit="aspect"))
    assert engine.network_shape(*size) == engine.chroma(L).shape[-2:] == expected
