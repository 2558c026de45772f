"""The interface through which a run gets its demonstrations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from rrd_lightning.datasets.source import Source


class Reader(ABC):
    """Names the files or data sets of a run, each as a `Source` of episodes.

    A subclass of your own is chosen by its class path, and its constructor's arguments become options::

        --data.demonstrations my_package.MyReader --data.demonstrations.some_argument 3

    A checkpoint stores class path and arguments, so annotate the arguments and keep them to numbers,
    strings, booleans and lists of these. The constructor should only store them: checks belong in
    `sources`, whose `ParameterError` the command line prints as one line.

    `sources` returns one `Source` per file or data set. A `Source` has a unique `Source.name` and four
    methods: `Source.episodes` lists the names of its episodes, `Source.facts` checks an episode cheaply
    and returns its length and outcome, `Source.read` returns the episode as `make_episode` builds it,
    and `Source.spaces` tells the spaces of a run without an environment. A complete reader is in
    ``docs/demonstrations.md``.
    """

    @abstractmethod
    def sources(self) -> Sequence[Source]:
        """Return the files or data sets, in a fixed order; one whose name occurred before is ignored.

        Raises:
            ParameterError: if a path does not exist, or an argument is out of range.
        """
