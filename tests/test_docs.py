"""What the documentation says is true."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.loggers import CSVLogger

from rrd_lightning import RRDModule, agents, decomposition
from rrd_lightning.callbacks import Monitor, Plots
from rrd_lightning.cli import main
from rrd_lightning.component import Component
from rrd_lightning.judging import summarize
from tests.judged import make_judged
from tests.logs import read_csv
from tests.runs import run

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + [
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*.md")),
]


METRICS = (ROOT / "docs/metrics.md").read_text()
AGENTS = [each for each in vars(agents).values() if isinstance(each, type) and each.__dict__.get("metrics")]


def code_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)


def documented_metrics() -> dict[str, str]:
    """The description of each metric, by its name."""
    found: dict[str, str] = {}
    for line in (ROOT / "docs/metrics.md").read_text().splitlines():
        if line.startswith("| `"):
            names, description = line.removeprefix("| ").removesuffix(" |").split(" | ", 1)
            first, *others = re.findall(r"`([^`]+)`", names)
            for name in (first, *(first.rpartition("_")[0] + other for other in others)):
                found[name] = description
    return found


ROOMS = (agents, decomposition)
COMPONENTS = [each for room in ROOMS for each in vars(room).values() if isinstance(each, type)]


@pytest.mark.parametrize("component", [each for each in COMPONENTS if getattr(each, "metrics", {})])
def test_each_component_has_a_table_of_what_it_logs(component: type[Component]) -> None:
    """On the page of metrics, in the component's own words."""
    page = (ROOT / "docs/metrics.md").read_text()
    _, _, following = page.partition(f"### {component.__name__}\n\n| name | meaning |\n|---|---|\n")
    table, _, _ = following.partition("\n\n")
    assert table.splitlines() == [f"| `{name}` | {meaning} |" for name, meaning in component.metrics.items()]


def test_every_metric_is_documented_and_every_documented_metric_logged() -> None:
    run(evaluate={"episodes": 2, "every_n_env_steps": 100}, log_every_n_steps=4, callbacks=[Monitor()])
    logged = set().union(*(row.keys() for row in read_csv())) - {"step", "epoch"}
    # Some figures take a success and a failure.
    ends = [make_judged([1.0, 2.0], [0.0, 1.0], success=success) for success in (True, False)]
    logged |= {f"evaluate/{name}" for name in summarize(ends)}
    for component in COMPONENTS:
        logged |= getattr(component, "metrics", {}).keys()
    assert logged == documented_metrics().keys()


def test_readme_python_runs() -> None:
    fit, play = code_blocks("README.md")
    # The same ten lines, on a budget.
    for long, short in (
        ("total_env_steps=100_000", "total_env_steps=2300, warmup_steps=2000"),
        ("every_n_env_steps=10_000", "every_n_env_steps=10_000, episodes=1"),
        ("train_batches=100", "train_batches=2"),
        ("max_epochs=-1", "max_epochs=-1, accelerator='cpu', enable_progress_bar=False"),
    ):
        assert long in fit
        fit = fit.replace(long, short)
    names: dict = {}
    exec(fit, names)
    assert names["module"].env_steps == 2300
    played: dict = {}
    exec(play, played)
    assert played["env"].action_space.contains(played["action"])
    assert played["done"]
    assert np.isfinite(played["predicted"])


