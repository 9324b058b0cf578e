"""Settings as frozen dataclasses; standard library only, so that the command line can read them without torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
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
    """Shape of the PatchGAN discriminators (paper IV-B and III-D): ``scales`` of them, on the input pooled by 1, 2, 4."""

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
    ``epochs``. ``pretrain_images`` of them are a warm-up of the generator on the L1 term alone. ``balance`` evens
    out the folders of the data: 0 draws every photograph equally often, 1 every folder.
    """

    preset: str = DEFAULT_PRESET
    gan_loss: Literal["bce", "lsgan"] = "bce"
    l1_weight: float = 100.0
    adversarial_weight: float = 1.0
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

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ConfigError(f"no preset {self.preset!r}: choose one of {', '.join(PRESETS)}")
        if self.gan_loss not in ("bce", "lsgan"):
            raise ConfigError(f"the GAN loss is bce or lsgan, not {self.gan_loss!r}")
        if self.lr_schedule not in ("constant", "linear"):
            raise ConfigError(f"the learning rate schedule is constant or linear, not {self.lr_schedule!r}")
        if self.batch_size < 1 or self.size_px < 1:
            raise ConfigError("batch size and size must be at least 1")
        for name in ("ema", "balance", "val_fraction", "beta1", "beta2"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} lies between 0 and 1")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready mapping, the inverse of `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Rebuild from `to_dict`'s mapping; raises `ConfigError` on an unknown key."""
        try:
            return cls(**values)
        except TypeError as error:
            raise ConfigError(f"not a training configuration: {error}") from error
