"""Fixtures that several test packages share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from archivecolor.config import GeneratorConfig
from archivecolor.networks import Generator
from archivecolor.weights import save_generator


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small seeded generator whose colours are strong enough to be seen."""
    torch.manual_seed(7)
    generator = Generator(GeneratorConfig(widths=(8, 12, 16)))
    with torch.no_grad():
        generator.output.bias.copy_(torch.tensor([0.12, 0.2]))
        generator.decoder[-1].norm.weight.fill_(0.3)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_generator(generator, path)
    return path


@pytest.fixture
def use_tiny_weights(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the tiny weights the ones that are found when none are named."""
    monkeypatch.setenv("ARCHIVECOLOR_WEIGHTS", str(tiny_weights))
    return tiny_weights