def test_the_walk_for_contributors_is_one_file_one_test_and_one_configuration_each(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    agent, learned, test = code_blocks("CONTRIBUTING.md")
    (config,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.DOTALL)
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package/dpg.py").write_text(agent)
    (tmp_path / "my_package/state_reward.py").write_text(learned)
    (tmp_path / "my_task.yaml").write_text(config)
    monkeypatch.syspath_prepend(tmp_path)
    names: dict = {}
    exec(test, names)
    tests = [each for name, each in names.items() if name.startswith("test_")]
    assert len(tests) == 2
    for each in tests:
        each()
    main(["fit", "--config", "debug", "--config", "my_task.yaml"])
    last = "runs/Pendulum-v1/version_0/checkpoints/last.ckpt"
    main(["test", "--ckpt_path", last])
    module = RRDModule.load_from_checkpoint(last)
    assert type(module.agent).__name__ == "DPG"
    assert module.agent.noise == 0.2
    assert type(module.decomposition).__name__ == "StateReward"


def test_networks_of_the_page_on_networks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (example,) = code_blocks("docs/networks.md")
    (config,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/networks.md").read_text(), flags=re.DOTALL)
    (tmp_path / "my_networks.py").write_text(example + "\n\nMyReward = MyCritic\n")
    (tmp_path / "mine.yaml").write_text(config)
    monkeypatch.syspath_prepend(tmp_path)
    main(["fit", "--config", "debug", "--config", "mine.yaml"])
    module = RRDModule.load_from_checkpoint("runs/Pendulum-v1/version_0/checkpoints/last.ckpt")
    assert [type(each).__name__ for each in module.agent.critic.members] == ["MyCritic"] * 2
    assert type(module.decomposition.model.network).__name__ == "MyCritic"
    assert len(module.agent.actor.layers) == 7


def test_reader_example_runs_by_its_class_path_and_is_resumed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, example, _ = code_blocks("docs/demonstrations.md")
    (tmp_path / "my_readers.py").write_text(example)
    monkeypatch.syspath_prepend(tmp_path)
    Path("demos").mkdir()
    for number in range(4):
        observation, action = np.full((9, 3), number, np.float32), np.zeros((8, 2), np.float32)
        np.savez(
            f"demos/{number}.npz",
            observation=observation,
            action=action,
            episode_return=number,
            terminated=False,
        )
    reader = ["--data.demonstrations=my_readers.NpzReader", "--data.demonstrations.folder=demos"]
    tiny = ["--data.train_batches=2", "--data.capacity=100", "--trainer.accelerator=cpu"]
    options = ["--data.demonstrations.return_scale=0.5", *tiny, "--trainer.max_steps=2"]
    main(["fit", "--config=mujoco_offline", *reader, *options])
    main(["fit", "--ckpt_path=last", "--trainer.max_steps=4", "--trainer.accelerator=cpu"])
    for version, updates in ((0, 2), (1, 4)):
        checkpoint = Path(f"runs/demonstrations/version_{version}/checkpoints/last.ckpt")
        saved = torch.load(checkpoint, weights_only=True)
        assert saved["global_step"] == updates
        assert saved["config"]["data"]["demonstrations"] == {
            "class_path": "my_readers.NpzReader",
            "init_args": {"folder": "demos", "return_scale": 0.5},
        }
        (episodes,) = checkpoint.parent.glob(f"{saved['replay']}/rank-0/episodes-*.pt")
        returns = torch.load(episodes, weights_only=True)["episode_return"].tolist()
        assert len(returns) == 3  # one is held out
        assert set(returns) < {0.0, 0.5, 1.0, 1.5}
    Path("demos/0.npz").write_bytes(b"damaged")
    with pytest.raises(SystemExit, match=r"error: data.demonstrations='demos/0': cannot be read"):
        main(["validate", "--ckpt_path=last", "--trainer.accelerator=cpu"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_commands_of_the_readme_parse() -> None:
    lines = [line.strip() for line in (ROOT / "README.md").read_text().splitlines()]
    commands = [line.split()[1:] for line in lines if line.startswith("rrd fit --config")]
    assert len(commands) == 7
    for command in commands:
        command = [part.replace("my_package.envs:MyTask-v0", "Pendulum-v1") for part in command]
        with pytest.raises(SystemExit) as stop:
            main([*command, "--print_config"])
        assert stop.value.code == 0


def test_pictures_name_their_path(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        run(evaluate={"episodes": 1}, callbacks=[Plots()], logger=CSVLogger(".", name="logs"))
    assert "Picture of the run: logs/version_0/plots/evaluation-000000300.png" in caplog.text


ALGORITHMS = ROOT / "docs/algorithms"
ABSTRACT = {"Agent", "ActorCritic", "Decomposition", "LearnedReward"}
CONCRETE = [each for each in COMPONENTS if issubclass(each, Component) and each.__name__ not in ABSTRACT]


def settings_of(page: Path, heading: str) -> dict[str, str]:
    """The defaults of a page's table of options."""
    _, _, part = page.read_text().partition(f"## {heading}\n")
    rows = re.findall(r"^\| `(\w+)` \| `([^|]*)` \|", part.partition("\n## ")[0], flags=re.MULTILINE)
    return dict(rows)


def defaults_of(component: type[Component]) -> dict[str, str]:
    """The options of a component that have defaults, as YAML has them."""
    parameters = list(inspect.signature(component.__init__).parameters.values())[3:]
    named = [each for each in parameters if each.kind is each.KEYWORD_ONLY and each.default is not each.empty]
    return {each.name: yaml_of(each.default) for each in named}


def yaml_of(default: Any) -> str:
    return str(list(default)) if isinstance(default, tuple) else json.dumps(default).strip('"')


@pytest.mark.parametrize("component", CONCRETE)
def test_each_component_has_a_page_with_its_own_options(component: type[Component]) -> None:
    (page,) = (each for each in ALGORITHMS.glob("*.md") if f"(`{component.__name__}`)\n" in each.read_text())
    found, own = settings_of(page, "Settings"), defaults_of(component)
    assert found.keys() == own.keys()
    assert all(str(found[name]) == own[name] or float(found[name]) == float(own[name]) for name in own)
    assert f"({page.name})" in (ALGORITHMS / "README.md").read_text()


def test_shared_options_have_their_own_tables() -> None:
    index = ALGORITHMS / "README.md"
    shared = {"actor-critics": agents.ActorCritic, "reward models": decomposition.LearnedReward}
    for heading, component in shared.items():
        found, own = settings_of(index, f"Options of {heading}"), defaults_of(component)
        assert found.keys() == own.keys()
        assert all(found[name] == own[name] or float(found[name]) == float(own[name]) for name in own)


def commands_of(page: Path) -> list[str]:
    """Those of blocks and of tables that name a packaged configuration."""
    found = re.findall(r"(?:^    |`)(rrd fit --config [^`\n]+)", page.read_text(), flags=re.MULTILINE)
    return [each for each in found if "FOLDER" not in each and "my_package" not in each]


WITH_COMMANDS = [ROOT / "README.md", ROOT / "docs/migration.md", *sorted(ALGORITHMS.glob("*.md"))]
COMMANDS = sorted({command for page in WITH_COMMANDS for command in commands_of(page)})


def config_of(command: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The whole configuration of a command, which is only parsed."""
    with pytest.raises(SystemExit) as stop:
        main([*command.split()[1:], "--print_config"])
    assert stop.value.code == 0
    config: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return config


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_pages_parse(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_of(command, capsys)
    for part in ("agent", "decomposition"):
        if option := re.search(rf"--model.{part} (\w+)", command):
            assert config["model"][part]["class_path"].endswith(f".{option[1]}")


def test_each_option_that_the_migration_names_exists(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs/migration.md").read_text()
    named = {tuple(name.split(".")) for name in re.findall(r"`--(\w+\.[\w.]+)", text)}
    components = {name[2] for name in named if name[0] == "model" and name[2:]}
    options: set[str] = set()
    for component in [*CONCRETE, agents.ActorCritic, decomposition.LearnedReward]:
        options |= defaults_of(component).keys()
    assert components <= options
    config = config_of("rrd fit --config debug", capsys)
    for section, option, *_ in named:
        assert option in config[section], option


def test_sections_that_errors_name_are_there() -> None:
    page = (ROOT / "docs/troubleshooting.md").read_text()
    there = {heading.lower().replace(" ", "-") for heading in re.findall(r"^## (.*)$", page, re.M)}
    code = "".join(path.read_text() for path in (ROOT / "rrd_lightning").rglob("*.py"))
    named = set(re.findall(r"(?:section=|SECTION = )\"([a-z-]+)\"", code))
    assert named <= there
    assert {"memory-and-disk", "checkpoints", "options-of-the-trainer"} <= named
