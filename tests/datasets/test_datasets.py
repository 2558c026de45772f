"""Demonstrations: what is read from files, and what becomes of it in a run."""

from __future__ import annotations

import csv
import os
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from tensordict import TensorDict

from rrd_lightning import Environment, ParameterError, keys
from rrd_lightning.callbacks import Checkpoint, Collect
from rrd_lightning.cli import main
from rrd_lightning.datasets import Demonstrations, View
from rrd_lightning.datasets.cache import EpisodeCache, default_folder
from rrd_lightning.datasets.demonstrations import find
from rrd_lightning.datasets.feeding import fill, warn_of_alike_returns
from rrd_lightning.datasets.libero import LiberoFile, resize
from rrd_lightning.datasets.split import held_out_rows, share_of
from tests.resuming import KilledError, StopAt, assert_same
from tests.runs import make_collect, make_data, make_module, make_trainer

h5py = pytest.importorskip("h5py")

ROOT = Path(__file__).parents[2]
DEMOS = Path(os.environ.get("RRD_LIBERO_DEMOS", ROOT.parent / "shared/libero")) / "demos"
real = pytest.mark.skipif(not DEMOS.is_dir(), reason="RRD_LIBERO_DEMOS holds no folder demos")
SPACES = Dict({"agentview": Box(0, 255, (3, 4, 4), np.uint8)}), Box(-1, 1, (7,), np.float32)


