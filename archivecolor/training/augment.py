"""From decoded photographs to the network's input and target, in batches on the device: Lab, crops, film look."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from archivecolor import color


def random_crops(rgb: Tensor, size_px: int, generator: torch.Generator, smallest: float = 0.7) -> Tensor:
    """A random rectangle of each (N, 3, S, S) image, stretched to (N, 3, size_px, size_px), flipped half the time.

    Height and width are drawn independently from ``smallest``..1 of the image's, since film frames are squashed too.
    """
    n, device = rgb.shape[0], rgb.device
    scale = smallest + (1 - smallest) * torch.rand(n, 2, generator=generator, device=device)
    shift = (2 * torch.rand(n, 2, generator=generator, device=device) - 1) * (1 - scale)
    flip = torch.where(torch.rand(n, generator=generator, device=device) < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 1, 1] = scale[:, 0] * flip, scale[:, 1]
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, [n, 3, size_px, size_px], align_corners=False)
    return F.grid_sample(rgb, grid, mode="bilinear", padding_mode="border", align_corners=False)


def film_look(rgb: Tensor, generator: torch.Generator) -> Tensor:
    """What an old black-and-white film would have made of (N, 3, H, W) R'G'B': its lightness, (N, 1, H, W), 0..100.

    Every defect is drawn afresh for each image and only some of them strike it: the emulsion's response to colour
    (from orthochromatic, blind to red, to panchromatic), contrast and gamma, lifted blacks, softness, vignette,
    grain, scratches and dust.
    """
    n, _, h, w = rgb.shape
    device = rgb.device

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, 1, 1, 1, generator=generator, device=device)

    def strikes(probability: float) -> Tensor:
        return (torch.rand(n, 1, 1, 1, generator=generator, device=device) < probability).float()

    # Emulsion: a share of red, the rest between green and blue; plain luma for the images that it does not strike.
    red, split = uniform(0.0, 0.5), uniform(0.45, 0.9)
    response = torch.cat([red, (1 - red) * split, (1 - red) * (1 - split)], dim=1)
    plain = rgb.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    struck = strikes(0.6)
    y = (rgb * (struck * response + (1 - struck) * plain)).sum(1, keepdim=True)

    y = y.clamp(0, 1) ** torch.exp(strikes(0.6) * uniform(-0.4, 0.4))
    gain = 1 + strikes(0.4) * uniform(-0.25, 0.35)
    y = (y - 0.5) * gain + 0.5
    y = y * (1 - (lift := strikes(0.4) * uniform(0.0, 0.15))) + lift

    softness = strikes(0.5) * uniform(0.2, 1.0)
    blurred = F.avg_pool2d(F.pad(y, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    blurred = F.avg_pool2d(F.pad(blurred, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    y = torch.lerp(y, blurred, softness)

    yy = torch.linspace(-1, 1, h, device=device).view(1, 1, h, 1)
    xx = torch.linspace(-1, 1, w, device=device).view(1, 1, 1, w)
    y = y * (1 - strikes(0.3) * uniform(0.05, 0.35) * (xx * xx + yy * yy) / 2)

    noise = torch.randn(n, 1, h, w, generator=generator, device=device)
    y = y + strikes(0.6) * uniform(0.005, 0.05) * noise

    # Scratches: a few bright or dark columns; dust: a few specks, grown from a coarse grid.
    tone = torch.where(strikes(0.5) > 0, 1.0, -1.0) * uniform(0.1, 0.5)
    columns = torch.rand(n, 1, 1, w, generator=generator, device=device) < 1.5 / w
    y = y + strikes(0.2) * tone * columns
    specks = torch.rand(n, 1, h, w, generator=generator, device=device) < 6.0 / (h * w)
    dust = F.max_pool2d(specks.float(), 3, stride=1, padding=1)
    y = y + strikes(0.2) * tone * dust

    return color.lightness(color.srgb_to_linear(y.clamp(0, 1)))


def make_batch(
    photos: Tensor,
    size_px: int,
    *,
    augment: bool = False,
    film: bool = False,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Network input and target from decoded photographs.

    Args:
        photos: (N, S, S, 3) uint8 RGB on the device.
        augment: draw a random crop and flip of each; otherwise the whole is resized where S differs from ``size_px``.
        film: give the input, never the target, the look of old film.
        generator: source of randomness on the same device; needed where ``augment`` or ``film`` is on.

    Returns:
        ``l_norm`` (N, 1, size_px, size_px) and ``ab_norm`` (N, 2, size_px, size_px), float32.
    """
    rgb = photos.permute(0, 3, 1, 2).float() / 255
    if augment:
        if generator is None:
            raise ValueError("augmenting needs a generator")
        rgb = random_crops(rgb, size_px, generator)
    elif rgb.shape[-1] != size_px:
        rgb = F.interpolate(rgb, size=(size_px, size_px), mode="bilinear", antialias=True).clamp(0, 1)
    lab = color.rgb_to_lab(rgb)
    L, ab = lab[:, :1], lab[:, 1:]
    if film:
        if generator is None:
            raise ValueError("the film look needs a generator")
        L = film_look(rgb, generator)
    return color.normalise_l(L), color.normalise_ab(ab)
