"""From the return of an episode to a reward for each of its steps."""

from rrd_lightning.decomposition.base import Decomposition
from rrd_lightning.decomposition.discriminator import SuccessDiscriminator, discriminator_loss
from rrd_lightning.decomposition.full_return import FullReturnDecomposition, full_return_loss
from rrd_lightning.decomposition.ircr import IRCR
from rrd_lightning.decomposition.learned import LearnedReward
from rrd_lightning.decomposition.reward_model import RewardModel
from rrd_lightning.decomposition.rrd import RRD, rrd_loss
from rrd_lightning.decomposition.rrd_ensemble import RRDEnsemble
from rrd_lightning.decomposition.uniform import UniformRedistribution
from rrd_lightning.decomposition.yardsticks import EnvironmentReward, EpisodicReward

__all__ = [
    "IRCR",
    "RRD",
    "Decomposition",
    "EnvironmentReward",
    "EpisodicReward",
    "FullReturnDecomposition",
    "LearnedReward",
    "RRDEnsemble",
    "RewardModel",
    "SuccessDiscriminator",
    "UniformRedistribution",
    "discriminator_loss",
    "full_return_loss",
    "rrd_loss",
]
