"""The generator in 8-bit integers, for CPUs that multiply them faster than anything else.

Weights are int8 with a scale a row, activations uint8 with a step a channel. The steps come from a run of the float
generator over a few frames of the film at hand (static post-training quantisation; the steps between a layer's own and
each channel's are those of SmoothQuant, Xiao et al. 2023, with alpha 1/2; steps are folded into the kernels on both
sides). Convolutions are oneDNN's; what lies between them is done in units of the next step, so that quantising is only
rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from archivecolor.networks.blocks import InstanceNorm2d, sum_2x2
from archivecolor.networks.folding import FoldedConv2d, FoldedGenerator, instance_norm
from archivecolor.networks.generator import LEAK

_ZERO = 42
"""The code of 0: LeakyReLU leaves about a fifth of the range below it, and padding must have one code."""
_TOP = 255 - _ZERO
_INPUT_ZERO, _INPUT_STEP = 128, 1 / 127
_KEPT = 0.9999
"""Part of the activations that the codes reach to; clipping the last few leaves finer steps for all."""
_FRAMES_AT_A_TIME = 4
_MOST_SAMPLES = 400_000
"""Outputs of a layer that are looked at, of so many frames."""


def supports_int8(device: torch.device) -> bool:
    """Whether the device is a CPU with 8-bit dot products (VNNI), and this torch has the operators for it."""
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    has_vnni = any(capabilities.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8"))
    return has_vnni and hasattr(_operators(), "qconv2d_pointwise")


class QuantizedGenerator:
    """Nearly the same function as the `FoldedGenerator` that it is made from.

    ``__call__`` takes ``l_norm`` (N, 1, H, W), any float dtype, on the CPU, and returns ``ab_norm`` (N, 2, H, W),
    float32.

    Attributes:
        deviation: mean absolute difference from the float generator's ``ab_norm`` over the frames it was fitted to.
    """

    def __init__(self, folded: FoldedGenerator, l_norm: Tensor) -> None:
        """Fit the steps to the activations that ``l_norm`` (N, 1, H, W), frames like those to come, causes."""
        self._dtype = l_norm.dtype
        frames = torch.split(l_norm, _FRAMES_AT_A_TIME)
        seen, outputs = zip(*(_look(folded, some) for some in frames), strict=True)
        of_layers = [_steps(of_layer) for of_layer in zip(*seen, strict=True)]
        down_steps, up_steps = of_layers[: len(folded.encoder)], of_layers[len(folded.encoder) :]

        in_steps, zero = torch.tensor([_INPUT_STEP]), _INPUT_ZERO
        self._encoder = []
        for conv, steps in zip(_convolutions(folded.encoder), down_steps, strict=True):
            self._encoder.append(_QuantizedConv2d(conv, in_steps, zero, steps, self._dtype))
            in_steps, zero = steps, _ZERO
        self._decoder = []
        for conv, steps, skip_steps in zip(_convolutions(folded.decoder), up_steps, down_steps[-2::-1], strict=True):
            self._decoder.append(_QuantizedConv2d(conv, in_steps, zero, steps, self._dtype))
            in_steps = torch.cat([steps, skip_steps])
        self._output = _QuantizedConv2d(folded.output, in_steps, zero, torch.ones(2), torch.float32)

        # Roundings do not cancel out entirely: what is left of them, a tint over the whole picture, is taken away.
        self._tint = torch.zeros(2, 1, 1)
        difference = torch.cat([self(some) for some in frames]) - torch.cat(outputs)
        self._tint = difference.mean(dim=(0, 2, 3)).view(2, 1, 1)
        self.deviation = float((difference - self._tint).abs().mean())

    @torch.inference_mode()
    def __call__(self, l_norm: Tensor) -> Tensor:
        x = _codes(l_norm.float() / _INPUT_STEP, _INPUT_ZERO)
        skips = []
        for down in self._encoder:
            x = _codes(F.leaky_relu_(down(x), LEAK), _ZERO)
            skips.append(x)
        for up, skip in zip(self._decoder, skips[-2::-1], strict=True):
            x = torch.cat([_codes(up(x).relu_(), _ZERO), skip], dim=1)
        return self._output(x).tanh_().sub_(self._tint)


class _QuantizedConv2d:
    """Codes in; out, in units of ``out_steps``, what the convolution and its instance norm give."""

    def __init__(
        self, conv: FoldedConv2d, in_steps: Tensor, in_zero: int, out_steps: Tensor, out_dtype: torch.dtype
    ) -> None:
        """``in_steps`` (in,) and ``out_steps`` (out,): what a code, and a unit of the output, are worth."""
        self.is_up = conv.is_up
        kernel, bias = conv.plain_kernel().float() * in_steps.view(1, -1, 1, 1), conv.bias.float()
        self._norm: tuple[Tensor, Tensor, float] | None = None
        if isinstance(conv.norm, InstanceNorm2d):  # takes the scale away again; its own is what counts
            self._norm = (conv.norm.weight.float() / out_steps, conv.norm.bias.float() / out_steps, conv.norm.eps)
        else:
            kernel, bias = kernel / out_steps.view(-1, 1, 1, 1), bias / out_steps
        if self.is_up:
            kernel, bias = phase_kernel(kernel), (bias / 4).repeat(4)
        scales = (kernel.abs().amax(dim=(1, 2, 3)) / 127).clamp_min(1e-12)
        codes = (kernel / scales.view(-1, 1, 1, 1)).round_().to(torch.int8)
        stride = 1 if self.is_up else 2
        geometry = ([stride, stride], [1, 1], [1, 1], 1)  # stride, padding, dilation, groups
        weight = _operators().qconv_prepack(codes, scales, 1.0, in_zero, *geometry, None)
        zeros = torch.zeros(len(scales), dtype=torch.int32)
        self._source = (1.0, in_zero, weight, scales, zeros, bias.contiguous(), *geometry)
        self._result: tuple[Any, ...] = (1.0, 0, out_dtype, "none", [], "")

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = _operators().qconv2d_pointwise(x, *self._source, *self._result)
        if self.is_up:
            y = sum_phases(y)
        return y if self._norm is None else instance_norm(y, *self._norm)


def _operators() -> Any:
    return torch.ops.onednn


def _convolutions(modules: Iterable[torch.nn.Module]) -> list[FoldedConv2d]:
    return [module for module in modules if isinstance(module, FoldedConv2d)]


class _Seen(NamedTuple):
    """Of a layer's outputs (N, C, H, W): each channel's range, (C,), and an even sample, (C, M); float32."""

    lowest: Tensor
    highest: Tensor
    sample: Tensor


def _look(folded: FoldedGenerator, l_norm: Tensor) -> tuple[list[_Seen], Tensor]:
    """What each block of ``folded`` puts out for these frames, encoder first; and its own output."""
    downs, ups = folded.activations(l_norm)
    seen = []
    for x in (*downs, *ups):
        values = x.transpose(0, 1).flatten(1)
        sample = values[:, :: max(1, x.numel() // _MOST_SAMPLES)].float()
        seen.append(_Seen(values.amin(dim=1).float(), values.amax(dim=1).float(), sample))
    return seen, folded.finish(downs, ups)


def _steps(seen: Sequence[_Seen]) -> Tensor:
    """What a code must be worth in each channel of a layer, float32 (C,); ``seen`` is the same layer's every time."""
    x = torch.cat([one.sample for one in seen], dim=1)
    tail = max(1, round(x.numel() * (1 - _KEPT)))
    whole = torch.maximum(x.flatten().topk(tail).values[-1] / _TOP, (-x).flatten().topk(tail).values[-1] / _ZERO)
    highest = torch.stack([one.highest for one in seen]).amax(dim=0)
    lowest = torch.stack([one.lowest for one in seen]).amin(dim=0)
    own = torch.maximum(highest / _TOP, -lowest / _ZERO)
    return (torch.minimum(own, whole).clamp_min(whole / 1000) * whole).sqrt().clamp_min(1e-6)


