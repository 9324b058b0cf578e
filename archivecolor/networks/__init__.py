"""The paper's networks (IV-B, Fig. 2): generator, discriminators, and the generator folded for inference."""

from archivecolor.networks.discriminator import MultiScaleDiscriminator, PatchDiscriminator
from archivecolor.networks.folding import FoldedGenerator, fold_generator
from archivecolor.networks.generator import Generator

__all__ = ["FoldedGenerator", "Generator", "MultiScaleDiscriminator", "PatchDiscriminator", "fold_generator"]
