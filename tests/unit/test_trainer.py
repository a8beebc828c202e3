"""The training loop: what changes in a step, and what stops, skips or scales one."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from torch import nn
from trainkit import changed, fit, hyperlips_config, snapshot, toy_config, trainer_of

from talkingface.components.models import build_model
from talkingface.errors import ConfigError, StageError
from talkingface.model.audio_driven_talkingface.hyperlips.hyperlips_networks import SyncNetColor
from talkingface.model.component import Component
from talkingface.model.weights import load_checkpoint
from talkingface.trainer.optim import AveragedWeights, Pace, Schedule
from talkingface.trainer.trainer import Trainer


def ready(cfg, kind: type[Trainer] = Trainer) -> tuple[Trainer, list[dict]]:
    """A trainer that is set up for single steps, and the batches of an epoch."""
    trainer, loader, _ = trainer_of(cfg, kind=kind)
    trainer._setup(len(loader), 100)
    return trainer, list(loader)


def test_a_step_changes_generator_and_discriminator():
    trainer, batches = ready(toy_config())
    before = {name: snapshot(net) for name, net in trainer.model.networks().items()}
    assert trainer.train_step(batches[0]) is True
    trainer.networks.unwrap()
    for name, network in trainer.model.networks().items():
        assert {key for key, _ in network.named_parameters()} <= changed(before[name], network), (
            name
        )


@pytest.mark.parametrize(
    ("waiting", "stepping"), [("generator", "discriminator"), ("discriminator", "generator")]
)
def test_a_phase_that_has_not_started_leaves_its_network_alone(waiting, stepping):
    cfg = toy_config(toy__norm=False, optim__phases={waiting: {"start_step": 5}})
    trainer, batches = ready(cfg)
    before = {name: snapshot(net) for name, net in trainer.model.networks().items()}
    trainer.train_step(batches[0])
    assert changed(before[waiting], getattr(trainer.model, waiting)) == set()
    assert changed(before[stepping], getattr(trainer.model, stepping))


def test_the_gradient_of_a_phase_does_not_reach_the_other_network():
    """The generator's loss goes through the discriminator, which must not learn from it."""
    trainer, batches = ready(toy_config(optim__phases={"discriminator": {"start_step": 5}}))
    trainer.train_step(batches[0], boundary=False)
    assert all(p.grad is None for p in trainer.model.discriminator.parameters())
    assert all(p.grad is not None for p in trainer.model.generator.parameters())
    assert all(p.requires_grad for p in trainer.model.discriminator.parameters())


def test_a_phase_with_every_two_steps_on_every_second_batch():
    trainer, batches = ready(toy_config(optim__phases={"discriminator": {"every": 2}}))
    moved = []
    for step in range(4):
        before = snapshot(trainer.model.discriminator)
        trainer.progress.global_step = step
        trainer.train_step(batches[step])
        moved.append(bool(changed(before, trainer.model.discriminator)))
    assert moved == [True, False, True, False]


def test_a_network_left_out_by_the_settings_is_not_trained():
    trainer = fit(toy_config(toy__adversarial=False, max_steps=2))
    assert list(trainer.networks.optimizers) == ["generator"]


# -- HyperLipsBase ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hyperlips_step(tiny_synthetic):
    """States before and after one step of HyperLipsBase with a sync expert."""
    trainer, loader, _ = trainer_of(hyperlips_config(tiny_synthetic))
    trainer.model.components["sync_expert"] = Component(SyncNetColor(width=0.125))
    trainer._setup(len(loader), 100)
    trainer.model.train()
    networks = {
        **trainer.model.networks(),
        "expert": trainer.model.components["sync_expert"].network,
    }
    before = {name: snapshot(net) for name, net in networks.items()}
    trainer.train_step(next(iter(loader)))
    return trainer, before, {name: trainer.runtime.unwrap(net) for name, net in networks.items()}


