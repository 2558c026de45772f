"""Which engine a run has, and that what a user changes is never passed over."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor

from rrd_lightning import ParameterError, RRDModule, keys
from rrd_lightning.agents import SAC, ActorCritic, sac
from rrd_lightning.agents.squashed_gaussian import SquashedGaussian
from rrd_lightning.decomposition import RRD, EpisodicReward, rrd
from rrd_lightning.engines import CppTwin, CudaGraph, Eager, Setting, choose_engine
from rrd_lightning.kernels import library_here
from rrd_lightning.losses import Losses
from rrd_lightning.networks import MLP, Linear
from tests.runs import SMALL, run
from tests.updates import gradients, make_engine, make_update

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
needs_compiler = pytest.mark.skipif(library_here() is None, reason="there is no C++ compiler")


class OtherLosses(SAC):
    def losses(self, transitions: Any, reward: Tensor, updates: int = 0) -> Losses:
        found = super().losses(transitions, reward, updates)
        return Losses({**found.losses, "critic": 3 * found.losses["critic"]}, found.metrics)


class OtherTarget(SAC):
    def target(self, *arguments: Any) -> Tensor:
        return super().target(*arguments) + 1


class OtherPolicy(SAC):
    def policy(self, features: Tensor) -> SquashedGaussian:
        return SquashedGaussian(0.5 * self.actor(features))


class OtherBootstrap(SAC):
    def bootstrap(self, *arguments: Any) -> Tensor:
        return 2 * super().bootstrap(*arguments)


class OtherReward(RRD):
    def reward(self, transitions: Any) -> Tensor:
        return super().reward(transitions).tanh()


class OtherLoss(RRD):
    def losses(self, batch: Any) -> Losses:
        found = super().losses(batch)
        return Losses({"reward": 2 * found.losses["reward"]}, found.metrics)


class OtherModule(RRDModule):
    def losses(self, batch: Any, updates: int = 0) -> Losses:
        found = super().losses(batch, updates)
        return Losses({name: 0.5 * loss for name, loss in found.losses.items()}, found.metrics)


class Doubled(MLP):
    def forward(self, inputs: Tensor) -> Tensor:
        return 2 * super().forward(inputs)


CHANGED = {
    "losses of the agent": {"agent": OtherLosses},
    "target": {"agent": OtherTarget},
    "policy": {"agent": OtherPolicy},
    "bootstrap": {"agent": OtherBootstrap},
    "reward": {"decomposition": OtherReward},
    "losses of the decomposition": {"decomposition": OtherLoss},
    "critic": {"agent": partial(SAC, critic=Doubled)},
    "reward model": {"decomposition": partial(RRD, network=Doubled)},
    "layer norm": {"agent": partial(SAC, layer_norm=True)},
    "activation": {"decomposition": partial(RRD, activation="tanh")},
    "scale of the output": {"decomposition": partial(RRD, output_scale=0.1)},
    "five critics": {"agent": partial(SAC, num_critics=5)},
    "two of three critics": {"agent": partial(SAC, num_critics=3, critics_in_target=2)},
    "mean of critics": {"agent": partial(SAC, actor_value="mean")},
}


def make(module: type[RRDModule] = RRDModule, **options: Any) -> RRDModule:
    return module(Box(-1, 1, (4,)), Box(-1, 1, (2,)), **options)


def chosen(module: RRDModule, name: Any = "auto", device: torch.device = CPU, **run: Any) -> tuple[Any, str]:
    return choose_engine(name, module, Setting(device, **run))


@needs_compiler
def test_the_fastest_that_serves_is_taken_and_the_log_says_why_no_faster_one() -> None:
    assert chosen(make()) == (CppTwin, "Engine: cpp")
    assert chosen(make(decomposition=EpisodicReward)) == (CppTwin, "Engine: cpp")
    engine, said = chosen(make(agent=partial(SAC, num_critics=5)))
    assert (engine, said) == (Eager, "Engine: eager (cpp: it serves two critics, not 5 of 5)")
    # A GPU's own engine has to be asked for.
    assert chosen(make(), device=CUDA) == (Eager, "Engine: eager")
    assert chosen(make(), "cuda_graph", CUDA) == (CudaGraph, "Engine: cuda_graph")
    for given, reason in (
        ({"precision": "bf16-mixed"}, "it serves trainer.precision 32-true, not bf16-mixed"),
        ({"redefined": "Mine has its own losses"}, "Mine has its own losses"),
    ):
        assert chosen(make(), **given) == (Eager, f"Engine: eager (cpp: {reason})")


@needs_compiler
def test_what_was_asked_for_by_name_and_cannot_serve_is_an_error() -> None:
    for name, device, options, problem in (
        ("cpp", CUDA, {}, "it is for the CPU, not for cuda"),
        ("cuda_graph", CPU, {}, "it is for CUDA, not for cpu"),
        ("cuda_graph", CUDA, {"listened": True}, "listens to the optimizer's step"),
        ("cuda", CPU, {}, "must be auto, eager, cpp, cuda_graph"),
    ):
        with pytest.raises(ParameterError, match=f"model.engine='{name}': .*{problem}"):
            chosen(make(), name, device, **options)
    with pytest.raises(ParameterError, match=r"model.engine='cpp': cannot serve .*: it serves two critics"):
        run(module={"engine": "cpp", "agent": partial(SAC, num_critics=3)})


@pytest.mark.parametrize("change", CHANGED)
def test_what_a_user_changes_is_what_is_trained(change: str) -> None:
    """By default: the engine that is chosen gives the gradients of the module's own losses."""
    options: Any = {"agent": partial(SAC, **SMALL), "decomposition": partial(RRD, **SMALL), **CHANGED[change]}
    module = RRDModule(Box(-1, 1, (5,)), Box(-1, 1, (3,)), **options)
    _, batch = make_update([8])
    engine, _ = chosen(module)
    torch.manual_seed(3)
    expected = module.losses(batch)
    torch.manual_seed(3)
    make_engine(module, engine).gradients(batch, 0)
    found = gradients(module)
    module.zero_grad()
    expected.backward()
    torch.testing.assert_close(found, gradients(module), rtol=1e-3, atol=1e-5)


