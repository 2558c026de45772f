"""How a file in LIBERO's layout is to be read: which observation a row holds, and how its images are turned."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import numpy as np

Alignment = Literal["before", "after"]
Orientation = Literal["upside_down", "upright", "mirrored", "rotated"]
# Whether to turn rows and columns round, to see an image upright.
TURNS: dict[Orientation, tuple[bool, bool]] = {
    "upside_down": (True, False),
    "upright": (False, False),
    "mirrored": (False, True),
    "rotated": (True, True),
}
# The state holds the time, then the arm's seven angles.
ANGLES = slice(1, 8)
# The right alignment must fit better than the other by this factor.
CLEARLY = 3.0


class Look(NamedTuple):
    """How to read a file, and why."""

    alignment: Alignment
    orientation: Orientation
    reasons: tuple[str, str]

    def describe(self, *, images: bool) -> str:
        """Say it in a line; the orientation only where there are images."""
        why_alignment, why_orientation = self.reasons
        told = f"observations are from {self.alignment} their action ({why_alignment})"
        if not images:
            return told
        return f"{told}, images are stored {self.orientation.replace('_', ' ')} ({why_orientation})"


def find_look(data: Any, alignment: Alignment | None, orientation: Orientation | None) -> Look | str:
    """Decide how to read a file.

    Args:
        data: its group ``data``.
        alignment: what the user says, if anything.
        orientation: likewise.

    Returns:
        The look; or the name of the attribute that says nothing of use.
    """
    look: list[Any] = []
    for chosen, find, attribute in (
        (alignment, _find_alignment, "obs_alignment"),
        (orientation, _find_orientation, "image_orientation"),
    ):
        found = (chosen, "as you say") if chosen else find(data)
        if found is None:
            return attribute
        look.append(found)
    (first, why_first), (second, why_second) = look
    return Look(first, second, (why_first, why_second))


def _find_alignment(data: Any) -> tuple[Alignment, str] | None:
    if "obs_alignment" in data.attrs:
        words = str(data.attrs["obs_alignment"]).lower()
        said = [each for each in get_args(Alignment) if each in words]
        return (said[0], "its attribute obs_alignment says so") if len(said) == 1 else None
    for demo in data.values():
        if found := _compare_angles(demo):
            return found, "its joint angles and simulator states say so"
    return "after", "assumed, as in LIBERO's own files"


def _compare_angles(demo: Any) -> Alignment | None:
    """Compare the arm's observed angles with the states, which are from before each action in every file."""
    try:
        seen, states = demo["obs/joint_states"][()], demo["states"][()]
    except (KeyError, AttributeError, OSError):
        return None
    if seen.ndim != 2 or states.ndim != 2 or len(seen) != len(states) or states.shape[1] < ANGLES.stop:
        return None
    angles = states[:, ANGLES]
    if seen.shape != angles.shape:
        return None
    before, after = (np.abs(one - other).mean() for one, other in ((seen, angles), (seen[:-1], angles[1:])))
    if before * CLEARLY < after:
        return "before"
    return "after" if after * CLEARLY < before else None


def _find_orientation(data: Any) -> tuple[Orientation, str] | None:
    if "image_orientation" in data.attrs:
        words = str(data.attrs["image_orientation"]).lower().replace("_", " ")
        said = [each for each in TURNS if each.replace("_", " ") in words]
        return (said[0], "its attribute image_orientation says so") if len(said) == 1 else None
    if (convention := str(data.attrs.get("macros_image_convention", ""))) in ("opengl", "opencv"):
        return ("upside_down" if convention == "opengl" else "upright"), f"its image convention is {convention}"
    return "upside_down", "assumed, as in LIBERO's own files"


def correlate(image: np.ndarray[Any, Any], upright: np.ndarray[Any, Any]) -> dict[Orientation, float]:
    """Correlate an image with one that is upright, for each orientation that it might have.

    Args:
        image: as stored, ``[height, width, 3]``.
        upright: of the same shape.
    """
    correlations = {}
    for orientation, (rows, columns) in TURNS.items():
        turned = image[:: -1 if rows else 1, :: -1 if columns else 1]
        correlations[orientation] = float(np.corrcoef(turned.ravel(), upright.ravel())[0, 1])
    return correlations