def test_one_step_of_hyperlips_changes_generator_and_discriminator(hyperlips_step):
    trainer, before, networks = hyperlips_step
    for name in ("generator", "discriminator"):
        parameters = {key for key, _ in networks[name].named_parameters()}
        still = parameters - changed(before[name], networks[name])
        assert still == set(), f"{name}: {sorted(still)[:5]}"


def test_one_step_of_hyperlips_leaves_the_expert_with_its_batchnorm_buffers_alone(hyperlips_step):
    trainer, before, networks = hyperlips_step
    assert any("running_mean" in key for key in before["expert"])
    assert changed(before["expert"], networks["expert"]) == set()
    assert not networks["expert"].training
    assert all(p.grad is None for p in networks["expert"].parameters())


def test_the_expert_judged_the_step_but_is_not_part_of_the_model(hyperlips_step):
    trainer, _, _ = hyperlips_step
    assert "sync" in trainer.meter.means()
    assert set(trainer.model.networks()) == {"generator", "discriminator"}
    assert not any("expert" in key for key in trainer.model.state_dict())


def test_the_loss_weights_of_hyperlips_add_up_as_published(hyperlips_step):
    """0.03 sync + 0.2 adversarial + 0.77 L1 (hyperlips spec, 10.1)."""
    trainer, _, _ = hyperlips_step
    sums = {key: float(value) for key, value in trainer.meter.means().items()}
    expected = 0.03 * sums["sync"] + 0.2 * sums["adversarial"] + 0.77 * sums["l1"]
    assert sums["loss_generator"] == pytest.approx(expected, rel=1e-5)


def test_the_discriminator_of_the_mouth_waits_and_does_not_change_validation_losses(
    tiny_synthetic,
):
    wanted = {"patch_wt": 0.5, "matching_wt": 1.0, "gradient_wt": 1.0, "spectrum_wt": 1.0}
    weights = {f"loss__{name}": value for name, value in wanted.items()}
    cfg = hyperlips_config(
        tiny_synthetic, loss__disc_wt=0, data__fine=2, data__reference="open", data__augment=True,
        model_params__warp=0.2, **weights,
    )  # fmt: skip
    trainer, loader, _ = trainer_of(cfg)
    trainer._setup(len(loader), 10)
    model, batch = trainer.model, next(iter(loader))
    before = {name: snapshot(net) for name, net in model.networks().items()}
    assert set(before) == {"generator", "mouth_discriminator"}
    assert batch["gt"].shape[-1] == 2 * batch["input_frames"].shape[-1]
    trainer.train_step(batch)
    trainer.networks.unwrap()
    for name, network in model.networks().items():
        assert changed(before[name], network), name

    def total(progress: float) -> tuple[float, float]:
        model.training_progress = progress
        losses = model.calculate_loss(batch, "generator", shared)
        return float(losses["loss"]), float(losses["patch"])

    model.eval()
    with torch.no_grad():
        shared = model.forward_train(batch)
        model.train()
        totals = [total(progress)[0] for progress in (0.1, 0.3, 0.5, 1.0)]
        patch = total(1.0)[1]
        assert totals[1] - totals[0] == pytest.approx(0.25 * patch, rel=1e-3)
        assert totals[2] == totals[3] == pytest.approx(totals[0] + 0.5 * patch, rel=1e-3)
        model.eval()
        losses = model.calculate_loss(batch, "generator", shared)
        loss = losses["l1"] + losses["gradient"] + losses["spectrum"]
        assert float(losses["loss"]) == pytest.approx(float(loss), rel=1e-5)


def test_larger_targets_without_warp_are_refused():
    with pytest.raises(ConfigError, match="data.fine=2 needs model_params.warp"):
        build_model(hyperlips_config(data__fine=2, model_params__warp=0))


# -- accumulation, clipping, NaN -------------------------------------------------------------------


