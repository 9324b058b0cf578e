"""Settings as frozen dataclasses; standard library only, so that the command line can read them without torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from fractions import Fraction
from typing import Any, Literal

from archivecolor.errors import ConfigError

Norm = Literal["bn", "in", "ibn"]


@dataclass(frozen=True)
class GeneratorConfig:
    """Shape of the U-Net generator (paper IV-B).

    ``widths`` are the encoder's channels, one stride-2 convolution each; the decoder mirrors them.
    ``norm`` is ``"bn"``, ``"in"`` or ``"ibn"`` (batch norm everywhere but instance norm in the last decoder block).
    """

    norm: Norm = "ibn"
    spectral_norm: bool = True
    widths: tuple[int, ...] = (64, 128, 256, 512, 512, 512, 512)

    def __post_init__(self) -> None:
        if self.norm not in ("bn", "in", "ibn"):
            raise ConfigError(f"norm must be bn, in or ibn, not {self.norm!r}")
        if not all(isinstance(width, int) and width > 0 for width in self.widths):
            raise ConfigError(f"generator widths are positive whole numbers, not {self.widths!r}")
        if len(self.widths) < 2:
            raise ConfigError("a generator needs at least two encoder widths")

    @property
    def size_multiple_px(self) -> int:
        """Heights and widths that the network takes are multiples of this (128 for the paper's network)."""
        return int(2 ** len(self.widths))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready mapping, the inverse of `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> GeneratorConfig:
        """Rebuild from `to_dict`'s mapping; raises `ConfigError` on unknown or missing keys."""
        try:
            return cls(**{**values, "widths": tuple(values["widths"])})
        except (KeyError, TypeError) as error:
            raise ConfigError(f"not a generator configuration: {error}") from error


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Shape of the PatchGAN discriminators (paper IV-B, III-D), ``scales`` of them on the input pooled by 1, 2, 4."""

    norm: Norm = "ibn"
    spectral_norm: bool = True
    scales: int = 3
    widths: tuple[int, ...] = (64, 128, 256, 512)


@dataclass(frozen=True)
class Preset:
    """One row of the paper's Table I."""

    name: str
    table_row: str
    norm: Norm
    spectral_norm: bool
    discriminators: int

    @property
    def generator(self) -> GeneratorConfig:
        """The generator of this row."""
        return GeneratorConfig(self.norm, self.spectral_norm)

    @property
    def discriminator(self) -> DiscriminatorConfig:
        """The discriminators of this row."""
        return DiscriminatorConfig(self.norm, self.spectral_norm, self.discriminators)


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("bn", "BN (baseline)", "bn", False, 1),
        Preset("in", "IN", "in", False, 1),
        Preset("bn-sn", "BN + SN", "bn", True, 1),
        Preset("in-sn", "IN + SN", "in", True, 1),
        Preset("bn-sn-md", "BN + SN + MD", "bn", True, 3),
        Preset("ibn-sn-md", "IBN + SN + MD", "ibn", True, 3),
    )
}
DEFAULT_PRESET = "ibn-sn-md"


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a training run learns; the defaults are the paper's (IV-A, IV-B; DESIGN section 4).

    ``batch_size`` counts photographs over all processes. The length of a run is ``images`` where given, else
    ``epochs``. ``pretrain_images`` of them are a warm-up of the generator without the adversarial term.
    ``distribution_weight`` is that of `distribution_loss`, which the paper does not have. ``balance`` evens
    out the folders of the data: 0 draws every photograph equally often, 1 every folder. ``generator_widths`` and
    ``discriminator_widths`` replace the paper's channel counts, for smaller networks.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """

    preset: str = DEFAULT_PRESET
    gan_loss: Literal["bce", "lsgan"] = "bce"
    l1_weight: float = 100.0
    adversarial_weight: float = 1.0
    distribution_weight: float = 0.0
    size_px: int = 256
    batch_size: int = 16
    epochs: int = 200
    images: int | None = None
    pretrain_images: int = 0
    lr_g: float = 2e-4
    lr_d: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.999
    lr_schedule: Literal["constant", "linear"] = "constant"
    ema: float = 0.999
    augment: bool = False
    film_look: bool = False
    balance: float = 0.0
    val_fraction: float = 0.02
    seed: int = 0
    generator_widths: tuple[int, ...] | None = None
    discriminator_widths: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_type(field.name, getattr(self, field.name), field.default)
        if self.preset not in PRESETS:
            raise ConfigError(f"no preset {self.preset!r}: choose one of {', '.join(PRESETS)}")
        if self.gan_loss not in ("bce", "lsgan"):
            raise ConfigError(f"the GAN loss is bce or lsgan, not {self.gan_loss!r}")
        if self.lr_schedule not in ("constant", "linear"):
            raise ConfigError(f"the learning rate schedule is constant or linear, not {self.lr_schedule!r}")
        for name in ("batch_size", "size_px", "epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.images is not None and self.images < 1:
            raise ConfigError(f"images must be at least 1, not {self.images}")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed must be a whole number from 0 to below 2^63, not {self.seed}")
        for name in ("l1_weight", "adversarial_weight", "distribution_weight", "lr_g", "lr_d", "pretrain_images"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be a number from 0 up, not {getattr(self, name)}")
        for name in ("beta1", "beta2", "val_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must be from 0 to below 1, not {getattr(self, name)}")
        for name in ("ema", "balance"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be from 0 to 1, not {getattr(self, name)}")
        multiple = self.generator.size_multiple_px
        if self.size_px % multiple:
            raise ConfigError(f"size_px must be a multiple of {multiple} for this generator, not {self.size_px}")
        if self.size_px == multiple:  # one pixel at the bottleneck
            if self.generator.norm == "in":
                raise ConfigError(
                    f"size_px must be at least {2 * multiple} for {self.preset}: instance norm of one pixel is zero"
                )
            if self.batch_size == 1:
                raise ConfigError(
                    f"batch_size must be at least 2 at size_px {multiple}: batch norm of one value is zero"
                )
        if self.discriminator_widths is not None and len(self.discriminator_widths) != 4:
            raise ConfigError("discriminator_widths must be four numbers: the 70x70 discriminator has four layers")
        coarsest_px = self.size_px // 2 ** (self.discriminator.scales - 1)
        if coarsest_px < 24:
            raise ConfigError(f"size_px {self.size_px} is too small for {self.discriminator.scales} discriminators")

    @property
    def generator(self) -> GeneratorConfig:
        """The generator that is trained: the preset's, with ``generator_widths`` where given."""
        preset = PRESETS[self.preset].generator
        return preset if self.generator_widths is None else replace(preset, widths=self.generator_widths)

    @property
    def discriminator(self) -> DiscriminatorConfig:
        """The discriminators: the preset's, with ``discriminator_widths`` where given."""
        preset = PRESETS[self.preset].discriminator
        return preset if self.discriminator_widths is None else replace(preset, widths=self.discriminator_widths)

    @property
    def stored_px(self) -> int:
        """Side of the cached photographs: larger than ``size_px`` by a quarter where random crops are cut from them."""
        return self.size_px * 5 // 4 if self.augment else self.size_px

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready mapping, the inverse of `from_dict`."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Rebuild from `to_dict`'s mapping; raises `ConfigError` on an unknown key or a wrong value."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ConfigError(f"not a training configuration: unknown {', '.join(unknown)}")
        plain: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
        return cls(**plain)


def _check_type(name: str, value: object, default: object) -> None:
    """Hold ``value`` to the type of the field's ``default``; None marks optional fields, whole numbers or tuples."""
    if isinstance(default, bool):
        fits = isinstance(value, bool)
    elif isinstance(default, str):
        fits = isinstance(value, str)
    elif isinstance(default, float):
        fits = isinstance(value, int | float) and not isinstance(value, bool)
    elif default is None and name.endswith("_widths"):
        fits = value is None or (isinstance(value, tuple) and all(type(width) is int and width > 0 for width in value))
    else:
        fits = type(value) is int or (default is None and value is None)
    if not fits:
        raise ConfigError(f"{name}: {value!r} is not a value of the right kind")


MOST_TEMPORAL = 0.98


@dataclass(frozen=True)
class RunOptions:
    """How a training run goes about its work, which decides nothing of what is learned but for its precision.

    ``cache`` says where decoded photographs are kept, ``workers`` how many threads decode them. The rest counts
    steps, 0 turning a thing off, and checkpoints kept.
    """

    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile_networks: bool = False
    cuda_graph: bool = True
    cache: Literal["none", "disk", "ram", "device"] = "disk"
    cache_dir: str | None = None
    workers: int = 4
    log_every: int = 20
    validate_every: int = 1000
    sample_every: int = 1000
    checkpoint_every: int = 1000
    keep: int = 2


@dataclass(frozen=True)
class ColorizeConfig:
    """How a film is coloured.

    ``recombine`` is ``"lab"``, which keeps the source's CIE lightness, or ``"luma"``, which passes its luma plane
    through bit for bit and only makes chroma. ``render_size_px`` is the side of the square that the network sees, into
    which the picture is squeezed; with ``fit`` ``"aspect"`` the shorter side of an oblong about as oblong as the
    picture. ``saturation`` scales the network's a and b. ``temporal`` is how much of its neighbours' colour a frame
    takes on where motion is certain; 0 colours each frame by itself. ``shot_consistency`` keeps the colour of a shot
    level as well. With ``network_frames`` ``"all"`` the network colours every frame; with ``"fewer"`` every second one
    takes its colour from its neighbours, where their motion explains it, which needs ``temporal``; ``"auto"`` is fewer
    on a CPU, from a ``temporal`` of 0.8 on. ``chroma_upsampling`` is how the network's ab is brought to the size of the
    film's chroma.
    ``deinterlace`` makes progressive frames of interlaced ones, one (``"auto"``) or two of each (``"fields"``); where
    the luma plane goes through bit for bit, ``"auto"`` leaves them as they are. ``start_s`` and ``end_s`` cut, in
    seconds from the film's beginning. ``fps`` is the rate of an image sequence in frames a second, ``"24"``,
    ``"23.976"`` or ``"24000/1001"``.
    """

    weights: str | None = None
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    batch_size: int | None = None
    render_size_px: int = 256
    fit: Literal["square", "aspect"] = "square"
    saturation: float = 1.0
    recombine: Literal["lab", "luma"] = "lab"
    temporal: float = 0.9
    shot_consistency: bool = False
    network_frames: Literal["auto", "all", "fewer"] = "auto"
    chroma_upsampling: Literal["bilinear", "bicubic", "guided"] = "bicubic"
    deinterlace: Literal["auto", "off", "fields"] = "auto"
    start_s: float | None = None
    end_s: float | None = None
    fps: str | None = None

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise ConfigError("the batch size must be at least 1")
        if self.render_size_px < 1:
            raise ConfigError("the render size must be positive")
        if any(time_s is not None and not math.isfinite(time_s) for time_s in (self.start_s, self.end_s)):
            raise ConfigError("start and end are finite times")
        if not 0 <= self.saturation <= 4:
            raise ConfigError("the saturation lies between 0 (grey) and 4")
        if not 0 <= self.temporal <= MOST_TEMPORAL:
            raise ConfigError(f"the temporal strength lies between 0 (each frame by itself) and {MOST_TEMPORAL}")
        if self.start_s is not None and self.start_s < 0:
            raise ConfigError("the start must not be negative")
        if self.end_s is not None and self.end_s <= (self.start_s or 0.0):
            raise ConfigError("the end must come after the start")
        if self.recombine == "luma" and self.deinterlace == "fields":
            raise ConfigError("luma that is kept bit for bit cannot be deinterlaced; leave one of the two out")
        _ = self.rate

    @property
    def rate(self) -> Fraction | None:
        """``fps`` as a fraction; 23.976, 29.97 and 59.94 are meant as 24000/1001 and so on."""
        if self.fps is None:
            return None
        try:
            rate = Fraction(self.fps)
        except (ValueError, ZeroDivisionError) as error:
            raise ConfigError(f"{self.fps!r} is no frame rate such as 24, 23.976 or 24000/1001") from error
        if not 0 < rate <= 1000:
            raise ConfigError(f"a frame rate lies between 0 and 1000, not {self.fps}")
        drop = Fraction(round(rate * 1001 / 1000) * 1000, 1001)
        return drop if "." in self.fps and abs(rate - drop) < Fraction(1, 200) else rate

    @property
    def fields(self) -> Literal["auto", "off", "fields"]:
        """What becomes of interlaced pictures, ``recombine`` considered."""
        return "off" if self.recombine == "luma" else self.deinterlace


@dataclass(frozen=True)
class WorkConfig:
    """How a film's work is kept until it is whole, which decides nothing of what it looks like.

    ``work_dir`` is where work folders are made, beside each output by default; ``keep_work`` leaves them there.
    ``segment_frames`` is the most that a segment holds; from a quarter of it on it ends where a shot ends.
    ``wait_for_space_s`` is how long to wait where the disk is full.
    """

    work_dir: str | None = None
    keep_work: bool = False
    segment_frames: int = 960
    wait_for_space_s: float = 12 * 3600.0

    def __post_init__(self) -> None:
        if self.segment_frames < 4:
            raise ConfigError("a segment must hold at least 4 frames")
        if not self.wait_for_space_s >= 0:
            raise ConfigError("the time to wait for space must not be negative")
