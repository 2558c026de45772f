"""Networks that agents and decompositions are made of."""

from rrd_lightning.networks.convolutions import Convolutions, random_shift
from rrd_lightning.networks.mlp import MLP, EnsembleMLP
from rrd_lightning.networks.observations import Observation, ObservationParts

__all__ = ["MLP", "Convolutions", "EnsembleMLP", "Observation", "ObservationParts", "random_shift"]