def _codes(x: Tensor, zero: int) -> Tensor:
    """Quantise ``x``, given in units of its steps; overwrites it."""
    return x.add_(zero).round_().clamp_(0, 255).to(torch.uint8)


def phase_kernel(kernel: Tensor) -> Tensor:
    """(out, in, 4, 4) of an up-convolution to (4 * out, in, 2, 2): its terms at even and odd rows and columns.

    Both parities of a term draw on the same two input samples, so one convolution with padding 1 makes all four.
    """
    rows = torch.stack([kernel[:, :, 1::2], kernel[:, :, 0::2]])  # (row phase, out, in, 2, 4)
    phases = torch.stack([rows[..., 1::2], rows[..., 0::2]], dim=1)  # (row phase, column phase, out, in, 2, 2)
    return phases.flatten(0, 2)


def sum_phases(terms: Tensor) -> Tensor:
    """(N, 4 * out, H + 1, W + 1) terms of `phase_kernel`, channels last, to the (N, out, 2H, 2W) sums of each 2x2."""
    n, channels, h, w = terms.shape
    out = channels // 4
    if out < 16:  # too few in a row to be added fast where they lie
        terms = terms.reshape(n, 4, out, h, w).transpose(1, 2).reshape(n, 4 * out, h, w)
        return sum_2x2(F.pixel_shuffle(terms, 2)[:, :, 1:, 1:])
    terms = terms.permute(0, 2, 3, 1).view(n, h, w, 2, 2, out)
    rows = terms.new_empty(n, h - 1, 2, w, 2, out)
    torch.add(terms[:, 1:, :, 0], terms[:, :-1, :, 1], out=rows[:, :, 0])
    torch.add(terms[:, 1:, :, 0], terms[:, 1:, :, 1], out=rows[:, :, 1])
    sums = terms.new_empty(n, h - 1, 2, w - 1, 2, out)
    torch.add(rows[:, :, :, 1:, 0], rows[:, :, :, :-1, 1], out=sums[:, :, :, :, 0])
    torch.add(rows[:, :, :, 1:, 0], rows[:, :, :, 1:, 1], out=sums[:, :, :, :, 1])
    return sums.view(n, 2 * (h - 1), 2 * (w - 1), out).permute(0, 3, 1, 2)
