"""Packaged configurations, by name: ``rrd fit --config mujoco``."""
