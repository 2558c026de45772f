"""Networks that agents and decompositions are made of."""

from rrd_lightning.networks.convolutions import Convolutions, random_shift
from rrd_lightning.networks.encoder import CustomEncoder, Encoder, ObservationEncoder, make_encoder
from rrd_lightning.networks.ensemble import Ensemble
from rrd_lightning.networks.evaluating import evaluating
from rrd_lightning.networks.factory import NetworkConfig, find_class, make_ensemble, make_network
from rrd_lightning.networks.frozen import frozen
from rrd_lightning.networks.linear import LayerNorm, Linear
from rrd_lightning.networks.mlp import MLP
from rrd_lightning.networks.normalization import Normalization, ObservationNormalizer
from rrd_lightning.networks.observations import ActionVector, Observation, ObservationParts

__all__ = [
    "MLP",
    "ActionVector",
    "Convolutions",
    "CustomEncoder",
    "Encoder",
    "Ensemble",
    "LayerNorm",
    "Linear",
    "NetworkConfig",
    "Normalization",
    "Observation",
    "ObservationEncoder",
    "ObservationNormalizer",
    "ObservationParts",
    "evaluating",
    "find_class",
    "frozen",
    "make_encoder",
    "make_ensemble",
    "make_network",
    "random_shift",
]