def test_accumulating_two_batches_equals_one_of_twice_the_size():
    """True for losses that are means, without BatchNorm and dropout."""
    options = {"toy__norm": False, "toy__items": 16, "shuffle": False, "learner": "sgd"}
    large = fit(toy_config(batch_size=8, max_steps=3, eval_step=0, saved=False, **options))
    small = fit(
        toy_config(
            batch_size=4, max_steps=3, eval_step=0, saved=False, optim__accumulate=2, **options
        )
    )
    for name in ("generator", "discriminator"):
        pair = [trainer.model.networks()[name].state_dict() for trainer in (large, small)]
        for key in pair[0]:
            torch.testing.assert_close(pair[0][key], pair[1][key], rtol=1e-5, atol=1e-6)


def test_accumulation_counts_optimizer_steps():
    trainer = fit(toy_config(epochs=2, optim__accumulate=2))
    assert trainer.progress.global_step == 6  # 5 batches per epoch: 2 + 2 + 1


def test_clipping_limits_the_step_of_plain_gradient_descent():
    rate, limit = 0.5, 1e-3
    cfg = toy_config(learner="sgd", learning_rate=rate, optim__clip_grad=limit)
    trainer, batches = ready(cfg)
    before = {key: p.detach().clone() for key, p in trainer.model.generator.named_parameters()}
    trainer.train_step(batches[0])
    after = dict(trainer.model.generator.named_parameters())
    moved = sum(((after[key] - before[key]) ** 2).sum() for key in before).sqrt()
    assert moved.item() == pytest.approx(rate * limit, rel=1e-3)


def test_a_limit_of_one_phase_wins_over_the_common_one():
    cfg = toy_config(
        learner="sgd",
        learning_rate=1.0,
        optim__clip_grad=1e-3,
        optim__phases={"generator": {"clip_grad": 1e-4}},
    )
    trainer, batches = ready(cfg)
    for name, limit in (("generator", 1e-4), ("discriminator", 1e-3)):
        trainer, batches = ready(cfg)
        network = getattr(trainer.model, name)
        before = [p.detach().clone() for p in network.parameters()]
        trainer.train_step(batches[0])
        moved = sum(((p - b) ** 2).sum() for p, b in zip(network.parameters(), before, strict=True))
        assert moved.sqrt().item() == pytest.approx(limit, rel=1e-2)


@pytest.fixture
def package_log(caplog):
    """The package's log as pytest sees it."""
    package = logging.getLogger("talkingface")
    package.addHandler(caplog.handler)
    package.setLevel(logging.DEBUG)
    yield caplog
    package.removeHandler(caplog.handler)


@pytest.mark.parametrize(("kind", "skipped"), [("nan_items", 0), ("inf_items", 1)])
def test_a_clip_with_nan_is_named_and_only_a_loss_with_nan_skips_a_batch(
    kind, skipped, package_log
):
    trainer = fit(toy_config(epochs=1, batch_size=1, toy__norm=False, **{f"toy__{kind}": [3]}))
    assert trainer.progress.nan_batches == skipped
    assert "item3" in package_log.text
    for network in trainer.model.networks().values():
        assert all(torch.isfinite(value).all() for value in network.state_dict().values())


def test_nan_in_the_data_does_not_enter_the_batchnorm_statistics():
    trainer, batches = ready(toy_config())
    poisoned = {**batches[0], "x": batches[0]["x"].clone()}
    poisoned["x"][0, 0] = float("nan")
    before = snapshot(trainer.model.generator)
    assert trainer.train_step(poisoned) is False
    assert changed(before, trainer.model.generator) == set()


def test_too_many_nan_batches_stop_the_run_with_advice():
    poison = {"toy__inf_items": [1, 2, 3], "toy__norm": False}
    cfg = toy_config(epochs=1, batch_size=1, optim__max_nan=2, **poison)
    with pytest.raises(StageError, match="3 batches gave NaN.*Lower the learning rate"):
        fit(cfg)


# -- schedules, averaging, ends --------------------------------------------------------------------


