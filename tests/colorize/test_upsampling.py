"""ab from the network's size to the film's."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from archivecolor.colorize.engine import resize_area
from archivecolor.colorize.upsampling import ChromaUpsampling, upsample_ab
from tests.colorize.moving import texture

METHODS: tuple[ChromaUpsampling, ...] = ("bilinear", "bicubic", "guided")


def scene(side_px: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    """L and ab, (1, 1, H, W) and (1, 2, H, W), of shapes whose colours and lightness change at the same edges."""
    labels = np.digitize(texture(3, side_px), [35, 50, 65])
    L = np.array([25, 45, 60, 80])[labels]
    ab = np.array([[30, 10], [-20, 40], [5, -35], [0, 0]])[labels].transpose(2, 0, 1)
    soft = [cv2.GaussianBlur(plane.astype(np.float32), (0, 0), 1) for plane in (L, *ab)]
    return torch.from_numpy(soft[0])[None, None], torch.from_numpy(np.stack(soft[1:]))[None]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(48, 80), (32, 32), (20, 41), (4, 9)])
def test_flat_colour_stays_as_it_is(method: ChromaUpsampling, size: tuple[int, int]) -> None:
    ab = torch.tensor([12.0, -30.0]).view(1, 2, 1, 1).expand(2, 2, 32, 32).contiguous()
    out = upsample_ab(ab, *size, method, torch.rand(2, 1, *size) * 100)
    assert out.shape == (2, 2, *size)
    assert torch.allclose(out, ab[..., :1, :1].expand_as(out), atol=1e-3)


@pytest.mark.parametrize("cubic", [True, False])
def test_the_cpu_resizes_as_other_devices_do(cubic: bool) -> None:
    ab = torch.randn(2, 2, 24, 32) * 30
    out = upsample_ab(ab, 20, 30, "bicubic" if cubic else "bilinear")  # no sharpening where it does not grow
    mode = "bicubic" if cubic else "bilinear"
    assert torch.allclose(out, F.interpolate(ab, size=(20, 30), mode=mode, align_corners=False), atol=1e-2)


@pytest.mark.parametrize("method", ["bicubic", "guided"])
def test_edges_are_closer_to_the_truth_than_bilinear_ones(method: ChromaUpsampling) -> None:
    L, ab = scene()
    small = resize_area(ab, 96, 96)
    error = (upsample_ab(small, 256, 256, method, L) - ab).abs().mean()
    assert error < 0.9 * (upsample_ab(small, 256, 256, "bilinear") - ab).abs().mean()


def test_no_grain_is_printed_into_the_colour() -> None:
    L, ab = scene()
    grainy = L + 8 * torch.randn(L.shape, generator=torch.Generator().manual_seed(0))
    small = resize_area(ab, 96, 96)
    assert torch.equal(upsample_ab(small, 256, 256, "bicubic", L), upsample_ab(small, 256, 256, "bicubic", grainy))
