"""How an update is carried out: one definition, and several engines that must equal it."""

from rrd_lightning.engines.choice import ENGINES, EngineName, Setting, choose_engine
from rrd_lightning.engines.cpp import CppTwin
from rrd_lightning.engines.cuda_graph import CudaGraph
from rrd_lightning.engines.eager import Eager

__all__ = ["ENGINES", "CppTwin", "CudaGraph", "Eager", "EngineName", "Setting", "choose_engine"]
