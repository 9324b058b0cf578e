"""One training step: against the paper's step written plainly, and what it must and must not touch."""

from __future__ import annotations

import copy
import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from archivecolor.config import PRESETS, TrainConfig
from archivecolor.errors import ConfigError
from archivecolor.networks import Generator
from archivecolor.networks.blocks import SpectralConv2d
from archivecolor.training.augment import make_batch
from archivecolor.training.data import PhotoSet
from archivecolor.training.losses import l1_loss
from archivecolor.training.trainer import Start, Trainer

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def plain() -> ModuleType:
    """The benchmark's plain networks and step, from stock layers."""
    path = Path(__file__).parents[2] / "benchmarks" / "training_step.py"
    spec = importlib.util.spec_from_file_location("training_step", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _pairs(trainer: Trainer, plain_trainer: object) -> list[tuple[torch.nn.Module, torch.nn.Module]]:
    """Our convolutions and norms beside the plain networks', in the same order."""

    def leaves(module: torch.nn.Module) -> list[torch.nn.Module]:
        kinds = (SpectralConv2d, torch.nn.Conv2d)
        found = [m for m in module.modules() if isinstance(m, kinds) or "Norm2d" in type(m).__name__]
        return [m for m in found if next(m.parameters(), None) is not None]

    mine = leaves(trainer.generator) + leaves(trainer.discriminator)
    theirs = leaves(plain_trainer.generator) + leaves(plain_trainer.discriminator)  # type: ignore[attr-defined]
    assert len(mine) == len(theirs)
    return list(zip(mine, theirs, strict=True))


def _weight(module: torch.nn.Module) -> torch.Tensor:
    parametrisations = getattr(module, "parametrizations", None)
    return module.weight if parametrisations is None else parametrisations.weight.original  # type: ignore[return-value]


@pytest.mark.parametrize("preset", PRESETS)
def test_the_step_is_the_papers_step_written_plainly(preset: str, plain: ModuleType, tiny_photos: PhotoSet) -> None:
    config = TrainConfig(
        preset=preset, size_px=96, batch_size=4, generator_widths=(8, 8, 12), discriminator_widths=(8, 8, 8, 8)
    )
    photos = PhotoSet(tiny_photos.paths, tiny_photos.groups, tiny_photos.pixels, 32)
    trainer = Trainer(config, photos, CPU)
    plain_trainer = plain.PlainTrainer(config, CPU)
    for mine, theirs in _pairs(trainer, plain_trainer):
        _weight(theirs).data.copy_(mine.weight.data)
        if mine.bias is not None:
            theirs.bias.data.copy_(mine.bias.data)
        if config.generator.spectral_norm and isinstance(mine, SpectralConv2d):
            for _ in range(100):  # both power iterations to their fixed point, whatever they began with
                mine.iterate_power()
            theirs.parametrizations.weight[0]._power_method(mine.weight.detach().flatten(1), 100)

    batch = trainer.batches.batch(0)
    for step in range(3):
        ours, reference = trainer.train_step(batch), plain_trainer.train_step(*(x.contiguous() for x in batch))
        for name, value in reference.items():
            torch.testing.assert_close(ours[name], value.detach(), rtol=2e-3, atol=1e-5, msg=f"{name} at step {step}")
    for mine, theirs in _pairs(trainer, plain_trainer):
        # Adam's first steps have the size of the learning rate whatever the gradient's.
        moved_apart = (mine.weight - _weight(theirs)).abs()
        assert moved_apart.mean() < 0.1 * config.lr_g
        assert moved_apart.max() < 6 * config.lr_g


def test_compiled_networks_train_the_same(
    tiny_config: TrainConfig, tiny_photos: PhotoSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The discriminators run twice before one backward pass, which a compiled graph must bear."""
    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda module: compile_module(module, backend="aot_eager_decomp_partition")
    )
    eager = Trainer(tiny_config, tiny_photos, CPU)
    compiled = Trainer(tiny_config, tiny_photos, CPU, compile_networks=True)
    for _ in range(3):
        expected, terms = eager.train_step(), compiled.train_step()
        for name, term in terms.items():
            torch.testing.assert_close(term, expected[name], rtol=1e-4, atol=1e-5)
    assert compiled.ema(torch.zeros(1, 1, 32, 32)).shape == (1, 2, 32, 32)


def test_discriminators_get_no_gradient_from_the_generators_step(
    tiny_config: TrainConfig, tiny_photos: PhotoSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(tiny_config, tiny_photos, CPU)
    gradients_at_their_step: list[bool] = []
    after_their_step: list[torch.Tensor] = []
    step_d = trainer.optimiser_d.step

    def observed() -> None:
        gradients_at_their_step.extend(p.grad is not None for p in trainer.discriminator.parameters())
        assert all(p.grad is None for p in trainer.generator.parameters()), "their step must not reach the generator"
        step_d()
        after_their_step.extend(p.detach().clone() for p in trainer.discriminator.parameters())

    monkeypatch.setattr(trainer.optimiser_d, "step", observed)
    trainer.train_step()
    parameters = list(trainer.discriminator.parameters())
    assert gradients_at_their_step and all(gradients_at_their_step)
    assert all(p.grad is None for p in parameters)
    assert all(p.requires_grad for p in parameters)
    assert all(torch.equal(p, q) for p, q in zip(parameters, after_their_step, strict=True))


def test_the_generator_learns_from_the_discriminators(tiny_config: TrainConfig, tiny_photos: PhotoSet) -> None:
    """With lambda 0 the only gradient is the adversarial one, through the frozen discriminators."""
    trainer = Trainer(replace(tiny_config, l1_weight=0.0), tiny_photos, CPU)
    before = [p.detach().clone() for p in trainer.generator.parameters()]
    trainer.train_step()
    assert all(not torch.equal(p, q) for p, q in zip(trainer.generator.parameters(), before, strict=True))


@pytest.mark.parametrize("gan_loss", ["bce", "lsgan"])
def test_one_batch_overfits(gan_loss: str, tiny_photos: PhotoSet) -> None:
    config = TrainConfig(
        preset="bn-sn",
        gan_loss=gan_loss,  # type: ignore[arg-type]
        size_px=32,
        batch_size=4,
        generator_widths=(24, 32, 32),
        discriminator_widths=(8, 8, 8, 8),
        lr_g=3e-3,
        lr_schedule="linear",
        images=4 * 400,
    )
    trainer = Trainer(config, tiny_photos, CPU)
    batch = trainer.batches.batch(0)
    grey = float(l1_loss(torch.zeros_like(batch[1]), batch[1]))
    for _ in range(trainer.total_steps):
        l1 = float(trainer.train_step(batch)["l1"])
    assert l1 < grey / 10, f"{l1} against grey's {grey}"


def test_warm_up_is_l1_alone(tiny_config: TrainConfig, tiny_photos: PhotoSet) -> None:
    trainer = Trainer(replace(tiny_config, pretrain_images=8), tiny_photos, CPU)
    before = [p.detach().clone() for p in trainer.discriminator.parameters()]
    assert [set(trainer.train_step()) for _ in range(2)] == [{"l1"}] * 2
    assert all(torch.equal(p, q) for p, q in zip(trainer.discriminator.parameters(), before, strict=True))
    assert set(trainer.train_step()) == {"l1", "d_real", "d_fake", "g_adversarial"}


def test_the_distribution_counts_as_much_as_asked(tiny_config: TrainConfig, tiny_photos: PhotoSet) -> None:
    trained = {}
    for weight in (0.0, 5.0, 50.0):
        trainer = Trainer(replace(tiny_config, pretrain_images=8, distribution_weight=weight), tiny_photos, CPU)
        terms = [trainer.train_step() for _ in range(3)]
        assert ["distribution" in names for names in terms] == [weight > 0] * 3
        trained[weight] = torch.cat([p.detach().flatten() for p in trainer.generator.parameters()])
    assert not any(torch.equal(trained[a], trained[b]) for a, b in ((0.0, 5.0), (0.0, 50.0), (5.0, 50.0)))


def test_the_average_follows_the_generator(tiny_config: TrainConfig, tiny_photos: PhotoSet) -> None:
    trainer = Trainer(replace(tiny_config, ema=0.5), tiny_photos, CPU)
    averaged = {name: p.detach().clone() for name, p in trainer.generator.named_parameters()}
    for step in range(6):
        trainer.train_step()
        decay = min(0.5, (1 + step) / (10 + step))
        for name, p in trainer.generator.named_parameters():
            averaged[name] = decay * averaged[name] + (1 - decay) * p.detach()
    for name, p in trainer.ema.named_parameters():
        torch.testing.assert_close(p, averaged[name], atol=1e-6, rtol=1e-5)
    assert not trainer.ema.training


def test_linear_schedule(tiny_config: TrainConfig, tiny_photos: PhotoSet) -> None:
    trainer = Trainer(replace(tiny_config, lr_schedule="linear", images=4 * 10, lr_d=1e-4), tiny_photos, CPU)
    rates = []
    for _ in range(10):
        trainer.train_step()
        rates.append(
            (trainer.optimiser_g.param_groups[0]["lr"] / 2e-4, trainer.optimiser_d.param_groups[0]["lr"] / 1e-4)
        )
    expected = [1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2]
    assert rates == [(pytest.approx(x), pytest.approx(x)) for x in expected]


def test_the_run_is_as_long_as_asked(tiny_config: TrainConfig, tiny_photos: PhotoSet) -> None:
    assert Trainer(replace(tiny_config, images=41), tiny_photos, CPU).total_steps == 11
    assert Trainer(replace(tiny_config, images=None, epochs=3), tiny_photos, CPU).total_steps == 9  # 12 of 16 to train


def test_starting_from_weights(tiny_config: TrainConfig, tiny_photos: PhotoSet) -> None:
    init = Generator(tiny_config.generator)
    with torch.no_grad():
        init.output.bias.fill_(0.25)
    state = {name: value.clone() for name, value in init.state_dict().items()}
    trainer = Trainer(tiny_config, tiny_photos, CPU, init=Start(init))
    for network in (trainer.generator, trainer.ema):
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    with pytest.raises(ConfigError, match="widths"):
        Trainer(replace(tiny_config, generator_widths=(8, 16)), tiny_photos, CPU, init=Start(init))


def test_the_averages_batch_norms_are_its_own(tiny_config: TrainConfig, tiny_photos: PhotoSet) -> None:
    """What they hold after a validation is what the averaged weights see, not what the generator saw."""
    trainer = Trainer(replace(tiny_config, ema=0.99), tiny_photos, CPU)
    for _ in range(6):
        trainer.train_step()
    with torch.no_grad():
        for parameter in trainer.ema.encoder[0].parameters():
            parameter.mul_(3)
    trainer.validate()
    l_norm = torch.cat([trainer.batches.batch(step)[0] for step in range(128)])
    with torch.no_grad():
        seen = trainer.ema.encoder[1].conv(trainer.ema.encoder[0](l_norm))
    norm = trainer.ema.encoder[1].norm
    torch.testing.assert_close(norm.running_mean, seen.mean(dim=(0, 2, 3)), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(norm.running_var, seen.var(dim=(0, 2, 3)), rtol=0.15, atol=1e-4)
    assert norm.momentum == 0.1 and not trainer.ema.training


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_graph_trains_the_same(tiny_config: TrainConfig, tiny_photos: PhotoSet) -> None:
    """Both phases, under a learning rate that changes from step to step, and resumed."""
    config = replace(tiny_config, pretrain_images=24, lr_schedule="linear", distribution_weight=20.0)
    device = torch.device("cuda")
    eager, graphed = (Trainer(config, tiny_photos, device, cuda_graph=on) for on in (False, True))
    for _ in range(eager.total_steps):
        expected, terms = eager.train_step(), graphed.train_step()
        assert terms.keys() == expected.keys()
        for name, term in terms.items():
            torch.testing.assert_close(term, expected[name], rtol=1e-2, atol=1e-3)
    resumed = Trainer(config, tiny_photos, device, cuda_graph=True)
    resumed.load_state_dict(graphed.state_dict())
    for _ in range(6):  # beyond the steps that warm up
        expected, terms = graphed.train_step(), resumed.train_step()
        for name, value in expected.items():
            torch.testing.assert_close(terms[name], value, rtol=1e-2, atol=1e-3)


def test_a_run_begun_on_a_gpu_goes_on_on_a_cpu(tiny_config: TrainConfig, tiny_photos: PhotoSet) -> None:
    """There the learning rate is a tensor, and the optimiser's state is fit for CUDA graphs."""
    begun = Trainer(tiny_config, tiny_photos, CPU)
    for _ in range(3):
        begun.train_step()
    state = copy.deepcopy(begun.state_dict())
    for name in ("optimiser_g", "optimiser_d"):
        for group in state[name]["param_groups"]:
            group.update(lr=torch.tensor(float(group["lr"])), capturable=True)
    resumed = Trainer(tiny_config, tiny_photos, CPU)
    resumed.load_state_dict(state)
    for _ in range(3):
        assert {k: float(v) for k, v in begun.train_step().items()} == {
            k: float(v) for k, v in resumed.train_step().items()
        }


def test_validation_scores_the_average_on_held_out_photographs(tiny_config: TrainConfig, tiny_photos: PhotoSet) -> None:
    trainer = Trainer(tiny_config, tiny_photos, CPU)
    batches = trainer.batches
    assert len(batches.val_indices) == 4 and not set(batches.val_indices) & set(batches.train_indices)
    with torch.no_grad():
        for parameter in trainer.ema.output.parameters():
            parameter.zero_()
        trainer.ema.output.u.zero_()
        trainer.ema.output.spectral_norm = False
    scores = trainer.validate()
    _, ab = make_batch(trainer.photos.fetch(batches.val_indices, CPU), 32)
    assert scores["images"] == 4
    assert scores["l1"] == pytest.approx(float((ab * 110).abs().mean()), rel=0.02), "grey is as far off as ab is long"
    assert scores["colourfulness"] == pytest.approx(0, abs=0.2)


def test_bf16_trains(tiny_config: TrainConfig, tiny_photos: PhotoSet) -> None:
    trainer = Trainer(tiny_config, tiny_photos, CPU, torch.bfloat16)
    losses = [float(trainer.train_step()["l1"]) for _ in range(12)]
    assert sum(losses[-3:]) < sum(losses[:3])
    assert all(p.dtype == torch.float32 for p in trainer.generator.parameters())
    assert trainer.is_finite()
