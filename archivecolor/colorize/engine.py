"""Batches of luma through the generator: luma to L, to the network's size, to ab."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from archivecolor import color
from archivecolor.colorize.device import choose_device, choose_dtype
from archivecolor.colorize.mattes import Rectangle
from archivecolor.config import ColorizeConfig
from archivecolor.errors import ConfigError, DeviceError
from archivecolor.networks import QuantizedGenerator, fold_generator, supports_int8
from archivecolor.weights import find_weights, load_generator, verify

log = logging.getLogger(__name__)

Frame = TypeVar("Frame")
Result = TypeVar("Result")

_DEFAULT_BATCH = {"cpu": 4}
_DEFAULT_BATCH_PIXELS = {"cpu": 6_000_000}
_GPU_WORKERS = 4
_REPEAT_MEAN, _REPEAT_MOST = 0.004, 0.03
"""Change of ``l_norm``, at the network's size, up to which a frame is a repetition: 0.2 and 1.5 of L*."""
_MOST_DEVIATION = 1.0
"""Mean |d a| and |d b| up to which 8-bit arithmetic is taken for the same colours."""
_GPU_BATCH, _GPU_BATCH_PIXELS = 16, 34_000_000
"""Enough to keep a GPU at work, and few enough that the encoder soon has the first of a film: 16 frames of 1080p."""


@dataclass(frozen=True)
class Colours:
    """What the network says of some frames.

    Attributes:
        ab: (N, 2, h, w) a and b, float32; 0 of frames that were not wanted.
        repeated: for each frame, whether it repeats an earlier one of them, and has the same colours.
    """

    ab: Tensor
    repeated: list[bool]


