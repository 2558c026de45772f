"""LIBERO's cameras."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np

from rrd_lightning.envs.libero_installation import simulator_module

CAMERAS = {"agentview": "agentview", "wrist": "robot0_eye_in_hand"}


class Camera:
    """Renders the simulators that a scene has from reset to reset, in one graphics context.

    Robosuite would create a new context at each reset and upload all meshes and textures again, which
    takes 0.4 s in software.

    Args:
        sim: robosuite's simulator.
        fast: draw no shadows and no reflections.
    """

    def __init__(self, sim: Any, fast: bool) -> None:
        binding = simulator_module("robosuite.utils.binding_utils")
        self._context = binding.MjRenderContextOffscreen(sim, device_id=-1)
        # Group 0 holds collision shapes, group 1 visible ones.
        self._context.vopt.geomgroup[:2] = 0, 1
        if fast:
            mujoco = import_module("mujoco")
            for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
                self._context.scn.flags[flag] = 0
        self.look_at(sim)
        _release_context()

    def look_at(self, sim: Any) -> None:
        """Render this simulator from now on."""
        self._context.sim, self._context.model, self._context.data = sim, sim.model, sim.data

    def render(self, camera: str, size: int) -> np.ndarray[Any, Any]:
        """Return the camera's image, upright, uint8 ``[3, size, size]``."""
        context = self._context
        with self._current():
            context.render(size, size, context.model.camera_name2id(camera))
            bottom_up = context.read_pixels(size, size)
        return np.ascontiguousarray(bottom_up[::-1].transpose(2, 0, 1))

    def close(self) -> None:
        """Free the context."""
        # The context must be current: its objects are freed by number.
        with self._current():
            self._context.con.free()
        self._context = None

    @contextlib.contextmanager
    def _current(self) -> Iterator[None]:
        self._context.gl_ctx.make_current()
        try:
            yield
        finally:
            _release_context()


def _release_context() -> None:
    """Make sure that no OSMesa context is current.

    A context destroyed while current leaves dangling pointers, through which the next one crashes.
    MuJoCo's `GLContext.free` intends to release it first, but never detects that it is current, since it
    compares pointer objects by identity.
    """
    if os.environ.get("MUJOCO_GL") == "osmesa":
        gl, osmesa = import_module("OpenGL.GL"), import_module("OpenGL.osmesa")
        osmesa.OSMesaMakeCurrent(None, None, gl.GL_FLOAT, 0, 0)
