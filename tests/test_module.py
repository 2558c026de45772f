"""The update: what it changes, how often, and what a checkpoint gives back."""

from __future__ import annotations

import copy
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from gymnasium import Space
from gymnasium.spaces import Box
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from tensordict import TensorDict

from rrd_lightning import Environment, ParameterError, keys
from rrd_lightning.agents import SAC, Agent
from rrd_lightning.decomposition import RRD, EnvironmentReward, EpisodicReward
from rrd_lightning.engines.cpp.sac import SACTwin
from rrd_lightning.losses import Losses
from rrd_lightning.networks import ObservationNormalizer
from rrd_lightning.replay import PairedSampler
from tests.episodes import make_replay
from tests.resuming import assert_same, rows
from tests.runs import SMALL, make_module, run
from tests.updates import gradients, make_engine, make_update


def make_batch(observations: int = 1) -> TensorDict:
    replay = make_replay(batch_size=32, rrd_batch_size=16, rrd_sample_size=4)
    for _ in range(5):
        replay.add_episode(
            TensorDict(
                {
                    keys.OBSERVATION: torch.randn(11, observations),
                    keys.ACTION: torch.rand(10, 1) * 2 - 1,
                    keys.REWARD: torch.randn(10),
                    keys.EPISODE_RETURN: torch.randn(()),
                    keys.TERMINATED: torch.tensor(False),
                },
                [],
            )
        )
    return replay.sample()


@pytest.fixture
def env() -> Environment:
    return Environment("Follow-v0")


def test_each_part_has_the_gradient_of_its_own_loss(env: Environment) -> None:
    module, batch = make_module(env), make_batch()
    engine = make_engine(module)
    torch.manual_seed(1)
    engine.gradients(batch, 0)
    joint = gradients(module)
    assert joint.keys() == {name for name, each in module.named_parameters() if each.requires_grad}
    module.zero_grad()
    torch.manual_seed(1)
    module.decomposition.losses(batch).backward()
    with torch.no_grad():
        reward = module.decomposition.reward(batch[keys.TRANSITIONS])
    module.agent.losses(batch[keys.TRANSITIONS], reward).backward()
    torch.testing.assert_close(joint, gradients(module))
    # Gradients are those of this batch alone, whatever was there before.
    torch.manual_seed(1)
    engine.gradients(batch, 0)
    torch.testing.assert_close(gradients(module), joint)


def test_the_true_reward_reaches_no_loss(env: Environment) -> None:
    module, batch = make_module(env), make_batch()
    engine = make_engine(module)
    torch.manual_seed(1)
    before = engine.gradients(batch, 0), gradients(module)
    batch[keys.TRANSITIONS][keys.REWARD] += 100
    torch.manual_seed(1)
    torch.testing.assert_close((engine.gradients(batch, 0), gradients(module)), before, rtol=0, atol=0)


def test_an_update_stays_on_its_device() -> None:
    """On torch's device without numbers, where mixing devices and asking for a number are errors."""
    options: Any = {"num_critics": 3, "critics_in_target": 2, "layer_norm": True, "dropout": 0.1}
    module, batch = make_update([8], agent=options, bias_correction=True, scale="episode")
    module.normalizer = ObservationNormalizer(module.model_spaces[0])
    engine = make_engine(module.to("meta"))
    metrics = engine.gradients(batch.to("meta"), 0)
    assert {value.device.type for value in metrics.values()} == {"meta"}
    assert all(each.grad.device.type == "meta" for each in module.parameters() if each.requires_grad)


