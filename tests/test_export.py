"""Exported programs are the module's own predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rrd_lightning import Environment, ParameterError, RRDModule
from rrd_lightning.cli import main
from rrd_lightning.decomposition import EnvironmentReward
from rrd_lightning.export import export
from tests.runs import make_module, run

onnxruntime: Any = pytest.importorskip("onnxruntime")


def save(env_id: str, **options: Any) -> RRDModule:
    trainer, module, _ = run(
        env_id, module={"normalize_observations": True, **options}, collect={"total_env_steps": 140}
    )
    trainer.save_checkpoint("trained.ckpt")
    return module.eval()


def inputs_of(program: Any, given: tuple[Any, ...]) -> dict[str, Any]:
    """By the names that ONNX gave them, in the order in which they were flattened."""
    flat = [part for each in given for part in (each.values() if isinstance(each, dict) else [each])]
    return dict(zip((each.name for each in program.get_inputs()), flat, strict=True))


@pytest.mark.filterwarnings("ignore")  # what torch.onnx thinks of itself and of its dependencies
@pytest.mark.parametrize("env_id", ["Bounded-v0", "Pixels-v0"])
def test_programs_predict_what_the_module_does(env_id: str) -> None:
    module = save_untrained("Bounded-v0") if env_id == "Bounded-v0" else save(env_id)
    written = export("trained.ckpt", onnx=True)
    assert [path.name for path in written] == ["policy.pt2", "policy.onnx", "reward.pt2", "reward.onnx"]
    observations = [module.observation_space.sample() for _ in range(5)]
    if isinstance(observations[0], dict):
        observation: Any = {key: np.stack([each[key] for each in observations]) for key in observations[0]}
    else:
        observation = np.stack(observations)
    action = np.stack([module.action_space.sample() for _ in range(5)])
    steps = observation, action, observation
    for name, given, expected in (
        ("policy", (observation,), module.predict(observation)),
        ("reward", steps, module.reward(*steps)),
    ):
        tensors = torch.utils._pytree.tree_map(torch.from_numpy, given)
        found = torch.export.load(f"exported/{name}.pt2").module()(*tensors)
        np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-4, atol=1e-5)
        program = onnxruntime.InferenceSession(f"exported/{name}.onnx")
        (found,) = program.run(None, inputs_of(program, given))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def save_untrained(env_id: str) -> RRDModule:
    """Of an environment whose episodes have no end."""
    env = Environment(env_id, max_episode_steps=10)
    trainer, module, _ = run_with(env)
    trainer.save_checkpoint("trained.ckpt")
    return module.eval()


def run_with(env: Environment) -> Any:
    from tests.runs import make_collect, make_data, make_trainer

    module, data = make_module(env), make_data()
    trainer = make_trainer(make_collect(env, total_env_steps=140))
    trainer.fit(module, data)
    return trainer, module, data


def test_from_the_command_line() -> None:
    save("Follow-v0", decomposition=EnvironmentReward)
    main(["export", "--ckpt_path", "trained.ckpt", "--output", "here"])
    # The true reward is no model.
    assert [path.name for path in Path("here").iterdir()] == ["policy.pt2"]
    with pytest.raises(SystemExit, match=r"error: ckpt_path='missing.ckpt': there is no such file"):
        main(["export", "--ckpt_path", "missing.ckpt"])
    with pytest.raises(ParameterError, match=r"output='trained.ckpt/x': cannot be written to"):
        export("trained.ckpt", "trained.ckpt/x")
