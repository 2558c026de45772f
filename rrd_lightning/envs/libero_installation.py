"""Checking LIBERO's installation, and importing it without its interactive prompts."""

from __future__ import annotations

import contextlib
import ctypes.util
import importlib.metadata
import importlib.util
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import yaml
from packaging.specifiers import SpecifierSet

from rrd_lightning.errors import ParameterError

ASSETS_VARIABLE = "RRD_LIBERO_ASSETS"
# From 3.4 on, objects of libero_spatial come to rest in other places.
MUJOCO = SpecifierSet(">=3.2.7,<3.4")
MODULES = ("libero", "robosuite", "bddl", "numba", "cv2", "easydict", "future", "termcolor", "OpenGL")
INSTALL = "pip install 'rrd-lightning[libero]' (beside a CPU-only torch, from a checkout: make setup-libero)"


def check_installation(assets: str | None, *, draws: bool = True) -> None:
    """Check LIBERO's requirements.

    Args:
        assets: folder of LIBERO's assets; None to let hf-libero provide them.
        draws: whether images are drawn, which needs a graphics library.

    Raises:
        ParameterError: listing everything that is missing, and how to install it.
    """
    missing = []
    if modules := [name for name in MODULES if importlib.util.find_spec(name) is None]:
        missing.append(f"the modules {', '.join(modules)}: {INSTALL}")
    if (version := importlib.metadata.version("mujoco")) not in MUJOCO:
        missing.append(f"MuJoCo {MUJOCO} instead of {version}: pip install 'mujoco{MUJOCO}'")
    _choose_graphics(draws)
    if draws and os.environ.get("MUJOCO_GL") == "osmesa" and not ctypes.util.find_library("OSMesa"):
        missing.append(
            "the library OSMesa, to render without a GPU: apt-get install libosmesa6 (with a GPU: "
            "export MUJOCO_GL=egl)"
        )
    if assets is not None and not (Path(assets) / "scenes").is_dir():
        missing.append(
            f"its assets, which are not in {assets!r}: export {ASSETS_VARIABLE}=FOLDER, the folder that "
            f"contains scenes/, or unset it to let hf-libero download them"
        )
    if missing:
        raise ParameterError("env.id", "libero", f"LIBERO needs {'; and '.join(missing)}")


def _choose_graphics(draws: bool) -> None:
    """Set MuJoCo's rendering backend, which it reads when imported, unless the user has set it."""
    if sys.platform == "linux":
        backend = "egl" if torch.cuda.device_count() else "osmesa"
        if backend == "osmesa" and not draws and not ctypes.util.find_library("OSMesa"):
            backend = "glx"  # what MuJoCo and robosuite can import without a graphics library
        os.environ.setdefault("MUJOCO_GL", backend)


def package_folder() -> Path:
    """Return the folder of hf-libero's files, without importing it.

    Raises:
        ParameterError: if it is not installed.
    """
    spec = importlib.util.find_spec("libero")
    if spec is None or spec.origin is None:
        raise ParameterError("env.id", "libero", f"LIBERO is not installed: {INSTALL}")
    return Path(spec.origin).parent / "libero"


def simulator_module(name: str, assets: str | None = None) -> Any:
    """Import a module of LIBERO or robosuite, without prompts or output.

    Raises:
        ParameterError: if there are no assets and they cannot be downloaded.
    """
    if name not in sys.modules:
        logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
        _write_configuration()
        with quiet():
            libero: Any = import_module("libero.libero")
            if assets is not None:
                libero._assets_path_cache = assets
            elif not Path(libero.get_assets_path()).is_dir():
                raise ParameterError(
                    "env.kwargs.assets",
                    None,
                    "LIBERO's assets could not be downloaded: connect this machine to the internet, or "
                    f"export {ASSETS_VARIABLE}=FOLDER",
                )
            import_module("libero.libero.envs")
    return import_module(name)


def _write_configuration() -> None:
    """Write LIBERO's default configuration if there is none, since it would prompt for it."""
    folder = Path(os.environ.get("LIBERO_CONFIG_PATH", "~/.libero")).expanduser()
    if (folder / "config.yaml").exists():
        return
    root = package_folder()
    places = {"bddl_files": "bddl_files", "init_states": "init_files", "datasets": "../datasets"}
    paths = {"benchmark_root": root, "assets": root / "assets"}
    paths.update({key: root / place for key, place in places.items()})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({key: str(path) for key, path in paths.items()}))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress LIBERO's output and its dependencies' deprecation warnings."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