@pytest.mark.parametrize("engine", ["eager", "auto"])
def test_agent_learns_from_the_reward_model_before_the_update(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within real training steps, the reward is that of the weights from before the step."""
    checked: list[bool] = []
    latest: list[RRD] = []
    losses, twin = SAC.losses, SACTwin.gradients

    def check(transitions: TensorDict, reward: torch.Tensor) -> None:
        if latest:
            with torch.no_grad():
                expected = latest[-1].reward(transitions)
            checked.append(torch.allclose(reward, expected, atol=1e-5) and not reward.requires_grad)

    def spy(self: SAC, transitions: TensorDict, reward: torch.Tensor, updates: int = 0) -> Any:
        check(transitions, reward)
        return losses(self, transitions, reward, updates)

    def spy_on_twin(self: SACTwin, transitions: Any, reward: torch.Tensor) -> Any:
        if latest:
            check(batches[-1][keys.TRANSITIONS], reward)
        return twin(self, transitions, reward)

    batches: list[TensorDict] = []

    class Copy(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            latest.append(copy.deepcopy(pl_module.decomposition))
            batches.append(batch)

    monkeypatch.setattr(SAC, "losses", spy)
    monkeypatch.setattr(SACTwin, "gradients", spy_on_twin)
    run(callbacks=[Copy()], collect={"total_env_steps": 160}, module={"engine": engine})
    assert checked == [True] * len(checked)
    assert len(checked) >= 12


class Tagged(PairedSampler):
    def sample(self, storage: Any, lead: tuple[int, ...] = ()) -> tuple[torch.Tensor, dict[str, Any]]:
        index, draws = super().sample(storage, lead)
        return index, {**draws, "tag": torch.full(lead, 7)}


class Spying(RRD):
    seen: ClassVar[list[tuple[Any, ...]]] = []

    def losses(self, batch: Any) -> Losses:
        names = "return_min", "return_max", "num_episodes"
        self.seen.append((batch["tag"], *(batch[keys.STATISTICS, name] for name in names)))
        return super().losses(batch)


def test_what_a_sampler_adds_and_the_statistics_of_the_replay_reach_the_decomposition() -> None:
    _, _, data = run(
        module={"decomposition": partial(Spying, **SMALL)},
        data={"sampler": Tagged},
        collect={"total_env_steps": 160},
    )
    returns = data.replay.episodes["episode_return"]
    assert len(Spying.seen) == 12
    assert Spying.seen[-1] == (7, returns.min(), returns.max(), len(returns))


@pytest.mark.parametrize("engine", ["eager", "auto"])
def test_a_callback_that_listens_hears_of_each_step(engine: str) -> None:
    """Lightning's own way is taken for it, with torch's step: the eager engine's, to the last bit."""

    class Listener(Callback):
        gradients: ClassVar[list[float]] = []

        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            self.gradients.append(float(pl_module.agent.actor.layers[0].weight.grad.norm()))

    Listener.gradients.clear()
    options: Any = {"collect": {"total_env_steps": 160}, "module": {"engine": engine}}
    heard, module, _ = run(callbacks=[Listener()], **options)
    alone, other, _ = run(**options)
    assert len(Listener.gradients) == heard.global_step == alone.global_step == 12
    assert min(Listener.gradients) > 0
    tolerance = {"rtol": 0, "atol": 0} if engine == "eager" else {"rtol": 1e-3, "atol": 1e-5}
    torch.testing.assert_close(module.state_dict(), other.state_dict(), **tolerance)


def test_targets_follow_each_update() -> None:
    class Watch(Callback):
        targets: ClassVar[list[torch.Tensor]] = []
        critics: ClassVar[list[torch.Tensor]] = []

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            self.targets.append(pl_module.agent.target_critic.layers[0].weight.clone())
            self.critics.append(pl_module.agent.critic.layers[0].weight.detach().clone())

    watch = Watch()
    run(callbacks=[watch], collect={"total_env_steps": 160})
    assert len(watch.targets) == 12
    for before, after, critic in zip(watch.targets, watch.targets[1:], watch.critics[1:], strict=False):
        torch.testing.assert_close(after, 0.995 * before + 0.005 * critic)
        assert not torch.equal(before, after)


def test_one_optimizer_with_a_rate_per_part(env: Environment) -> None:
    module = make_module(
        env,
        agent=partial(SAC, actor_learning_rate=1e-3, critic_learning_rate=2e-3, temperature_learning_rate=3e-3),
        decomposition=partial(RRD, learning_rate=4e-3),
    )
    groups = {group["name"]: group["lr"] for group in module.configure_optimizers().param_groups}
    assert groups == {"reward": 4e-3, "actor": 1e-3, "critic": 2e-3, "temperature": 3e-3}


def test_updates_and_env_steps_are_counted() -> None:
    trainer, module, data = run(collect={"total_env_steps": 300})
    # Warm-up of 100 steps, then (300 - 100) / 20 iterations of 4 updates.
    assert module.env_steps == 300
    assert trainer.global_step == 40
    assert len(data.replay) == 300


def test_reward_alone(env: Environment) -> None:
    before = copy.deepcopy(run(collect={"total_env_steps": 120}, module={"train_policy": False})[1])
    _, module, _ = run(module={"train_policy": False})
    for name, parameter in module.agent.named_parameters():
        assert torch.equal(parameter, dict(before.agent.named_parameters())[name])
    changed = [
        not torch.equal(*pair)
        for pair in zip(module.decomposition.parameters(), before.decomposition.parameters(), strict=True)
    ]
    assert all(changed)
    with pytest.raises(ParameterError, match="without it this decomposition learns nothing"):
        make_module(env, train_policy=False, decomposition=EpisodicReward)


def test_gradients_are_clipped_per_group(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    clip = torch.nn.utils.clip_grad_norm_

    def spy(parameters: list, limit: float) -> torch.Tensor:
        norm = clip(parameters, limit)
        norms.append(torch.cat([parameter.grad.flatten() for parameter in parameters]).norm().item())
        return norm

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spy)
    run(module={"gradient_clip": {"critic": 1e-3}}, collect={"total_env_steps": 140})
    assert len(norms) == 8  # one group, each update
    assert max(norms) <= 1.001e-3
    with pytest.raises(ParameterError, match="gradient_clip='critics': must be one of the groups"):
        make_module(env, gradient_clip={"critics": 1.0})
    with pytest.raises(ParameterError, match=r"gradient_clip.critic=-1.0: must be greater than zero"):
        make_module(env, gradient_clip={"critic": -1.0})


def test_one_seed_gives_one_run_to_the_last_bit() -> None:
    states = []
    for seed in (0, 0, 1):
        _, module, data = run(seed=seed, collect={"num_envs": 2}, evaluate={"every_n_env_steps": 100})
        states.append((module.state_dict(), data.replay.storage[:]))
    (weights, stored), (same_weights, same_stored), (other_weights, _) = states
    assert all(torch.equal(weights[name], same_weights[name]) for name in weights)
    assert (stored == same_stored).all()
    assert any(not torch.equal(weights[name], other_weights[name]) for name in weights)


def test_several_updates_in_a_step_are_the_same_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit, and logged as often; four updates in an iteration by three are three and one.

    So they are where batches are gathered when they are used.
    """
    runs = []
    for count, together in ((1, 2**25), (3, 2**25), (4, 2**25), (3, 0)):
        monkeypatch.setattr("rrd_lightning.replay.buffer.GATHERED_TOGETHER", together)
        name = f"by-{count}-{together}"
        logger = CSVLogger(".", name=name)
        data = {"updates_per_step": count}
        trainer, module, _ = run(data=data, evaluate={}, log_every_n_steps=4, logger=logger)
        assert (module.env_steps, trainer.global_step) == (300, 40)
        runs.append((module.state_dict(), rows(name)))
    for weights, logged in runs[1:]:
        assert_same(weights, runs[0][0])
        assert logged == runs[0][1]
        assert len(logged) >= 10


def test_components_can_be_copied() -> None:
    agent = SAC(Box(-1, 1, (2,)), Box(-1, 1, (1,)), gamma=0.5)
    twin = copy.deepcopy(agent)
    assert twin.init_args == agent.init_args
    assert twin.gamma == 0.5


class Eager(SAC):
    """An agent of a user, that passes its options on."""

    def __init__(
        self, observation_space: Space, action_space: Space, bonus: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(observation_space, action_space, **kwargs)
        self.bonus = bonus


def test_options_that_are_passed_on_are_remembered(env: Environment) -> None:
    spaces = (env.observation_space, env.action_space)
    agent = Agent.build(Eager(*spaces, bonus=2.0, gamma=0.5, hidden_sizes=(8,)).configuration(), *spaces)
    assert isinstance(agent, Eager)
    assert (agent.bonus, agent.gamma, agent.init_args["hidden_sizes"]) == (2.0, 0.5, [8])
    with pytest.raises(ParameterError, match=r"bonus=.*must be a number, a string, a list or"):
        Eager(*spaces, bonus=torch.ones(2))  # type: ignore[arg-type]


def test_options_out_of_range(env: Environment) -> None:
    for options, message in (
        ({"agent": partial(SAC, actor_learning_rate=-1.0)}, "actor_learning_rate=-1.0: must not be negative"),
        ({"agent": partial(SAC, hidden_sizes=(8, 0))}, r"hidden_sizes=\[8, 0\]: every layer"),
        ({"decomposition": partial(RRD, hidden_sizes=(0,))}, r"hidden_sizes=\[0\]: every layer"),
        ({"decomposition": partial(RRD, learning_rate=-1.0)}, "learning_rate=-1.0: must not be negative"),
    ):
        with pytest.raises(ParameterError, match=message):
            make_module(env, **options)
    with pytest.raises(ParameterError, match="rrd_sample_size=1: must be at least 2 for the bias correction"):
        run(module={"decomposition": partial(RRD, bias_correction=True)}, data={"rrd_sample_size": 1})


@pytest.mark.parametrize("yardstick", [EnvironmentReward, EpisodicReward])
def test_yardsticks_train_the_agent(yardstick: type) -> None:
    trainer, module, _ = run(module={"decomposition": yardstick}, evaluate={})
    assert trainer.global_step == 40
    assert not list(module.decomposition.parameters())


@pytest.mark.filterwarnings("ignore:.*bfloat16.*:UserWarning")
@pytest.mark.parametrize("env_id", ["Follow-v0", "Pixels-v0"])
def test_bfloat16_by_autocast(env_id: str) -> None:
    trainer, module, _ = run(env_id, collect={"total_env_steps": 140}, precision="bf16-mixed")
    assert trainer.global_step == 8
    assert all(each.dtype == torch.float32 and each.isfinite().all() for each in module.parameters())
    assert all(value.isfinite() for name, value in trainer.callback_metrics.items() if name.startswith("loss/"))


@pytest.mark.parametrize("precision", ["16-mixed", "64-true", "bf16-true"])
def test_other_precisions_are_refused(precision: str) -> None:
    module = make_module(Environment("Follow-v0"))
    module.trainer = SimpleNamespace(precision=precision)
    with pytest.raises(ParameterError, match=f"precision='{precision}': must be one of 32-true, bf16-mixed"):
        module.setup("fit")


def test_hooks_that_are_never_called_are_told() -> None:
    class Listener(Callback):
        def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
            raise AssertionError

    with pytest.warns(UserWarning, match=r"Listener.on_after_backward: never called, since updates"):
        run(callbacks=[Listener()], collect={"total_env_steps": 120})


def test_matmul_precision_is_torch_s_where_it_is_given() -> None:
    run(collect={"total_env_steps": 120}, module={"matmul_precision": "high"})
    assert torch.get_float32_matmul_precision() == "high"
    torch.set_float32_matmul_precision("highest")
    run(collect={"total_env_steps": 120})
    assert torch.get_float32_matmul_precision() == "highest"


class UncheckedRate(EpisodicReward):
    """A user's, with a learning rate that nothing looks at."""

    def __init__(self, observation_space: Space, action_space: Space, *, rate: float = 1e-3) -> None:
        super().__init__(observation_space, action_space)
        self.rate, self.weight = rate, torch.nn.Parameter(torch.zeros(1))

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"name": "reward", "params": [self.weight], "lr": self.rate}]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    env = Environment("Follow-v0")
    for options in (
        {"agent": partial(SAC, critic_learning_rate=value)},
        {"agent": partial(SAC, initial_temperature=value)},
        {"decomposition": partial(RRD, learning_rate=value)},
        {"decomposition": partial(UncheckedRate, rate=value)},
        {"gradient_clip": {"critic": value}},
    ):
        with pytest.raises(
            ParameterError, match=r"(nan|inf): must (be a number|not be negative|be .*finite|be greater)"
        ):
            make_module(env, **options)
