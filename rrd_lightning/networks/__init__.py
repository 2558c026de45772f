"""Networks that agents and decompositions are made of."""

from rrd_lightning.networks.convolutions import Convolutions, random_shift
from rrd_lightning.networks.kernels import Kernels, compiled_kernels
from rrd_lightning.networks.mlp import MLP
from rrd_lightning.networks.observations import Observation, ObservationParts
from rrd_lightning.networks.tape import Scratch, Tape

__all__ = [
    "MLP",
    "Convolutions",
    "Kernels",
    "Observation",
    "ObservationParts",
    "Scratch",
    "Tape",
    "compiled_kernels",
    "random_shift",
]