def write_file(path: str | Path, demos: int = 1, steps: int = 5, size: int = 4, **attributes: Any) -> Path:
    """Write a file in LIBERO's layout; row t holds the number t, and its image one marked pixel."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs.update(attributes)
        for demo in range(demos):
            group = data.create_group(f"demo_{demo}")
            step = np.arange(steps)
            group["actions"] = np.repeat(step[:, None] / 10, 7, 1)
            group["rewards"] = (step == steps - 1).astype(np.uint8) * (demo % 2 == 0)
            group["robot_states"] = step[:, None] + np.arange(9) / 10
            images = np.zeros((steps, size, size, 3), np.uint8)
            images[:, 0, 1, 2] = 10 + step  # as rendered: first row, second column, blue
            group["obs/agentview_rgb"] = images
            group["obs/eye_in_hand_rgb"] = images + 1
    return Path(path)


def read_one(path: Path | str, spaces: Any = SPACES, **options: Any) -> TensorDict:
    demonstrations = Demonstrations(str(path), **options)
    ((_, episode),) = demonstrations.read(demonstrations.entries(spaces)[:1], spaces)
    return episode


def change(path: Path, key: str, value: Any) -> None:
    with h5py.File(path, "r+") as file:
        del file["data/demo_1"][key]
        if value is not None:
            file["data/demo_1"][key] = value


# LIBERO's files


@pytest.mark.parametrize(
    ("attributes", "option", "first_action"),
    [
        ({}, None, 1),  # LIBERO's way: obs[0] is from after action 0
        ({"obs_alignment": "obs[t] and states[t] are before actions[t]"}, None, 0),
        ({"obs_alignment": "after"}, "before", 0),
        ({"obs_alignment": "before"}, "after", 1),
    ],
)
def test_alignment(attributes: dict[str, str], option: Any, first_action: int) -> None:
    path = write_file("a.hdf5", steps=5, **attributes)
    episode = read_one(path, view=View(alignment=option))
    # Five observations are left for four actions: row t is observation t, whatever came before it.
    assert episode[keys.OBSERVATION, "agentview"][:, 2, 3, 1].tolist() == [10, 11, 12, 13, 14]
    actions = [0.0, 0.1, 0.2, 0.3, 0.4][first_action : first_action + 4]
    assert episode[keys.ACTION][:, 0].tolist() == pytest.approx(actions)
    assert episode[keys.REWARD].tolist() == [0.0, 0.0, 0.0, float(first_action)]
    # The success of the last action counts, also where its transition is lost.
    assert episode[keys.EPISODE_RETURN] == 1
    assert episode[keys.TERMINATED]
    assert episode[keys.SUCCESS]


def test_an_alignment_that_says_nothing_is_an_error() -> None:
    path = write_file("a.hdf5", obs_alignment="sideways")
    with pytest.raises(ParameterError, match=r"a.hdf5/data.obs_alignment.*sideways.*give data.alignment"):
        read_one(path)
    assert len(read_one(path, view=View(alignment="after"))[keys.ACTION]) == 4


def test_success_is_the_return_and_the_attribute_wins() -> None:
    path = write_file("a.hdf5", demos=3)
    with h5py.File(path, "r+") as file:
        file["data/demo_2"].attrs["success"] = False
        file["data/demo_0/rewards"][...] = 1
    demonstrations = Demonstrations(str(path))
    episodes = [episode for _, episode in demonstrations.read(demonstrations.entries(SPACES), SPACES)]
    assert [float(episode[keys.EPISODE_RETURN]) for episode in episodes] == [1, 0, 0]
    assert episodes[0][keys.REWARD].tolist() == [1, 1, 1, 1]
    assert [bool(episode[keys.TERMINATED]) for episode in episodes] == [True, False, False]


def test_images_are_upright_and_cameras_and_proprioception_follow_the_spaces() -> None:
    parts = {key: Box(0, 255, (3, 4, 4), np.uint8) for key in ("agentview", "wrist")}
    spaces = Dict({**parts, "proprioception": Box(-9, 9, (9,), np.float32)}), SPACES[1]
    observation = read_one(write_file("a.hdf5"), spaces)[keys.OBSERVATION]
    assert observation.batch_size == (5,)
    for key, background in (("agentview", 0), ("wrist", 1)):
        image = observation[key][0]
        assert image.dtype == torch.uint8
        assert image[2, 3, 1] == 10 + background  # last row now, same column, blue
        assert (image != background).sum() == 1
    # robot_states is gripper, position, quaternion; the gripper goes last.
    expected = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.0, 0.1]
    assert observation["proprioception"][0].tolist() == pytest.approx(expected)


def test_spaces_of_the_files() -> None:
    path = str(write_file("a.hdf5"))
    observation_space, action_space = (
        Demonstrations(path).observation_space,
        Demonstrations(path).action_space,
    )
    assert (observation_space, action_space) == SPACES
    view = View(image_size=2, cameras=("wrist",), proprioception=True)
    shown: Any = Demonstrations(path, view=view).observation_space
    assert {key: part.shape for key, part in shown.items()} == {"wrist": (3, 2, 2), "proprioception": (9,)}
    write_file("b.hdf5", size=8)
    with pytest.raises(ParameterError, match=r"b.hdf5.*give data.image_size"):
        _ = Demonstrations([path, "b.hdf5"]).observation_space


def test_shrinking_takes_means_of_areas() -> None:
    image = torch.tensor([[0, 100, 10, 10], [100, 200, 10, 12]], dtype=torch.uint8)
    assert resize(image.expand(70, 3, 2, 4), (1, 2))[69, 0].tolist() == [[100, 10]]  # 10.5 to even
    assert resize(image.expand(1, 3, 2, 4), (2, 4))[0, 0].tolist() == image.tolist()
    assert resize(image.expand(1, 3, 2, 4), (4, 8)).shape == (1, 3, 4, 8)


# Damage


BAD: list[tuple[str, Any, str]] = [
    ("actions", None, "actions': is missing"),
    ("actions", np.zeros((0, 7)), "actions': has no step"),
    ("actions", np.zeros((1, 7)), "actions': has one step"),
    ("actions", np.zeros((5, 6)), r"actions': has shape \[5, 6\], must be \[any, 7\]"),
    ("actions", np.full((5, 7), np.nan), "actions': holds a number that is not finite"),
    ("rewards", None, "rewards': is missing"),
    ("rewards", np.zeros(4), r"rewards': has shape \[4\], must be \[5\]"),
    ("rewards", np.array([b"x"] * 5), "rewards': holds .*not numbers"),
    ("obs/agentview_rgb", None, "obs/agentview_rgb': is missing"),
    ("obs/agentview_rgb", np.zeros((4, 4, 4, 3), np.uint8), r"obs/agentview_rgb': has shape \[4, 4, 4, 3\]"),
    ("obs/agentview_rgb", np.zeros((5, 4, 4, 3)), "obs/agentview_rgb': is float64 .*not uint8"),
    ("obs", None, "obs/agentview_rgb': is missing"),
]


@pytest.mark.parametrize(("key", "value", "message"), BAD)
def test_a_bad_demonstration_is_named_or_skipped(key: str, value: Any, message: str) -> None:
    path = write_file("a.hdf5", demos=3)
    change(path, key, value)
    with pytest.raises(ParameterError, match=f"a.hdf5/demo_1/{message}"):
        Demonstrations("a.hdf5").entries(SPACES)
    with pytest.warns(UserWarning, match=f"skipped: .*a.hdf5/demo_1/{message}"):
        entries = Demonstrations("a.hdf5", skip_bad=True).entries(SPACES)
    assert [entry.name for entry in entries] == ["a.hdf5/demo_0", "a.hdf5/demo_2"]


def test_damage_in_the_pixels_is_found_when_they_are_read() -> None:
    path = write_file("a.hdf5", demos=2)
    with h5py.File(path, "r+") as file:
        del file["data/demo_0/obs/agentview_rgb"]
        images = file["data/demo_0/obs"].create_dataset(
            "agentview_rgb",
            data=np.random.default_rng(0).integers(0, 255, (5, 4, 4, 3), np.uint8),
            chunks=(5, 4, 4, 3),
            compression="gzip",
        )
        offset = images.id.get_chunk_info(0).byte_offset
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 20)
    with pytest.raises(ParameterError, match=r"a.hdf5/demo_0/obs/agentview_rgb': is damaged"):
        read_one(path)
    demonstrations = Demonstrations("a.hdf5", skip_bad=True)
    with pytest.warns(UserWarning, match="skipped"):
        read = dict(demonstrations.read(demonstrations.entries(SPACES), SPACES))
    assert list(read) == ["a.hdf5/demo_1"]


def test_a_damaged_file_is_named_or_skipped() -> None:
    Path("demos/deeper").mkdir(parents=True)
    write_file("demos/deeper/b.hdf5")
    whole = write_file("demos/a.hdf5").read_bytes()
    for content in (b"no HDF5", whole[: len(whole) // 2], b""):
        Path("demos/a.hdf5").write_bytes(content)
        with pytest.raises(ParameterError, match=r"demos/a.hdf5': is damaged or not an HDF5 file"):
            Demonstrations("demos").entries(SPACES)
    with pytest.warns(UserWarning, match="skipped: .*a.hdf5"):
        (entry,) = Demonstrations("demos", skip_bad=True).entries(SPACES)
    assert entry.name == "demos/deeper/b.hdf5/demo_0"
    with h5py.File("demos/a.hdf5", "w"):
        pass
    with pytest.raises(ParameterError, match=r"demos/a.hdf5/data': is missing"):
        Demonstrations("demos").entries(SPACES)
    with (
        pytest.warns(UserWarning, match="skipped"),
        pytest.raises(ParameterError, match="hold no good demonstration"),
    ):
        Demonstrations("demos/a.hdf5", skip_bad=True).entries(SPACES)


def test_places_that_hold_nothing() -> None:
    Path("empty").mkdir()
    for place, message in (("empty", "holds no file"), ("nowhere", "neither a file nor a folder")):
        with pytest.raises(ParameterError, match=f"data.demonstrations='{place}': .*{message}"):
            find([place])
    write_file("a.hdf5")
    assert find(["a.hdf5", ".", "minari:x/y-v0"]) == ["a.hdf5", "minari:x/y-v0"]


def test_spaces_that_files_cannot_serve() -> None:
    write_file("a.hdf5")
    for spaces in (
        (Box(-1, 1, (3,)), SPACES[1]),
        (Dict({"depth": Box(0, 1, (3, 4, 4))}), SPACES[1]),
        (Dict({"proprioception": Box(-1, 1, (8,))}), SPACES[1]),
        (SPACES[0], Box(-1, 1, (6,))),
    ):
        with pytest.raises(ParameterError, match=r"a.hdf5': LIBERO's files show"):
            Demonstrations("a.hdf5").entries(spaces)


# The cache


def test_resized_episodes_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_file("a.hdf5", size=8)
    reads: list[str] = []
    read = LiberoFile._read
    monkeypatch.setattr(LiberoFile, "_read", lambda self, *args: (reads.append(args[0]), read(self, *args))[1])

    def get(size: int, **options: Any) -> TensorDict:
        spaces = Dict({"agentview": Box(0, 255, (3, size, size), np.uint8)}), SPACES[1]
        return read_one(path, spaces, cache_dir="cache", view=View(**options))

    first, second = get(4), get(4)
    assert len(reads) == 1
    assert second[keys.OBSERVATION].batch_size == (5,)
    assert_same(first.to_dict(), second.to_dict())
    for options in ({"size": 2}, {"size": 4, "alignment": "before"}):
        get(**options)
    assert len(reads) == 3
    os.utime(path, ns=(1, 1))  # another file, as far as anyone can tell
    get(4)
    assert len(reads) == 4
    for file in Path("cache").rglob("*.pt"):
        file.write_bytes(b"damaged")
    assert_same(get(4).to_dict(), first.to_dict())
    assert len(reads) == 5
    get(8)
    assert len(list(Path("cache").rglob("*.pt"))) == 4  # the files' own size needs no copy
    assert not list(Path("cache").rglob("*.part"))


def test_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_folder() == Path("/somewhere/rrd_lightning")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_folder() == Path.home() / ".cache/rrd_lightning"
    path = write_file("a.hdf5")
    with pytest.raises(ParameterError, match=r"data.cache_dir='/proc/nowhere': cannot be written to"):
        EpisodeCache("/proc/nowhere").get(path, "demo_0", "", lambda: read_one(path))


# The split


def test_split_holds_out_of_each_outcome() -> None:
    outcomes = [True] * 20 + [False] * 10 + [None] * 5
    rows = held_out_rows(outcomes, 0.2, seed=3)
    assert [sum(outcomes[row] is kind for row in rows) for kind in (True, False, None)] == [4, 2, 1]
    assert rows == held_out_rows(outcomes, 0.2, seed=3)
    assert any(rows != held_out_rows(outcomes, 0.2, seed=seed) for seed in range(5))
    for share in (0.01, 0.5, 0.99):  # two of each are enough for both sides
        rows = held_out_rows([True, False, True, False], share, seed=0)
        assert len(rows) == 2
        assert {row % 2 for row in rows} == {0, 1}
    assert held_out_rows([True, False, False], 0.5, seed=0) < {1, 2}
    assert held_out_rows(outcomes, 0, seed=0) == set()
    assert held_out_rows(outcomes, 1, seed=0) == set(range(35))


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_processes_share_without_loss_or_repetition(processes: int) -> None:
    shares = [share_of(range(7), process, processes) for process in range(processes)]
    assert sorted(item for share in shares for item in share) == list(range(7))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_share_must_be_a_share(share: float) -> None:
    write_file("a.hdf5")
    with pytest.raises(ParameterError, match=f"data.held_out={share}"):
        make_data(demonstrations="a.hdf5", held_out=share)


# The real files


@real
def test_real_files_become_episodes(caplog: pytest.LogCaptureFixture) -> None:
    demonstrations = Demonstrations(
        str(DEMOS), view=View(image_size=32, proprioception=True), cache_dir="cache"
    )
    spaces = demonstrations.observation_space, demonstrations.action_space
    entries = demonstrations.entries(spaces)
    assert len(entries) == 72
    assert sum(bool(entry.facts.success) for entry in entries) == 36
    some = [entry for entry in entries if entry.episode in {"demo_0", "demo_5"}]
    replay = make_data().replay
    for (name, episode), entry in zip(demonstrations.read(some, spaces), some, strict=True):
        assert name == entry.name
        assert len(episode[keys.ACTION]) == entry.facts.length
        assert episode[keys.OBSERVATION, "agentview"].shape == (entry.facts.length + 1, 3, 32, 32)
        assert float(episode[keys.EPISODE_RETURN]) == entry.facts.success == ("_demo.hdf5" in name)
        replay.add_episode(episode)
    assert len(replay) == sum(entry.facts.length for entry in some)
    assert replay.sample()[keys.TRANSITIONS][keys.OBSERVATION, "agentview"].dtype == torch.uint8


@real
def test_real_pixels_and_arm() -> None:
    path = DEMOS / "turn_on_the_stove_demo.hdf5"
    view = View(cameras=("agentview", "wrist"), proprioception=True)
    demonstrations = Demonstrations(str(path), view=view)
    spaces = demonstrations.observation_space, demonstrations.action_space
    ((_, episode),) = demonstrations.read(demonstrations.entries(spaces)[:1], spaces)
    observation = episode[keys.OBSERVATION]
    with h5py.File(path) as file:
        demo = file["data/demo_0"]
        assert np.array_equal(observation["wrist"][7, 1], demo["obs/eye_in_hand_rgb"][7][::-1, :, 1])
        assert np.array_equal(episode[keys.ACTION], demo["actions"][:-1].astype(np.float32))
        arm = observation["proprioception"].numpy()
        assert np.allclose(arm[:, :3], demo["obs/ee_pos"][:], atol=1e-6)
        # The same rotation as the file's axis times angle, and a unit quaternion.
        angle = np.linalg.norm(demo["obs/ee_ori"][:], axis=1)
        assert np.allclose(arm[:, 6], np.cos(angle / 2), atol=1e-3)
        assert np.allclose(np.linalg.norm(arm[:, 3:7], axis=1), 1, atol=1e-5)
        assert np.allclose(arm[:, 7:], demo["obs/gripper_states"][:], atol=1e-4)


# Minari


@pytest.fixture
def pendulum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A local data set of twelve Pendulum episodes, by the name that `demonstrations` takes."""
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    env = gymnasium.make("Pendulum-v1", max_episode_steps=30)
    env.action_space.seed(0)
    buffers = []
    for index in range(12):
        observation, _ = env.reset(seed=index)
        episode = {"observations": [observation], "actions": [], "rewards": []}
        flags = {"terminations": [], "truncations": []}
        for _ in range(30):
            action = env.action_space.sample()
            observation, reward, *ended, _ = env.step(action)
            for key, value in zip(episode, (observation, action, reward), strict=True):
                episode[key].append(value)
            for key, value in zip(flags, ended, strict=True):
                flags[key].append(value)
        buffers.append(minari.data_collector.EpisodeBuffer(id=index, **episode, **flags))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the data set does not say of itself
        minari.create_dataset_from_buffers("test/pendulum-v0", buffer=buffers, env=env)
    return "minari:test/pendulum-v0"