def factors(scheduler: str, steps: list[int], **options) -> list[float]:
    settings = {f"optim__{key}": value for key, value in options.items()}
    cfg = toy_config(optim__scheduler=scheduler, **settings)
    return [Schedule(cfg, total_steps=100, steps_per_epoch=10).factor(step) for step in steps]


@pytest.mark.parametrize(
    ("scheduler", "options", "expected"),
    [
        ("none", {}, {0: 1.0, 99: 1.0}),
        ("cosine", {}, {0: 1.0, 50: 0.5, 100: 0.0}),
        ("cosine", {"warmup_steps": 10}, {0: 0.1, 4: 0.5, 9: 1.0, 10: 1.0, 55: 0.5, 100: 0.0}),
        ("linear", {}, {0: 1.0, 50: 1.0, 75: 0.5, 100: 0.0}),
        ("step", {"step_size": 2, "gamma": 0.1}, {0: 1.0, 19: 1.0, 20: 0.1, 39: 0.1, 40: 0.01}),
    ],
)
def test_the_learning_rate_follows_its_schedule(scheduler, options, expected):
    assert factors(scheduler, list(expected), **options) == pytest.approx(list(expected.values()))


def test_the_plateau_schedule_waits_for_its_patience():
    cfg = toy_config(optim__scheduler="plateau", optim__patience=1, optim__gamma=0.5)
    schedule = Schedule(cfg, 100, 10)
    seen = []
    for improved in (True, False, False, False, False, True):
        schedule.after_validation(improved)
        seen.append(schedule.factor(0))
    assert seen == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_each_network_keeps_its_own_learning_rate_under_a_schedule():
    cfg = toy_config(
        learning_rate=0.01,
        optim__scheduler="cosine",
        optim__groups={"discriminator": {"learning_rate": 0.04}},
    )
    trainer, batches = ready(cfg)
    trainer.progress.global_step = 50
    trainer.train_step(batches[0])
    rates = {name: opt.param_groups[0]["lr"] for name, opt in trainer.networks.optimizers.items()}
    assert rates == pytest.approx({"generator": 0.005, "discriminator": 0.02})


def test_the_averaged_weights_follow_their_formula():
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 1.0)
    average = AveragedWeights(network, decay=0.5)
    values = []
    for weight in (2.0, 4.0, 8.0):
        nn.init.constant_(network.weight, weight)
        average.update(network)
        values.append(float(average.values["weight"]))
    # decay (1 + n) / (10 + n), at most 0.5: 2/11, 3/12, 4/13
    first = 2 / 11 * 1 + 9 / 11 * 2
    second = 0.25 * first + 0.75 * 4
    assert values == pytest.approx([first, second, 4 / 13 * second + 9 / 13 * 8])


def test_validation_uses_the_averaged_weights_and_gives_the_trained_ones_back():
    trainer = fit(toy_config(epochs=1, optim__ema_decay=0.9, eval_step=0, saved=False))
    before = snapshot(trainer.model.generator)
    averaged = {key: value.clone() for key, value in trainer.networks.average.values.items()}
    with trainer.networks.averaged():
        assert changed(averaged, trainer.model.generator) == set()
    assert changed(before, trainer.model.generator) == set()
    assert averaged["0.weight"].ne(before["0.weight"]).any()


def test_validation_does_not_influence_training(tmp_path):
    """Neither its random numbers nor BatchNorm's statistics."""
    states = []
    for every in (0, 1):
        trainer = fit(toy_config(epochs=2, eval_step=every), tmp_path / str(every))
        states.append(snapshot(trainer.model.generator))
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_training_stops_when_the_validation_no_longer_improves(tmp_path):
    # A step size at which the loss only grows.
    cfg = toy_config(epochs=50, learning_rate=1.0, stopping_step=2, optim__max_nan=1000)
    trainer = fit(cfg, tmp_path)
    assert trainer.result.reason == "no progress in 2 validations"
    assert trainer.progress.epoch < 50
    assert trainer.result.best_step == trainer.progress.global_step - 2 * 5