def test_a_module_with_losses_of_its_own_is_asked_in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    losses = RRDModule.losses

    def spy(self: RRDModule, batch: Any, updates: int = 0) -> Losses:
        asked.append(updates)
        return losses(self, batch, updates)

    assert chosen(make(OtherModule), redefined="OtherModule has its own losses")[0] is Eager
    with monkeypatch.context() as patch:
        patch.setattr("tests.runs.RRDModule", OtherModule)
        patch.setattr(RRDModule, "losses", spy)
        trainer, _, _ = run(collect={"total_env_steps": 140})
    assert asked == list(range(trainer.global_step)) == list(range(8))


def doubled(found: Losses) -> Losses:
    return Losses({name: 2 * loss for name, loss in found.losses.items()}, found.metrics)


@needs_compiler
@pytest.mark.parametrize(
    ("where", "name", "change"),
    [
        (MLP, "forward", lambda old: lambda self, inputs: 1.1 * old(self, inputs)),
        (Linear, "forward", lambda old: lambda self, inputs: old(self, inputs) + inputs.mean()),
        (SAC, "losses", lambda old: lambda self, *given: doubled(old(self, *given))),
        (sac, "critic_loss", lambda old: lambda value, target: (value - target).abs().mean(-1).sum()),
        (sac, "actor_loss", lambda old: lambda *given: 2 * old(*given)),
        (rrd, "rrd_loss", lambda old: lambda *given, **options: 2 * old(*given, **options)),
        (SquashedGaussian, "sample_with_log_prob", lambda old: lambda self: (self.mean, self.mean.sum(-1))),
    ],
)
def test_a_definition_that_was_edited_is_noticed_in_the_first_update(
    where: Any, name: str, change: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a fork of the package, where no class has another name. Nothing is trained by what is not asked."""
    module, batch = make_update([16])
    monkeypatch.setattr(where, name, change(getattr(where, name)))
    engine = make_engine(module, CppTwin)
    torch.manual_seed(0)
    with pytest.warns(
        UserWarning, match=r"Engine: eager \(cpp: the gradient of .* is not that of the module's own"
    ):
        engine.gradients(batch, 0)
    found = gradients(module)
    torch.manual_seed(0)
    make_engine(module, Eager).gradients(batch, 0)
    torch.testing.assert_close(found, gradients(module))
    module.engine = "cpp"
    with pytest.raises(
        ParameterError, match=r"model.engine='cpp': cannot go on: the gradient of .*: use eager"
    ):
        make_engine(module, CppTwin).gradients(batch, 0)


@needs_compiler
def test_replaced_methods_and_hooks_are_seen_before_training() -> None:
    module = make()
    module.agent.losses = module.agent.losses  # type: ignore[method-assign]
    assert chosen(module)[1] == "Engine: eager (cpp: SAC.losses was replaced)"
    module = make()
    module.decomposition.model.network.register_forward_hook(lambda *_: None)
    assert chosen(module)[1] == "Engine: eager (cpp: RRD has hooks)"
    module = make().double()
    assert "is not of float32" in chosen(module)[1]


@needs_compiler
def test_the_run_says_its_engine(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        run(collect={"total_env_steps": 120})
        run(collect={"total_env_steps": 120}, module={"agent": partial(SAC, layer_norm=True)})
    assert "Engine: cpp\n" in caplog.text
    assert "Engine: eager (cpp: a critic has LayerNorm)" in caplog.text


def stopped_after(module: RRDModule, change: Any) -> tuple[RRDModule, RRDModule]:
    """Ten eager updates and ten in C++, with a change of the module after five."""
    _, batch = make_update([16])
    trained = []
    for kind in (Eager, CppTwin):
        own = copy.deepcopy(module)
        engine = make_engine(own, kind)
        torch.manual_seed(0)
        for update in range(10):
            if update == 5:
                change(own, engine)
            engine.begin()
            engine.update(batch, update)
        trained.append(own)
    return trained[0], trained[1]


def three_critics(module: RRDModule, engine: Any) -> None:
    torch.manual_seed(3)
    module.agent.critic = MLP(8, 1, hidden_sizes=[16], members=3)
    module.agent.target_critic = copy.deepcopy(module.agent.critic).requires_grad_(False)
    engine.optimizer.param_groups[2]["params"] = list(module.agent.critic.parameters())


def double_output(layer: Any, inputs: Any, outputs: Tensor) -> Tensor:
    return 2 * outputs


LATER = {
    "frozen actor": lambda module, _: module.agent.actor.requires_grad_(False),
    "frozen layer": lambda module, _: module.decomposition.model.network.layers[0].requires_grad_(False),
    "mean of critics": lambda module, _: setattr(module.agent, "actor_value", "mean"),
    "hook of a parameter": lambda module, _: module.agent.actor.layers[0].weight.register_hook(lambda g: 2 * g),
    "hook of a layer": lambda module, _: module.agent.actor.layers[0].register_forward_hook(double_output),
    "activation": lambda module, _: module.agent.actor.layers.__setitem__(1, torch.nn.Tanh()),
    "method": lambda module, _: setattr(module.agent, "target", lambda *given: given[1]),
    "three critics": three_critics,
}


@needs_compiler
@pytest.mark.parametrize("change", LATER)
@pytest.mark.filterwarnings("ignore:Engine. eager:UserWarning")
def test_a_change_in_the_middle_of_training_is_what_is_trained(change: str) -> None:
    module, _ = make_update([16])
    expected, found = stopped_after(module, LATER[change])
    torch.testing.assert_close(found.state_dict(), expected.state_dict(), rtol=1e-3, atol=1e-5)


@needs_compiler
def test_hooks_of_the_optimizer_are_called() -> None:
    def clamp(module: RRDModule, engine: Any) -> None:
        engine.optimizer.register_step_post_hook(
            lambda *_: [parameter.data.clamp_(-0.1, 0.1) for parameter in module.agent.actor.parameters()]
        )

    module, _ = make_update([16])
    expected, found = stopped_after(module, clamp)
    assert max(float(each.detach().abs().max()) for each in found.agent.actor.parameters()) < 0.1001
    torch.testing.assert_close(found.state_dict(), expected.state_dict(), rtol=1e-3, atol=1e-5)


@needs_compiler
def test_what_only_later_batches_show_is_noticed_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A definition that forgets terminations, where the first batch has none."""
    module, batch = make_update([16])
    ending = batch.clone()
    batch[keys.TRANSITIONS, keys.TERMINATED][:] = False
    monkeypatch.setattr(ActorCritic, "bootstrap", lambda self, reward, _, value: reward + self.gamma * value)
    engine = make_engine(module, CppTwin)
    engine.gradients(batch, 0)
    engine.gradients(ending, 999)
    with pytest.warns(UserWarning, match=r"Engine: eager \(cpp: the gradient of"):
        engine.gradients(ending, 1000)


@needs_compiler
def test_networks_that_an_agent_was_given_are_looked_at() -> None:
    """Whatever its options say: of another size, C++ would write past the end of its memory."""

    def make_agent(*spaces: Any, **parts: Any) -> SAC:
        agent = SAC(*spaces, **SMALL)
        for name, part in parts.items():
            setattr(agent, name, part)
        return agent

    three = MLP(6, 1, hidden_sizes=[16, 16], members=3)
    for parts, reason in (
        ({"critic": three, "target_critic": copy.deepcopy(three)}, "an actor of the usual widths"),
        ({"target_critic": three}, "the target critics have another shape"),
        ({"target_critic": torch.nn.Sequential()}, "a target critic is of Sequential"),
        ({"actor": MLP(4, 6, hidden_sizes=[16])}, "an actor of the usual widths"),
        ({"actor": MLP(4, 4, hidden_sizes=[16], members=2)}, "an actor of the usual widths"),
    ):
        assert reason in chosen(make(agent=partial(make_agent, **parts)))[1]


class Misspelt(SAC):
    def losses(self, transitions: Any, reward: Tensor, updates: int = 0) -> Losses:
        found = super().losses(transitions, reward, updates)
        return Losses({f"{name}s": loss for name, loss in found.losses.items()}, found.metrics)


def test_names_of_losses() -> None:
    module, batch = make_update([8])
    module.agent.__class__ = Misspelt
    message = r"losses=\['actors', 'critics', 'temperatures'\]: have no parameter group"
    with pytest.raises(ParameterError, match=message):
        make_engine(module).gradients(batch, 0)
    one, other = Losses({"critic": torch.ones(())}), Losses({"critic": torch.zeros(())})
    with pytest.raises(ParameterError, match=r"losses=\['critic'\]: are names of both"):
        one | other
    Losses().backward()  # of nothing