def test_minari_episodes(pendulum: str) -> None:
    import minari

    demonstrations = Demonstrations(pendulum)
    env = Environment("Pendulum-v1")
    spaces = env.observation_space, env.action_space
    assert (demonstrations.observation_space, demonstrations.action_space) == spaces
    entries = demonstrations.entries(spaces)
    assert [entry.facts.length for entry in entries] == [30] * 12
    (name, episode), *_ = demonstrations.read(entries, spaces)
    assert name == f"{pendulum}/0"
    stored = minari.load_dataset("test/pendulum-v0")[0]
    assert np.array_equal(episode[keys.OBSERVATION], stored.observations)
    assert episode[keys.ACTION].abs().max() <= 1
    assert np.allclose(episode[keys.ACTION] * 2, stored.actions)  # Pendulum's bounds are -2 and 2
    assert float(episode[keys.EPISODE_RETURN]) == pytest.approx(stored.rewards.sum())
    assert not episode[keys.TERMINATED]
    make_data().replay.add_episode(episode)
    with pytest.raises(ParameterError, match="pendulum-v0/0/observation': is of"):
        demonstrations.entries((Box(-1, 1, (4,)), spaces[1]))


def test_minari_that_is_not_here(pendulum: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParameterError, match=r"minari:no/such-v0.*minari download no/such-v0"):
        _ = Demonstrations("minari:no/such-v0").observation_space
    for module, place in (("minari", pendulum), ("h5py", str(write_file("a.hdf5")))):
        monkeypatch.setitem(__import__("sys").modules, module, None)
        with pytest.raises(ParameterError, match=rf"needs {module}: pip install .*\[demonstrations\]"):
            _ = Demonstrations(place).observation_space


