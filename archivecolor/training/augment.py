"""From decoded photographs to the network's input and target, in batches on the device: Lab, crops, film look."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from archivecolor import color
from archivecolor.training.sampling import Draws

# Quantisation of luma at quality 50 (ITU-T T.81, table K.1).
_JPEG_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


def random_crops(rgb: Tensor, size_px: int, draws: Draws, smallest: float = 0.7) -> Tensor:
    """A random rectangle of each (N, 3, S, S) image, stretched to (N, 3, size_px, size_px), flipped half the time.

    Height and width are drawn independently from ``smallest``..1 of the image's, since film frames are squashed too.
    """
    n = rgb.shape[0]
    scale = smallest + (1 - smallest) * draws.uniform(2)
    shift = (2 * draws.uniform(2) - 1) * (1 - scale)
    flip = torch.where(draws.uniform() < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3, device=rgb.device)
    theta[:, 0, 0], theta[:, 1, 1] = scale[:, 0] * flip, scale[:, 1]
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, [n, 3, size_px, size_px], align_corners=False)
    return F.grid_sample(rgb, grid, mode="bilinear", padding_mode="border", align_corners=False)


def jpeg(y: Tensor, step: Tensor) -> Tensor:
    """What JPEG makes of a grey image: its 8x8 DCT coefficients rounded to multiples (ITU-T T.81, A.3).

    Args:
        y: (N, 1, H, W), 0..1.
        step: (N, 1, 1, 1), what to multiply the quantisation table of quality 50 by.
    """
    k = torch.arange(8, device=y.device, dtype=torch.float32)
    dct = torch.cos((2 * k[None] + 1) * k[:, None] * math.pi / 16) / 2
    dct[0] /= math.sqrt(2)
    n, _, h, w = y.shape
    padded = F.pad(y, (0, -w % 8, 0, -h % 8), mode="replicate") * 255 - 128
    rows, columns = padded.shape[2] // 8, padded.shape[3] // 8
    blocks = padded.view(n, rows, 8, columns, 8).transpose(2, 3)
    table = torch.tensor(_JPEG_LUMA, device=y.device) * step.view(n, 1, 1, 1, 1)
    blocks = dct.T @ (((dct @ blocks @ dct.T) / table).round() * table) @ dct
    decoded = blocks.transpose(2, 3).reshape(n, 1, 8 * rows, 8 * columns)[:, :, :h, :w]
    return ((decoded + 128) / 255).clamp(0, 1)


def film_look(rgb: Tensor, draws: Draws) -> Tensor:
    """What an old black-and-white film would have made of (N, 3, H, W) R'G'B': its lightness, (N, 1, H, W), 0..100.

    Every defect is drawn afresh for each image and only some of them strike it: the emulsion's response to colour
    (from orthochromatic, blind to red, to panchromatic), contrast and gamma, lifted blacks, softness, vignette,
    grain, scratches and dust, and JPEG for the digital copy.
    """
    h, w = rgb.shape[2:]
    device = rgb.device

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * draws.uniform(1, 1, 1)

    def strikes(probability: float) -> Tensor:
        return (draws.uniform(1, 1, 1) < probability).float()

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

    y = y + strikes(0.6) * uniform(0.005, 0.05) * draws.normal(1, h, w)

    # Scratches: a few bright or dark columns; dust: a few specks, grown from single pixels.
    tone = torch.where(strikes(0.5) > 0, 1.0, -1.0) * uniform(0.1, 0.5)
    columns = draws.uniform(1, 1, w) < 1.5 / w
    y = y + strikes(0.2) * tone * columns
    specks = draws.uniform(1, h, w) < 6.0 / (h * w)
    dust = F.max_pool2d(specks.float(), 3, stride=1, padding=1)
    y = (y + strikes(0.2) * tone * dust).clamp(0, 1)

    y = torch.where(strikes(0.3) > 0, jpeg(y, uniform(0.2, 1.5)), y)
    return color.lightness(color.srgb_to_linear(y))


def make_batch(
    photos: Tensor,
    size_px: int,
    *,
    augment: bool = False,
    film: bool = False,
    draws: Draws | None = None,
) -> tuple[Tensor, Tensor]:
    """Network input and target from decoded photographs.

    Args:
        photos: (N, S, S, 3) uint8 RGB on the device.
        augment: draw a random crop and flip of each; otherwise the whole is resized where S differs from ``size_px``.
        film: give the input, never the target, the look of old film.
        draws: source of randomness on the same device; needed where ``augment`` or ``film`` is on.

    Returns:
        ``l_norm`` (N, 1, size_px, size_px) and ``ab_norm`` (N, 2, size_px, size_px), float32, channels last.
    """
    rgb = photos.permute(0, 3, 1, 2).float() / 255
    if (augment or film) and draws is None:
        raise ValueError("augmenting and the film look need random draws")
    if augment and draws is not None:
        rgb = random_crops(rgb, size_px, draws)
    elif rgb.shape[-1] != size_px:
        rgb = F.interpolate(rgb, size=(size_px, size_px), mode="bilinear", antialias=True).clamp(0, 1)
    lab = color.rgb_to_lab(rgb)
    L, ab = lab[:, :1], lab[:, 1:]
    if film and draws is not None:
        L = film_look(rgb, draws)
    layout = torch.channels_last
    return (
        color.normalise_l(L).contiguous(memory_format=layout),
        color.normalise_ab(ab).contiguous(memory_format=layout),
    )
