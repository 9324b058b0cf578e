"""The weights file: what int8 costs, what is refused, and where it is looked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import archivecolor.weights as weights
from archivecolor.config import PRESETS, GeneratorConfig
from archivecolor.errors import WeightsError
from archivecolor.networks import Generator

CONFIG = GeneratorConfig(widths=(16, 64, 80))  # the widest convolutions are large enough to be quantised


@pytest.fixture
def generator() -> Generator:
    torch.manual_seed(0)
    return Generator(CONFIG).eval()


@pytest.fixture
def saved(generator: Generator, tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    weights.save_generator(generator, path, {"trained on": "nothing"})
    return path


def test_round_trip_is_within_a_step_of_int8(generator: Generator, saved: Path) -> None:
    loaded = weights.load_generator(saved)
    assert loaded.config == CONFIG and not loaded.training
    quantised = 0
    for name, value in generator.state_dict().items():
        got = loaded.state_dict()[name]
        if value.ndim == 4 and value.numel() >= 65536:
            step = value.abs().amax(dim=(1, 2, 3), keepdim=True) / 127
            assert torch.all((got - value).abs() <= step * 1.0001)
            assert not torch.equal(got, value)
            quantised += 1
        else:
            assert torch.equal(got, value)
    assert quantised == 2
    stored = load_file(saved)
    assert sum(t.dtype == torch.int8 for t in stored.values()) == quantised
    assert saved.stat().st_size < 0.45 * sum(4 * p.numel() for p in generator.parameters())


def test_int8_weights_keep_what_little_they_have_learnt_since(
    generator: Generator, saved: Path, tmp_path: Path
) -> None:
    """A short training moves them by less than the step of int8, which rounding to the nearest would undo."""
    begun = weights.load_generator(saved)
    weights.save_generator(begun, tmp_path / "again.safetensors")
    again = weights.load_generator(tmp_path / "again.safetensors")
    weight = begun.encoder[2].conv.weight
    assert torch.equal(again.encoder[2].conv.weight, weight)
    step = weight.detach().abs().amax(dim=(1, 2, 3), keepdim=True) / 127
    inner = (weight.detach() / step).abs() < 126  # not the largest of a channel, which set its scale
    with torch.no_grad():
        weight.add_(torch.where(inner, 0.2 * step, 0))
    weights.save_generator(begun, tmp_path / "moved.safetensors")
    moved = weights.load_generator(tmp_path / "moved.safetensors").encoder[2].conv.weight.detach()
    assert ((moved - again.encoder[2].conv.weight.detach()) / step)[inner].mean() == pytest.approx(0.2, abs=0.02)


def test_int8_hardly_moves_the_output(generator: Generator, saved: Path) -> None:
    x = torch.rand(2, 1, 32, 32) * 2 - 1
    with torch.no_grad():
        exact, loaded = generator(x), weights.load_generator(saved)(x)
    assert (exact - loaded).abs().mean() < 0.02 * exact.abs().mean()


def test_zero_channels_survive(tmp_path: Path, generator: Generator) -> None:
    with torch.no_grad():
        generator.encoder[2].conv.weight[3] = 0
    weights.save_generator(generator, tmp_path / "w.safetensors")
    loaded = weights.load_generator(tmp_path / "w.safetensors")
    assert torch.all(loaded.encoder[2].conv.weight[3] == 0)


def test_metadata_and_manifest(saved: Path) -> None:
    assert saved.stat().st_mode == (saved.parent / "manifest.json").stat().st_mode
    assert weights.read_metadata(saved)["trained on"] == "nothing"
    entry = json.loads((saved.parent / "manifest.json").read_text())[saved.name]
    assert entry == {"sha256": weights.sha256_of(saved), "bytes": saved.stat().st_size}
    assert weights.verify(saved) == entry["sha256"]
    assert not list(saved.parent.glob("*.partial"))


def test_weights_that_cannot_be_written_are_one_error(
    saved: Path, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()

    def full(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(weights, "save_file", full)
    with pytest.raises(WeightsError, match=r"small\.safetensors: cannot be written \(.*No space left"):
        weights.save_generator(generator, saved)
    assert saved.read_bytes() == before
    assert sorted(path.name for path in saved.parent.iterdir()) == ["manifest.json", "small.safetensors"]
    with pytest.raises(WeightsError, match="cannot be written"):
        weights.save_generator(generator, saved / "below_a_file.safetensors")


def test_a_manifest_that_cannot_be_read_is_not_replaced(saved: Path, generator: Generator) -> None:
    (saved.parent / "manifest.json").write_text('{"a":')
    with pytest.raises(WeightsError, match=r"manifest\.json: not a readable manifest"):
        weights.save_generator(generator, saved.parent / "other.safetensors")
    assert not (saved.parent / "other.safetensors").exists()


def test_manifest_keeps_other_entries(saved: Path, generator: Generator) -> None:
    weights.save_generator(generator, saved.with_name("other.safetensors"))
    assert set(json.loads((saved.parent / "manifest.json").read_text())) == {"small.safetensors", "other.safetensors"}


def test_a_changed_file_is_noticed(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[-1] ^= 1
    saved.write_bytes(content)
    with pytest.raises(WeightsError, match=r"small\.safetensors.*SHA-256"):
        weights.verify(saved)


def test_an_unlisted_file_verifies_and_a_broken_manifest_does_not(saved: Path) -> None:
    manifest = saved.parent / "manifest.json"
    manifest.write_text("{}")
    assert weights.verify(saved) == weights.sha256_of(saved)
    manifest.write_text("not json")
    with pytest.raises(WeightsError, match=r"manifest\.json"):
        weights.verify(saved)


def test_a_truncated_file_is_refused(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"small\.safetensors: not a readable safetensors file"):
        weights.load_generator(saved)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a pickle in a zip", b"\x00" * 64])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        weights.load_generator(path)
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        weights.read_metadata(path)


def test_somebody_elses_safetensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "llm.safetensors"
    save_file({"wte": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match="not archivecolor generator weights"):
        weights.load_generator(path)


@pytest.mark.parametrize("change", ["missing tensor", "other widths", "no config", "nonsense config"])
def test_tensors_that_do_not_fit_are_refused(saved: Path, change: str) -> None:
    tensors, metadata = load_file(saved), weights.read_metadata(saved)
    if change == "missing tensor":
        del tensors["output.bias"]
    elif change == "other widths":
        metadata["config"] = json.dumps(GeneratorConfig(widths=(16, 64, 64)).to_dict())
    elif change == "no config":
        del metadata["config"]
    else:
        metadata["config"] = json.dumps({"norm": "ibn", "widths": 7})
    save_file(tensors, saved, metadata)
    with pytest.raises(WeightsError, match=r"small\.safetensors"):
        weights.load_generator(saved)


def _put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_look_up_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "archivecolor"
    monkeypatch.setattr(weights, "__file__", str(package / "weights.py"))
    monkeypatch.delenv("ARCHIVECOLOR_WEIGHTS", raising=False)
    checkout = _put(tmp_path / "site" / "weights" / "ibn-sn-md.safetensors")
    assert weights.find_weights() == checkout
    packaged = _put(package / "data" / "ibn-sn-md.safetensors")
    assert weights.find_weights() == packaged
    folder = _put(tmp_path / "mine" / "ibn-sn-md.safetensors")
    monkeypatch.setenv("ARCHIVECOLOR_WEIGHTS", str(folder.parent))
    assert weights.find_weights() == folder
    assert weights.find_weights("ibn-sn-md") == folder
    single = _put(tmp_path / "single.safetensors")
    monkeypatch.setenv("ARCHIVECOLOR_WEIGHTS", str(single))
    assert weights.find_weights() == single
    assert weights.find_weights("ibn-sn-md") == packaged, "a file in the environment answers to its own name only"
    explicit = _put(tmp_path / "explicit.safetensors")
    assert weights.find_weights(explicit) == explicit


def test_not_found_names_every_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "archivecolor"
    monkeypatch.setattr(weights, "__file__", str(package / "weights.py"))
    monkeypatch.setenv("ARCHIVECOLOR_WEIGHTS", str(_put(tmp_path / "env" / "other").parent))
    with pytest.raises(WeightsError) as raised:
        weights.find_weights("bn-sn")
    for place in (tmp_path / "env", package / "data", tmp_path / "site" / "weights"):
        assert str(place / "bn-sn.safetensors") in str(raised.value)
    assert "--weights" in str(raised.value) and "$ARCHIVECOLOR_WEIGHTS" in str(raised.value)
    with pytest.raises(WeightsError, match=r"gone\.safetensors"):
        weights.find_weights(tmp_path / "gone.safetensors")


def test_the_weights_that_ship_are_the_manifests_and_the_papers_network() -> None:
    path = weights.find_weights("ibn-sn-md")
    weights.verify(path)
    assert weights.load_generator(path).config == PRESETS["ibn-sn-md"].generator
    assert path.stat().st_size < 45_000_000


def test_loading_does_not_import_torchs_compiler(tiny_weights: Path) -> None:
    """As computing on the meta device does, for seconds at every start."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom archivecolor.weights import load_generator\n"
        f"load_generator(Path({str(tiny_weights)!r}))\nassert 'torch._dynamo' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
