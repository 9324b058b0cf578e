"""Generator weights on disk: found, verified, loaded, exported.

The file is a safetensors file, so that loading never executes code. Convolutions are int8 with a float32 scale an
output channel, everything else float32; the generator's configuration is in the file's metadata.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from archivecolor.config import DEFAULT_PRESET, GeneratorConfig
from archivecolor.errors import ConfigError, WeightsError
from archivecolor.networks import Generator

ENVIRONMENT_VARIABLE = "ARCHIVECOLOR_WEIGHTS"
MANIFEST = "manifest.json"
FORMAT = "archivecolor-generator-1"
_SCALE_SUFFIX = ".int8_scale"
_QUANTISE_FROM_ELEMENTS = 65536  # the first and the last convolution are small and stay exact


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_weights(name_or_path: str | Path | None = None) -> Path:
    """Where the weights are: a path, or a name looked up in $ARCHIVECOLOR_WEIGHTS, the package and the checkout.

    Args:
        name_or_path: a ``.safetensors`` file, or a name such as ``ibn-sn-md``; the default preset when None.
            $ARCHIVECOLOR_WEIGHTS is a file, which then is the default, or a folder in which names are looked up.

    Raises:
        WeightsError: not found; the message lists every place that was looked in.
    """
    environment = os.environ.get(ENVIRONMENT_VARIABLE)
    looked_in: list[Path] = []
    if name_or_path is not None and (Path(name_or_path).suffix or len(Path(name_or_path).parts) > 1):
        looked_in.append(Path(name_or_path))
    else:
        name = f"{name_or_path or DEFAULT_PRESET}.safetensors"
        if environment:
            given = Path(environment)
            if not given.exists():
                raise WeightsError(
                    f"{given}: no such file or folder, though ${ENVIRONMENT_VARIABLE} names it; unset or mend it"
                )
            if given.is_dir():
                looked_in.append(given / name)
            elif name_or_path is None or given.name == name:
                looked_in.append(given)
        package = Path(__file__).parent
        looked_in += [package / "data" / name, package.parent / "weights" / name]
    for path in looked_in:
        if path.is_file():
            return path
    places = "; ".join(str(path) for path in looked_in)
    named = "" if name_or_path is None else f" {str(name_or_path)!r}"
    raise WeightsError(
        f"no generator weights{named} found (looked in: {places}); give a .safetensors file with --weights or "
        f"${ENVIRONMENT_VARIABLE}"
    )


def verify(path: Path) -> str:
    """SHA-256 of ``path``, checked against the manifest beside it where that names the file.

    Raises:
        WeightsError: the file is not the one that the manifest describes, or the manifest cannot be read.
    """
    digest = sha256_of(path)
    entry = _read_manifest(path.parent / MANIFEST).get(path.name)
    if isinstance(entry, dict) and entry.get("sha256", digest) != digest:
        raise WeightsError(f"{path}: damaged or replaced: its SHA-256 is not the manifest's; fetch it again")
    return digest


def load_generator(path: Path) -> Generator:
    """The generator in ``path``, float32 on the CPU, in evaluation mode, ready to be folded or trained further.

    Raises:
        WeightsError: not a safetensors file, not a generator of ours, or its tensors do not fit its configuration.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error})") from error
    if metadata.get("format") != FORMAT:
        raise WeightsError(f"{path}: not archivecolor generator weights (format {metadata.get('format')!r})")
    try:
        with torch.device("meta"):  # nothing is initialised that the file replaces
            generator = Generator(GeneratorConfig.from_dict(json.loads(metadata["config"])))
        generator.load_state_dict(_dequantise(stored), assign=True)
        if not all(bool(tensor.isfinite().all()) for tensor in generator.state_dict().values()):
            raise ValueError("some are not finite numbers")
    except (ConfigError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{path}: its tensors do not fit its configuration ({reason})") from error
    return generator.eval()


def read_metadata(path: Path) -> dict[str, str]:
    """The text metadata of a weights file: configuration, and what `save_generator` was given."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error})") from error


def save_generator(generator: Generator, path: Path, metadata: Mapping[str, str] | None = None) -> str:
    """Write ``generator`` in the shipping format and enter it in the manifest beside it.

    Args:
        metadata: text to keep with the weights (what they were trained on, for how long).

    Returns:
        The file's SHA-256.

    Raises:
        WeightsError: it cannot be written, or the manifest that is there cannot be read.
    """
    tensors = _quantise({name: tensor.detach().cpu() for name, tensor in generator.state_dict().items()})
    header = {**(metadata or {}), "format": FORMAT, "config": json.dumps(generator.config.to_dict())}
    manifest = path.parent / MANIFEST
    entries = _read_manifest(manifest)
    partials = [file.with_name(file.name + ".partial") for file in (path, manifest)]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partials[0], metadata=header)
        digest = sha256_of(partials[0])
        entries[path.name] = {"sha256": digest, "bytes": partials[0].stat().st_size}
        partials[1].write_text(json.dumps(entries, indent=2, sort_keys=True) + "\n")
        partials[0].chmod(partials[1].stat().st_mode & 0o777)  # safetensors makes files that nobody else may read
        partials[0].replace(path)
        partials[1].replace(manifest)
    except (OSError, SafetensorError) as error:
        for partial in partials:
            with contextlib.suppress(OSError):
                partial.unlink()
        raise WeightsError(f"{path}: cannot be written ({error})") from error
    return digest


def _read_manifest(manifest: Path) -> dict[str, Any]:
    """What ``manifest`` says of each file; nothing where it is not there."""
    if not manifest.is_file():
        return {}
    try:
        entries = json.loads(manifest.read_text())
        if not isinstance(entries, dict):
            raise ValueError("not a table of files")
    except (OSError, ValueError) as error:
        raise WeightsError(f"{manifest}: not a readable manifest ({error})") from error
    return entries


def _quantise(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rounded up or down with the probability that keeps the mean: weights that were int8 before and have moved by less
    than half a step since, in a short training, would else go back to where they were."""
    stored: dict[str, Tensor] = {}
    random = torch.Generator().manual_seed(0)
    for name, tensor in state.items():
        if tensor.ndim == 4 and tensor.numel() >= _QUANTISE_FROM_ELEMENTS:
            scale = tensor.float().abs().amax(dim=(1, 2, 3)).clamp_min(1e-12) / 127
            steps = tensor.float() / scale.view(-1, 1, 1, 1)
            codes = (steps + torch.rand(steps.shape, generator=random).clamp(1e-3, 1 - 1e-3)).floor()
            stored[name] = codes.clamp(-127, 127).to(torch.int8).contiguous()
            stored[name + _SCALE_SUFFIX] = scale
        else:
            stored[name] = tensor.contiguous()
    return stored


def _dequantise(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if name.endswith(_SCALE_SUFFIX):
            continue
        if tensor.dtype == torch.int8:
            state[name] = tensor.float() * stored[name + _SCALE_SUFFIX].view(-1, 1, 1, 1)
        else:
            state[name] = tensor.float() if tensor.is_floating_point() else tensor
    return state
