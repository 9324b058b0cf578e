"""Links at the size of the ab, as they move it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from archivecolor.colorize.motion import find_links, glimpse
from archivecolor.colorize.warping import all_at_once, warps_of
from tests.colorize.moving import moved, texture

CPU = torch.device("cpu")
SIZES = pytest.mark.parametrize("size", [(128, 128), (64, 64), (256, 384)])


@SIZES
def test_frames_are_moved_onto_each_other(size: tuple[int, int]) -> None:
    scene = texture(1)
    frames = [scene, moved(scene, 5, -3)]
    earlier, later = F.interpolate(torch.from_numpy(np.stack(frames))[:, None], size, mode="bilinear").split(1)
    first, both = warps_of(find_links(None, [glimpse(frame) for frame in frames]), size, CPU)
    assert first is None and both is not None and both.in_one_shot
    for warp, there, here in ((both.back, earlier, later), (both.ahead, later, earlier)):
        unmoved = (there - here).abs().mean()
        difference = (F.grid_sample(there, warp.grid, padding_mode="border", align_corners=False) - here).abs()
        assert (difference * warp.trust).mean() < unmoved / 5
        assert torch.equal(warp.coarse_grid, warp.grid[:, ::4, ::4])
        assert torch.equal(warp.coarse_trust, warp.trust[..., ::4, ::4])
        assert float(warp.trust.mean()) == pytest.approx(warp.mean_trust, abs=1e-3) and 0.5 < warp.mean_trust <= 1


@SIZES
def test_a_gpus_way_gives_the_same(size: tuple[int, int]) -> None:
    frames = [glimpse(moved(texture(1), 3 * n, n)) for n in range(4)]
    links = find_links(frames[0], frames[1:])
    flows, trusts = ([getattr(link, name) for link in links] for name in ("back", "trust_back"))
    grid, trust = all_at_once(flows, trusts, size, CPU)
    warps = [both.back for both in warps_of(links, size, CPU) if both is not None]
    torch.testing.assert_close(grid, torch.cat([warp.grid for warp in warps]), atol=1e-5, rtol=0)
    torch.testing.assert_close(trust, torch.cat([warp.trust for warp in warps]), atol=1e-5, rtol=0)


def test_frames_without_motion_between_them() -> None:
    assert warps_of([None, None], (64, 64), CPU) == [None, None]