def test_training_stops_at_its_time_limit_and_saves(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_DELAY", "0.005")
    trainer = fit(toy_config(epochs=10000, max_minutes=0.5 / 60), tmp_path)
    assert trainer.result.reason.startswith("reached 0.0083")
    assert trainer.result.seconds >= 0.5
    assert load_checkpoint(tmp_path / "last.ckpt")["global_step"] == trainer.progress.global_step
    assert trainer.result.best_score is not None


def test_a_time_budget_sets_the_number_of_steps_and_the_schedule(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_DELAY", "0.005")  # s per item
    settings = {"epochs": 10000, "optim__scheduler": "cosine", "eval_step": 0}
    trainer = fit(toy_config(minutes=3 / 60, **settings), tmp_path)
    total = trainer.progress.plan["steps"]
    assert trainer.result.steps == total == trainer.schedule.total_steps
    assert 1.5 < trainer.result.seconds < 6  # 3 s
    assert trainer.schedule.factor(total - 1) < 0.01  # where max_steps would still be far away
    # A resumed run has the same length, whatever its speed.
    monkeypatch.setenv("TOY_DELAY", "0")
    cfg = toy_config(minutes=3 / 60, **settings)
    again, *loaders = trainer_of(cfg, tmp_path)
    again.resume_checkpoint(tmp_path / "last.ckpt")
    again.fit(*loaders)
    assert again.total_steps == again.progress.global_step == total


@pytest.mark.parametrize("more", [{}, {"minutes": 10}])
def test_a_run_with_another_budget_is_planned_anew(tmp_path, more):
    fit(toy_config(epochs=2), tmp_path)
    state = load_checkpoint(tmp_path / "last.ckpt")
    state["progress"]["plan"] = {"minutes": 5, "steps": state["global_step"]}
    torch.save(state, tmp_path / "planned.ckpt")
    longer = fit(toy_config(epochs=3, **more), resume=tmp_path / "planned.ckpt")
    assert longer.progress.global_step > state["global_step"]


def test_no_epochs_are_no_steps():
    assert fit(toy_config(epochs=0, eval_step=0)).progress.global_step == 0


def test_a_budget_never_prolongs_a_training(tmp_path):
    trainer = fit(toy_config(minutes=10, max_steps=3), tmp_path)
    assert trainer.progress.global_step == 3


def test_the_pace_counts_the_time_of_earlier_starts(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("talkingface.trainer.optim.time.monotonic", lambda: now[0])
    pace = Pace(10, now[0] - 300, 40)  # 5 of 10 minutes and 40 steps are done
    now[0] += 29
    assert pace.total_steps(99) is None  # 5 % are 30 s
    now[0] += 1
    assert pace.total_steps(100) == 100 + 2 * 270  # 60 steps in 30 s, 270 s are left
    assert Pace(None, 0, 0).total_steps(5) is None


def test_the_best_checkpoint_is_the_one_with_the_lowest_validation_loss(tmp_path):
    from talkingface.trainer.loggers import RunLogger

    logger = RunLogger(None, tmp_path / "metrics.jsonl")
    fit(toy_config(epochs=6, learning_rate=0.3), tmp_path, logger=logger)
    lines = [json.loads(t) for t in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]
    lowest = min(lines, key=lambda line: line["loss"])
    best = load_checkpoint(tmp_path / "best.ckpt")
    assert (best["global_step"], best["best_valid_score"]) == (lowest["step"], lowest["loss"])


def test_kept_checkpoints_are_named_after_their_epochs(tmp_path):
    fit(toy_config(epochs=4, keep_every=2), tmp_path)
    names = sorted(path.name for path in tmp_path.glob("*.ckpt"))
    kept = ["epoch_0002.ckpt", "epoch_0004.ckpt"]
    assert names == ["best.ckpt", *kept, "last.ckpt", "previous.ckpt"]


def test_saved_false_writes_nothing(tmp_path):
    fit(toy_config(epochs=1, saved=False), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_valid_metric_lists_what_there_is(tmp_path):
    with pytest.raises(ConfigError, match="gives only: adversarial, l2, loss"):
        fit(toy_config(epochs=1, valid_metric="loss/l3"), tmp_path)


@pytest.mark.parametrize("section", ["groups", "phases"])
def test_settings_of_an_unknown_network_are_refused(section):
    with pytest.raises(ConfigError, match=f"optim.{section}.critic: ToyGan has only"):
        trainer_of(toy_config(**{f"optim__{section}": {"critic": {}}}))
    # A network that these settings leave out: its name ends with that of its phase.
    trainer_of(toy_config(optim__groups={"mouth_discriminator": {}}))
    with pytest.raises(ConfigError, match="optim.phases.mouth_discriminator"):
        trainer_of(toy_config(optim__phases={"mouth_discriminator": {}}))


@pytest.mark.parametrize("validated", [False, True])
def test_a_run_resumed_without_validation_gives_its_last_weights(tmp_path, validated):
    fit(toy_config(epochs=2, eval_step=int(validated)), tmp_path)
    first = load_checkpoint(tmp_path / "best.ckpt")
    fit(toy_config(epochs=4, eval_step=0), tmp_path, resume=tmp_path / "last.ckpt")
    best, last = (load_checkpoint(tmp_path / f"{name}.ckpt") for name in ("best", "last"))
    assert best["global_step"] == last["global_step"] > first["global_step"]
    weights = [state["state_dict"]["generator.0.weight"] for state in (first, best, last)]
    assert not torch.equal(weights[0], weights[1]) and torch.equal(weights[1], weights[2])


def test_equal_trainings_write_equal_checkpoints(tmp_path):
    fit(toy_config(max_steps=6), tmp_path / "one")
    fit(toy_config(max_steps=6), tmp_path / "two")
    one, two = ((tmp_path / name / "last.ckpt").read_bytes() for name in ("one", "two"))
    assert one == two
    assert (tmp_path / "one" / "previous.ckpt").exists()


def test_the_networks_of_a_phase_share_one_gradient_scale():
    """With fp16, two optimizers: each gradient is divided by the scale once (on the CPU)."""
    from types import SimpleNamespace

    from talkingface.trainer.runtime import Runtime

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    runtime = SimpleNamespace(fabric=SimpleNamespace(_precision=SimpleNamespace(scaler=scaler)))
    weights = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    optimizers = [torch.optim.SGD([weight], lr=1.0) for weight in weights]
    scaler.scale(sum((weight * 0.5).sum() for weight in weights)).backward()
    for optimizer in optimizers:  # as clipping does
        scaler.unscale_(optimizer)
    Runtime.step(runtime, optimizers)
    for weight in weights:
        assert torch.allclose(weight, torch.full((3,), 0.5))
    assert scaler._get_growth_tracker() == 1


@pytest.mark.parametrize(
    ("precision", "kind"), [("bf16-mixed", "bfloat16"), ("32-true", "float32")]
)
def test_methods_beside_forward_have_the_precision_too(precision, kind):
    from types import SimpleNamespace

    from talkingface.trainer.runtime import Runtime

    class Network(torch.nn.Linear):
        def encode(self, x: torch.Tensor) -> torch.Tensor:
            result = torch.nn.functional.linear(x, self.weight)
            self.kind = result.dtype
            return result

    cfg = SimpleNamespace(device="cpu", devices=1, precision=precision)
    runtime, network = Runtime(cfg), Network(4, 4)
    wrapped, _ = runtime.setup(network, torch.optim.SGD(network.parameters(), 0.1))
    assert wrapped.encode(torch.ones(1, 4)).dtype == torch.float32  # as that of forward
    assert network.kind == getattr(torch, kind)
    assert wrapped.weight is network.weight and runtime.unwrap(wrapped) is network
    assert network.encode(torch.ones(1, 4)).dtype == torch.float32  # the bare network is as it was
