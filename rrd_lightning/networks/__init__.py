"""Networks: multilayer perceptrons, alone and as an ensemble that runs as one."""

from rrd_lightning.networks.mlp import MLP, EnsembleMLP

__all__ = ["MLP", "EnsembleMLP"]
