"""Phases of a run: what trains in each, how they resume, and a sparse task that they solve."""

from __future__ import annotations

from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback

from rrd_lightning import ParameterError, RRDModule
from rrd_lightning.agents import SAC, Agent
from rrd_lightning.decomposition import RRD
from rrd_lightning.networks import Normalization, find_class
from rrd_lightning.phases import Phase, Phases
from tests.demonstrations import ScriptedReader
from tests.resuming import StopAt, StopAtEnvStep, assert_same, fit, rows
from tests.runs import SMALL, run

LOSSES = ["reward", "actor", "critic", "temperature", "cloning"]
PHASES = [
    Phase("model", 5, ["reward"]),
    Phase("clone", 7, ["cloning"]),
    Phase("value", 3, ["critic", "reward"]),
]
CLONES: dict[str, Any] = {
    "agent": partial(SAC, **SMALL, cloning_weight=1.0, cloning_steps=100),
    "phases": PHASES,
}
DATA: dict[str, Any] = {"demonstrations": ScriptedReader(), "demonstration_share": 0.5, "balance_success": True}


def recipe() -> dict[str, Any]:
    """All that the packaged configuration libero_policy sets of the model, with small networks and phases."""
    model = yaml.safe_load((files("rrd_lightning.configs") / "libero_policy.yaml").read_text())["model"]
    agent = {**model["agent"]["init_args"], **SMALL, "cloning_steps": 100}
    return {
        "agent": partial(find_class(model["agent"]["class_path"], Agent), **agent),
        "decomposition": partial(RRD, **model["decomposition"]["init_args"], **SMALL),
        "normalize_observations": Normalization(**model["normalize_observations"]),
        "phases": PHASES,
    }