# Runs


def offline(
    pendulum: str, name: str, ckpt_path: str | None = None, stop_at: int | None = None, **data: Any
) -> dict[str, Any]:
    """Learn from the data set alone, and return everything that the run ended with."""
    torch.manual_seed(0 if ckpt_path is None else 12345)
    options = {"held_out": 0.25, "train_batches": 5, "iterations_per_epoch": 2, **data}
    datamodule = make_data(demonstrations=pendulum, **options)
    assert datamodule.demonstrations is not None
    module = make_module(datamodule.demonstrations, train_policy=True)
    trainer = make_trainer(
        Checkpoint(every_n_env_steps=5),
        *([StopAt(stop_at)] if stop_at else []),
        logger=CSVLogger(".", name=name, flush_logs_every_n_steps=1),
        log_every_n_steps=2,
        enable_checkpointing=True,
        max_steps=30,
    )
    try:
        trainer.fit(module, datamodule, ckpt_path=ckpt_path)
    except KilledError:
        return {}
    table = datamodule.replay.episodes
    return {
        "weights": module.state_dict(),
        "optimizer": trainer.optimizers[0].state_dict()["state"],
        "replay": datamodule.replay.records(table["start"], table["length"]),
        "generator": datamodule.replay.sampler.state_dict(),
        "held out": [episode.to_dict() for episode in datamodule.val_dataloader()],
    }


