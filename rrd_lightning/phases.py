"""The phases of a run: which losses train, and for how many updates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from rrd_lightning.errors import ParameterError, require_positive


@dataclass(frozen=True)
class Phase:
    """Part of a run, in which some of the losses train.

    Args:
        name: for the log; different from that of other phases.
        updates: how many it makes, from the demonstrations alone, before the run's first step in its
            environment. The last phase may have none: it is the run itself.
        train: names of the losses that train, which the log shows after ``loss/``; all by default. The
            parameters of all others stay as they are.
    """

    name: str
    updates: int | None = None
    train: Sequence[str] | None = None

    def trains(self, losses: Iterable[str]) -> bool:
        """Tell whether any of these losses trains in it."""
        return self.train is None or any(name in self.train for name in losses)

    def __str__(self) -> str:
        """A line for the log."""
        trained = "all losses train" if self.train is None else f"{', '.join(self.train)} train"
        return f"Phase {self.name}: {trained}" + (f" for {self.updates:,} updates" if self.updates else "")


class Phases:
    """The phases of a run, in order. If each has a number of updates, a last one follows in which all train.

    Args:
        phases: as they are configured.
        losses: names of all losses that there are.

    Attributes:
        phases: with the last one.
        before_collection: updates of all but the last, which are made before the first environment step.

    Raises:
        ParameterError: if a phase has no updates, no losses or unknown ones, or the name of another.
    """

    def __init__(self, phases: Sequence[Phase], losses: Sequence[str]) -> None:
        for number, phase in enumerate(phases, start=1):
            if phase.updates is not None:
                require_positive(**{f"phases.{phase.name}.updates": phase.updates})
            elif number < len(phases):
                problem = "must be a number of updates in every phase but the last"
                raise ParameterError(f"phases.{phase.name}.updates", None, problem)
            train = losses if phase.train is None else phase.train
            if not train or set(train) - set(losses):
                raise ParameterError(
                    f"phases.{phase.name}.train", phase.train, f"must be some of {list(losses)}"
                )
        names = [phase.name for phase in phases]
        if len(set(names)) < len(names):
            raise ParameterError("phases", names, "must have different names")
        self.phases = list(phases)
        if not phases or phases[-1].updates is not None:
            self.phases.append(Phase("everything"))
        self._ends = list(accumulate(phase.updates or 0 for phase in self.phases[:-1]))
        self.before_collection = self._ends[-1] if self._ends else 0

    def at(self, updates: int) -> Phase:
        """Return the phase of the update that so many were made before."""
        return self.phases[sum(end <= updates for end in self._ends)]

    def left(self, updates: int) -> int:
        """Return how many updates its phase has left; 0 in the last one."""
        return next((end - updates for end in self._ends if end > updates), 0)