def test_which_phase_an_update_is_of() -> None:
    phases = Phases(PHASES, LOSSES)
    assert [phase.name for phase in phases.phases] == ["model", "clone", "value", "everything"]
    assert phases.before_collection == 15
    for updates, name, left in ((0, "model", 5), (4, "model", 1), (5, "clone", 7), (14, "value", 1)):
        assert (phases.at(updates).name, phases.left(updates)) == (name, left)
    for updates in (15, 10**6):
        assert (phases.at(updates).name, phases.left(updates)) == ("everything", 0)
    assert Phases([], LOSSES).left(0) == Phases([Phase("frozen", None, ["actor"])], LOSSES).left(0) == 0
    assert str(PHASES[2]) == "Phase value: critic, reward train for 3 updates"


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([Phase("a", 5, ["clone"])], r"phases.a.train=\['clone'\]: must be some of \['reward', 'actor'"),
        ([Phase("a", 5, [])], r"phases.a.train=\[\]: must be some of"),
        ([Phase("a", 0)], r"phases.a.updates=0: must be greater than zero"),
        (
            [Phase("a"), Phase("b")],
            r"phases.a.updates=None: must be a number of updates in every phase but the",
        ),
        ([Phase("a", 1), Phase("a")], r"phases=\['a', 'a'\]: must have different names"),
    ],
)
def test_senseless_phases(phases: list[Phase], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Phases(phases, LOSSES)


class Watch(Callback):
    """Which parts of the module change in each update, by the update's number, and where the run was."""

    def __init__(self) -> None:
        self.changed: list[set[str]] = []
        self.env_steps: list[int] = []
        self.demonstrated: list[float] = []

    def parts(self, module: RRDModule) -> dict[str, torch.Tensor]:
        groups = module._parameter_groups()
        return {each["name"]: torch.cat([p.detach().flatten() for p in each["params"]]) for each in groups}

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._before = self.parts(pl_module)
        self.demonstrated.append(float(batch["transitions", "demonstration"].float().mean()))
        self.env_steps.append(pl_module.env_steps)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        after = self.parts(pl_module)
        self.changed.append({name for name in after if not torch.equal(after[name], self._before[name])})


def test_each_phase_trains_its_own_parts_before_the_first_step(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch()
    with caplog.at_level("INFO"):
        run(
            "Reach-v0",
            module=CLONES,
            data=DATA,
            collect={"total_env_steps": 200},
            callbacks=[watch],
            log_every_n_steps=1,
            evaluate={"episodes": 1, "every_n_env_steps": 1000},
        )
    everything = {"reward", "actor", "critic", "temperature"}
    assert watch.changed[:15] == [{"reward"}] * 5 + [{"actor"}] * 7 + [{"critic", "reward"}] * 3
    assert all(changed == everything for changed in watch.changed[15:])
    assert watch.env_steps[:15] == [0] * 15
    assert watch.demonstrated[:15] == [1.0] * 15
    assert watch.env_steps[15:19] == [20] * 4
    assert watch.env_steps[-1] == 200
    # 20 steps are no finished episode yet; later half of the transitions are collected ones.
    assert watch.demonstrated[-1] == 0.5
    said = [text for text in caplog.messages if text.startswith("Phase")]
    assert said[0] == "Phase model: reward train for 5 updates"
    assert said[-1] == "Phase everything: all losses train"
    assert len(said) == 4
    # The x axis: updates that are left, then environment steps; the evaluation in between is at zero.
    logged = rows("logs")
    steps = [int(row["step"]) for row in logged]
    assert steps == sorted(steps)
    assert steps[:3] == [-14, -13, -12]
    assert [int(row["step"]) for row in logged if "evaluate/return_mean" in row] == [0, 200]
    weights = {int(row["step"]): float(row["agent/cloning_weight"]) for row in logged if "loss/cloning" in row}
    assert weights[-5] == weights[-4] == 1
    assert weights[20] == pytest.approx(0.8)
    assert max(weights) == 80
    assert not any("loss/critic" in row for row in logged if int(row["step"]) < -3)


@pytest.mark.parametrize(
    ("model", "updates_per_step", "stop_at"),
    [(CLONES, 1, 5), (CLONES, 3, 15), (CLONES, 3, 18), *((recipe(), 1, update) for update in (4, 9, 14, 30))],
)
def test_stopped_in_each_phase_and_resumed(model: dict[str, Any], updates_per_step: int, stop_at: int) -> None:
    """Steps of three updates are of 3 and 2 in the first phase of 5."""
    data = {**DATA, "updates_per_step": updates_per_step}
    options: dict[str, Any] = {**model, "data": data, "total": 160}
    whole = fit("Reach-v0", "whole", **options)
    assert whole["updates"] == 15 + 4 * 8
    assert fit("Reach-v0", "first", stop_at=StopAt(stop_at), **options) == {}
    saved = Path("first/version_0/checkpoints/last.ckpt")
    assert torch.load(saved, weights_only=True)["global_step"] > 0
    assert_same(whole, fit("Reach-v0", "second", ckpt_path=saved, **options))
    later = rows("second")
    assert later == rows("whole")[-len(later) :]


def test_after_phases_observations_are_normalised_as_in_them() -> None:
    _, module, data = run("Reach-v0", module=recipe(), data=DATA, collect={"total_env_steps": 400})
    assert module.normalizer is not None
    (moments,) = module.normalizer.moments.values()
    rows = data.replay.episodes
    demonstrated = rows["length"][rows["demonstration"]]
    assert len(data.replay) > demonstrated.sum()
    assert moments.count == (demonstrated + 1).sum()


def test_what_phases_have_made_is_evaluated_and_may_be_the_best(capsys: pytest.CaptureFixture) -> None:
    fit(
        "Reach-v0",
        "run",
        stop_at=StopAtEnvStep(20),
        every=1000,
        data=DATA,
        checkpoint={"save_top_k": -1},
        **CLONES,
    )
    kept = {path.name for path in Path("run/version_0/checkpoints").glob("*.ckpt")}
    assert kept == {"updates=15.ckpt", "best.ckpt", "last.ckpt"}
    module = RRDModule.load_from_checkpoint("run/version_0/checkpoints/best.ckpt")
    assert [phase.name for phase in module.phases.phases] == ["model", "clone", "value", "everything"]


def test_a_delayed_actor_is_cloned_in_every_update_of_a_phase_of_cloning() -> None:
    """And with its own loss in the updates that have that one; an update without any loss changes nothing."""
    watch = Watch()
    phases = [Phase("clone", 4, ["cloning"]), Phase("actor", 4, ["actor", "cloning"])]
    agent = partial(SAC, **SMALL, cloning_weight=1.0, policy_delay=2)
    collect = {"total_env_steps": 120}
    run("Reach-v0", module={"agent": agent, "phases": phases}, data=DATA, collect=collect, callbacks=[watch])
    assert watch.changed[:8] == [{"actor"}] * 4 + [set(), {"actor"}] * 2
    assert watch.changed[8:10] == [{"reward", "critic"}, {"reward", "critic", "actor", "temperature"}]


@pytest.mark.parametrize(
    ("module", "data", "message"),
    [
        ({"phases": PHASES[:1]}, {}, r"model.phases=\['model'\]: learn from demonstrations"),
        ({"agent": CLONES["agent"]}, {}, "agent.cloning_weight=1.0: needs data.demonstrations"),
        (CLONES, {**DATA, "demonstrations": ScriptedReader(0, 3)}, "needs a demonstration that has not failed"),
        (
            CLONES,
            {**DATA, "capacity": 220},
            r"data.capacity=220: must be at least 225, with room for an episode",
        ),
        ({**CLONES, "engine": "cpp"}, DATA, "model.engine='cpp': .* runs without phases"),
        ({"agent": CLONES["agent"], "engine": "cpp"}, DATA, "serves cloning_weight 0.0, not 1.0"),
    ],
)
def test_senseless_settings_are_errors_before_training(
    module: dict[str, Any], data: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError, match=message):
        run("Reach-v0", module=module, data=data)


def test_a_phase_of_cloning_without_its_weight() -> None:
    with pytest.raises(ParameterError, match=r"phases.clone.train=.*: must be some of"):
        run("Reach-v0", module={"phases": PHASES}, data=DATA)


def success_after(**options: Any) -> float:
    trainer, _, _ = run(
        "Reach-v0",
        evaluate={"episodes": 20, "every_n_env_steps": 10_000},
        collect={"env_steps_per_iteration": 20, "warmup_steps": 100, "total_env_steps": 1500},
        **options,
    )
    return float(trainer.callback_metrics["evaluate/success"])


def test_demonstrations_and_cloning_solve_a_sparse_task_and_nothing_else_does() -> None:
    plain = {"hidden_sizes": (32, 32), "gamma": 0.95, "initial_temperature": 0.01}
    fast = {"actor_learning_rate": 1e-3, "critic_learning_rate": 1e-3}
    data = {"train_batches": 10, "updates_per_step": 10, "batch_size": 64}
    alone = {"agent": partial(SAC, **plain, **fast)}
    assert success_after(module=alone, data=data) == 0
    agent = partial(SAC, **plain, **fast, cloning_weight=1.0, cloning_steps=1000, normalize_value=True)
    phases = [
        Phase("model", 200, ["reward"]),
        Phase("clone", 300, ["cloning"]),
        Phase("value", 100, ["critic"]),
    ]
    assert success_after(module={"agent": agent, "phases": phases}, data={**data, **DATA}) >= 0.9
