"""The paper's networks (IV-B, Fig. 2), and the generator folded and quantised for inference."""

from archivecolor.networks.discriminator import MultiScaleDiscriminator, PatchDiscriminator
from archivecolor.networks.folding import FoldedGenerator, fold_generator
from archivecolor.networks.generator import Generator
from archivecolor.networks.quantized import QuantizedGenerator, supports_int8

__all__ = [
    "FoldedGenerator",
    "Generator",
    "MultiScaleDiscriminator",
    "PatchDiscriminator",
    "QuantizedGenerator",
    "fold_generator",
    "supports_int8",
]