class Engine:
    """The folded generator on its device.

    Attributes:
        device: where it runs.
        dtype: the precision that the convolutions run in, unless `fit` chose int8.
        batch_size: frames at a time; halved, with a warning, whenever the device's memory does not hold as many.
        weights_path, weights_sha256: what it runs.
        warnings: what the user should know of how it went.
    """

    def __init__(self, config: ColorizeConfig) -> None:
        self.device = choose_device(config.device)
        self.dtype = choose_dtype(config.precision, self.device)
        if config.precision == "int8" and not supports_int8(self.device):
            raise DeviceError(f"{self.device}: has no fast 8-bit arithmetic for the network; use --precision auto")
        self.batch_size = config.batch_size or _DEFAULT_BATCH.get(self.device.type, _GPU_BATCH)
        self._batch_is_given = config.batch_size is not None
        self.render_size_px, self.fit_aspect = config.render_size_px, config.fit == "aspect"
        self.saturation = config.saturation
        self.warnings: list[str] = []
        self._halving = threading.Lock()
        self.weights_path = find_weights(config.weights)
        self.weights_sha256 = verify(self.weights_path)
        generator = fold_generator(load_generator(self.weights_path), self.dtype)
        self._multiple = generator.config.size_multiple_px
        if self.render_size_px % self._multiple:
            raise ConfigError(f"these weights take render sizes in multiples of {self._multiple} px")
        self._generator = generator.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._int8: QuantizedGenerator | None = None
        self._may_use_int8 = config.precision in ("auto", "int8") and supports_int8(self.device)

    @property
    def precision(self) -> str:
        """What the convolutions run in: ``fp32``, ``bf16`` or ``int8``."""
        return "int8" if self._int8 else {torch.float32: "fp32", torch.bfloat16: "bf16"}[self.dtype]

    @property
    def workers(self) -> int:
        """Batches to work on side by side: one a core, or, on a GPU, one computing while the CPU is at others."""
        return torch.get_num_threads() if self.device.type == "cpu" else _GPU_WORKERS

    @property
    def motion_processes(self) -> int:
        """How many processes should look for motion; 0 where the workers' threads do so themselves.

        On a GPU the workers wait for one each. On a CPU, whose cores the network keeps busy, nothing would be gained.
        """
        cores = torch.get_num_threads()
        return min(_GPU_WORKERS, max(1, cores // 2)) if self.device.type == "cuda" else 0

    @torch.inference_mode()
    def fit(self, frames: Sequence[Tensor]) -> None:
        """Go over to 8-bit arithmetic for a film, where the CPU is fast in it and the film's colours stay the same.

        ``frames`` are the `network_input` of a few of the film's; none at all goes back to what it was.
        """
        self._int8 = None
        if not self._may_use_int8 or not frames:
            return
        quantized = QuantizedGenerator(self._generator, torch.cat(list(frames)))
        deviation = quantized.deviation * color.AB_SCALE
        if deviation <= _MOST_DEVIATION:
            self._int8 = quantized
        log.info("int8 moves a and b by %.2f on average: %s", deviation, "used" if self._int8 else "not used")

    def batch_for(self, height_px: int, width_px: int) -> int:
        """Frames of this size to hold at a time: ``batch_size``, or fewer of large ones unless a number was given."""
        if self._batch_is_given:
            return self.batch_size
        pixels = _DEFAULT_BATCH_PIXELS.get(self.device.type, _GPU_BATCH_PIXELS)
        return max(1, min(self.batch_size, pixels // (height_px * width_px)))

    def chroma(self, L: Tensor, picture: Rectangle | None = None) -> Tensor:
        """The colours of a batch of frames.

        Args:
            L: (N, 1, H, W) CIE lightness 0..100, float32, on ``device``.
            picture: the part of the frame that the network is shown; all of it when None.

        Returns:
            (N, 2, h, w) a and b, float32, of ``picture`` stretched to `network_shape`.
        """
        return self.colours(self.network_input(L, picture)).ab

    def network_shape(self, height_px: int, width_px: int) -> tuple[int, int]:
        """Height and width at which the network sees a picture of this size."""
        short, multiple = self.render_size_px, self._multiple
        if not self.fit_aspect:
            return short, short
        longer, shorter = max(height_px, width_px), min(height_px, width_px)
        long = max(short, round(short * longer / shorter / multiple) * multiple)
        return (short, long) if width_px >= height_px else (long, short)

    def network_input(
        self, L: Tensor, picture: Rectangle | None = None, shape: tuple[int, int] | None = None
    ) -> Tensor:
        """``l_norm`` (N, 1, h, w), -1..1 in ``dtype``, of what `chroma` takes; ``shape`` instead of its own h, w."""
        if picture is not None:
            L = L[..., picture.top : picture.bottom, picture.left : picture.right]
        small = resize_area(L, *(shape or self.network_shape(L.shape[-2], L.shape[-1])))
        return color.normalise_l(small).to(self.dtype).contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def colours(self, l_norm: Tensor, wanted: Sequence[bool] | None = None) -> Colours:
        """The colours of the frames of a batch of `network_input`, or of those alone that are ``wanted``."""
        wanted = wanted or [True] * l_norm.shape[0]
        shown_first = _first_showings(l_norm)
        repeated = [first != number for number, first in enumerate(shown_first)]
        asked = [first for first, is_wanted in zip(shown_first, wanted, strict=True) if is_wanted]
        distinct = sorted(set(asked))
        if len(distinct) == len(wanted):
            return Colours(self._answer(l_norm), repeated)
        ab = l_norm.new_zeros((len(wanted), 2, *l_norm.shape[-2:]), dtype=torch.float32)
        if distinct:
            ab[wanted] = self._answer(l_norm[distinct])[[distinct.index(first) for first in asked]]
        return Colours(ab, repeated)

    def _answer(self, l_norm: Tensor) -> Tensor:
        return color.denormalise_ab((self._int8 or self._generator)(l_norm)) * self.saturation

    def within_memory(self, frames: Sequence[Frame], work: Callable[[Sequence[Frame]], Result]) -> list[Result]:
        """``work`` on ``frames``, ``batch_size`` at a time; halved as often as the device's memory asks for it.

        Raises:
            DeviceError: the memory does not hold a single frame.
        """
        results: list[Result] = []
        start = 0
        while start < len(frames):
            some = frames[start : start + self.batch_size]
            try:
                results.append(work(some))
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(len(some), error)
            else:
                start += len(some)
        return results

    def _halve(self, frames: int, error: Exception) -> None:
        if frames == 1:
            raise DeviceError(
                f"{self.device}: not enough memory for a single frame; use --device cpu or a smaller --render-size"
            ) from error
        with self._halving:
            if frames // 2 < self.batch_size:  # another thread may have met the same limit first
                self.batch_size = frames // 2
                self.warnings.append(f"{self.device}: out of memory, went on with batches of {self.batch_size}")
                log.warning("%s", self.warnings[-1])
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _first_showings(l_norm: Tensor) -> list[int]:
    """For each of (N, 1, H, W) the number of the first frame, up to itself, that looks the same.

    Telecine, silent film's pull-down and still titles repeat frames; all that differs in them is coding noise.
    """
    first = [0]
    # Where no neighbours are alike, which is nearly everywhere, one answer from the device does for the whole batch.
    differs = ((l_norm[1:] - l_norm[:-1]).abs().amax(dim=(1, 2, 3)) > _REPEAT_MOST).tolist()
    for number in range(1, len(l_norm)):
        if first[-1] == number - 1 and differs[number - 1]:
            first.append(number)
            continue
        change = (l_norm[number] - l_norm[first[-1]]).abs()
        same = bool((change.mean() <= _REPEAT_MEAN) & (change.amax() <= _REPEAT_MOST))
        first.append(first[-1] if same else number)
    return first


def is_out_of_memory(error: Exception) -> bool:
    """Whether ``error`` is a device's way of saying that its memory is exhausted; only CUDA has a class for it."""
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in str(error) for words in ("out of memory", "not enough memory", "can't allocate memory")
    )


def resize_area(x: Tensor, height_px: int, width_px: int) -> Tensor:
    """Each axis of (N, C, H, W) by area averaging where it shrinks and bilinearly where it grows."""
    h, w = x.shape[-2:]
    x = F.interpolate(x, size=(min(h, height_px), min(w, width_px)), mode="area")
    if x.shape[-2:] != (height_px, width_px):
        x = F.interpolate(x, size=(height_px, width_px), mode="bilinear", align_corners=False)
    return x
