"""Episodes whose numbers tell what they are, replays of them, and a check of what is drawn."""

from __future__ import annotations

import torch
from tensordict import TensorDict

from rrd_lightning import keys
from rrd_lightning.replay import EpisodeReplay, PairedSampler


def make_replay(
    capacity: int = 100,
    batch_size: int = 64,
    rrd_batch_size: int = 12,
    rrd_sample_size: int = 4,
    replacement: bool = True,
    seed: int = 0,
    **storage: str,
) -> EpisodeReplay:
    sampler = PairedSampler(batch_size, rrd_batch_size, rrd_sample_size, replacement, seed)
    return EpisodeReplay(capacity, sampler, **storage)


def make_episode(identity: int, length: int, terminated: bool | None = None) -> TensorDict:
    """An episode whose numbers tell which episode and step they belong to."""
    step = torch.arange(length + 1, dtype=torch.float32)
    return TensorDict(
        {
            keys.OBSERVATION: torch.stack([torch.full_like(step, identity), step], -1),
            keys.ACTION: (1000 * identity + step[:-1])[:, None],
            keys.REWARD: 0.5 + step[:-1],
            keys.EPISODE_RETURN: torch.tensor(10.0 * identity + length),
            keys.TERMINATED: torch.tensor(identity % 2 == 0 if terminated is None else terminated),
        },
        [],
    )


def check_batch(batch: TensorDict, lengths: dict[int, int]) -> None:
    """Each number of a batch against the stored episodes, by identity and length."""
    transitions, subsequences = batch[keys.TRANSITIONS], batch[keys.SUBSEQUENCES]
    for part in (transitions, subsequences):
        identity, step = part[keys.OBSERVATION].unbind(-1)
        assert set(identity.unique().int().tolist()) <= lengths.keys()
        torch.testing.assert_close(
            part[keys.NEXT_OBSERVATION], torch.stack([identity, step + 1], -1), rtol=0, atol=0
        )
        torch.testing.assert_close(part[keys.ACTION][..., 0], 1000 * identity + step, rtol=0, atol=0)
        # One length and return per episode: per row in transitions, per subsequence otherwise.
        first = identity if part is transitions else identity[:, 0]
        length = torch.tensor([lengths[int(i)] for i in first])
        assert (identity == (first if part is transitions else first[:, None])).all()
        assert (part[keys.EPISODE_LENGTH] == length).all()
        assert (part[keys.EPISODE_RETURN] == 10 * first + length).all()
        assert (step < (length if part is transitions else length[:, None])).all()
    identity, step = transitions[keys.OBSERVATION].unbind(-1)
    done = step == transitions[keys.EPISODE_LENGTH] - 1
    assert (transitions[keys.REWARD] == 0.5 + step).all()
    assert (transitions[keys.DONE] == done).all()
    assert (transitions[keys.TERMINATED] == (done & (identity % 2 == 0))).all()