def test_an_offline_run_that_is_resumed_ends_with_the_same_bits(pendulum: str) -> None:
    whole = offline(pendulum, "whole")
    assert len(whole["held out"]) == 3
    assert len(whole["replay"][keys.REWARD]) == 9 * 31
    # Stopped within an iteration and an epoch; the seed of the resumed run is another one.
    assert offline(pendulum, "first", stop_at=17) == {}
    resumed = offline(pendulum, "second", ckpt_path="first/version_0/checkpoints/last.ckpt")
    for key in ("weights", "optimizer", "replay", "generator"):
        assert_same(whole[key], resumed[key])
    for one, other in zip(whole["held out"], resumed["held out"], strict=True):
        assert_same(one, other)
    with Path("second/version_0/metrics.csv").open() as file:
        steps = [int(float(row["step"])) for row in csv.DictReader(file)]
    assert steps[0] == 16  # the x axis is updates
    assert steps[-1] == 30


def test_a_checkpoint_brings_the_replay_and_nothing_is_read_twice(
    pendulum: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert offline(pendulum, "first", stop_at=17) == {}
    reads: list[Any] = []
    monkeypatch.setattr("rrd_lightning.data.fill", lambda *args: reads.append(args))
    offline(pendulum, "second", ckpt_path="first/version_0/checkpoints/last.ckpt")
    assert not reads


def test_demonstrations_are_the_start_of_an_online_run(pendulum: str) -> None:
    env = Environment("Pendulum-v1", max_episode_steps=30)
    data = make_data(demonstrations=pendulum)
    collect = make_collect(env, warmup_steps=300, total_env_steps=400)
    trainer = make_trainer(collect)
    trainer.fit(make_module(env), data)
    assert isinstance(collect, Collect)
    # 360 transitions make a warm-up needless: 20 steps and 4 updates at a time from the first on.
    assert trainer.global_step == 4 * 400 // 20
    assert len(data.replay.episodes) == 12 + 400 // 30
    assert data.replay.episodes["length"].tolist() == [30] * 25


def test_returns_that_hardly_vary_are_told_loudly() -> None:
    for returns in ([1.0] * 5, [0.0] * 3, [100.0, 100.5], [7.0]):
        values = np.array(returns)
        with pytest.warns(UserWarning, match=r"HARDLY VARY .*constant reward explains.*Add failed episodes"):
            warn_of_alike_returns(values.mean(), np.square(values).mean())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_alike_returns(0.5, 0.5)  # half successes, half failures
        warn_of_alike_returns(-100.0, 100.0**2 + 4)


def test_a_replay_of_successes_alone_is_told_loudly() -> None:
    write_file("a.hdf5", demos=5)  # every second one fails
    process: Any = SimpleNamespace(world_size=1, global_rank=0, is_global_zero=True, progress_bar_callback=None)
    replay = make_data().replay
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fill(replay, Demonstrations("a.hdf5"), SPACES, process)
    assert replay.episodes["episode_return"].tolist() == [1, 0, 1, 0, 1]
    with h5py.File("a.hdf5", "r+") as file:
        for demo in file["data"].values():
            demo.attrs["success"] = True
    with pytest.warns(UserWarning, match="HARDLY VARY"):
        fill(make_data().replay, Demonstrations("a.hdf5"), SPACES, process)


def test_held_out_episodes_are_validated_on_and_not_trained_on(pendulum: str) -> None:
    class Count(Callback):
        lengths: ClassVar[list[int]] = []

        def on_validation_batch_end(self, trainer: Any, module: Any, predicted: Any, *args: Any) -> None:
            self.lengths.append(len(predicted))

    data = make_data(demonstrations=pendulum, held_out=0.25)
    module = make_module(Demonstrations(pendulum))
    count = Count()
    trainer = make_trainer(count, max_steps=12)
    trainer.fit(module, data)
    assert count.lengths == [30] * 3  # after the epoch of twelve updates
    trained = data.replay.storage[:][keys.OBSERVATION].view(9, 31, 3)
    for episode in data.val_dataloader():
        assert not any(torch.equal(episode[keys.OBSERVATION], other) for other in trained)
    trainer.validate(module, data, verbose=False)
    trainer.test(module, data, verbose=False)
    assert count.lengths == [30] * 6


def test_a_replay_too_small_and_a_split_that_leaves_nothing(pendulum: str) -> None:
    with pytest.raises(ParameterError, match=r"data.capacity=300: .*: 360 is enough"):
        offline(pendulum, "run", capacity=300, held_out=0.0)
    with pytest.raises(ParameterError, match=r"data.held_out=1.0: leaves 0 demonstrations to train on"):
        offline(pendulum, "run", held_out=1.0)


# The command line


def test_offline_command(pendulum: str) -> None:
    args = ["--data.train_batches=2", "--trainer.max_steps=6", "--trainer.accelerator=cpu"]
    args += ["--trainer.log_every_n_steps=2", "--data.held_out=0.5", "--checkpoint.every_n_env_steps=3"]
    main(["fit", "--config", "libero_offline", f"--data.demonstrations={pendulum}", *args])
    (last,) = Path("runs/demonstrations/version_0/checkpoints").glob("last.ckpt")
    saved = torch.load(last, weights_only=True)
    assert (saved["env_steps"], saved["global_step"]) == (0, 6)
    assert [group["name"] for group in saved["optimizer_states"][0]["param_groups"]] == ["reward"]
    with Path("runs/demonstrations/version_0/metrics.csv").open() as file:
        assert [float(row["step"]) for row in csv.DictReader(file)] == [2, 4, 6]
    main(["validate", "--ckpt_path", str(last), "--trainer.accelerator=cpu"])
    main(["fit", "--ckpt_path=last", "--trainer.max_steps=8", "--trainer.accelerator=cpu"])
    resumed = torch.load("runs/demonstrations/version_2/checkpoints/last.ckpt", weights_only=True)
    assert resumed["global_step"] == 8
    main(
        [
            "fit",
            "--config",
            "libero_offline",
            f"--data.demonstrations={pendulum}",
            *args,
            "--model.train_policy=true",
        ]
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "env.id=None: is missing: name an environment, or give data.demonstrations"),
        (["--data.demonstrations=nowhere"], "data.demonstrations='nowhere': is neither a file nor a folder"),
        (["--data.demonstrations=PENDULUM", "--trainer.max_steps=-1"], "trainer.max_steps=-1: is the budget"),
        (["--data.demonstrations=PENDULUM", "--data.capacity=100"], "data.capacity=100: is too small"),
    ],
)
def test_offline_errors(pendulum: str, args: list[str], message: str) -> None:
    args = [arg.replace("PENDULUM", pendulum) for arg in args]
    with pytest.raises(SystemExit, match=f"error: {message}"):
        main(["fit", "--config", "libero_offline", "--trainer.accelerator=cpu", *args])
    assert not Path("runs").exists()
