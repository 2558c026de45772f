"""The names under which tensors travel: one table for replay, decompositions and agents.

Shapes leave out the batch dimensions: ``[batch_size]`` for transitions, ``[num_subsequences,
rrd_sample_size]`` for subsequences, ``[rows, rrd_sample_size]`` for whole episodes, none for statistics.

================== ============================ ========= =========================================
key                shape                        dtype     meaning
================== ============================ ========= =========================================
OBSERVATION        the space's (may be nested)  space's   s_t, in the environment's units
NEXT_OBSERVATION   the space's (may be nested)  space's   s_{t+1}, also at an episode's last step
ACTION             the space's                  space's   a_t; continuous actions lie in [-1, 1]
REWARD             []                           float32   the true r_t: never reaches a loss, except
                                                          through the yardstick EnvironmentReward
TERMINATED         []                           bool      the task ended here: do not bootstrap
DONE               []                           bool      last stored step (terminated or truncated)
EPISODE_RETURN     [], one per episode          float32   R, the number that the episode was given
EPISODE_LENGTH     [], one per episode          int64     T, in environment steps
SUCCESS            [], one per episode          bool      the task succeeded, where the environment
                                                          reports it; int8 in batches: 1 if it did,
                                                          0 if not, -1 where that is not known
DEMONSTRATION      []                           bool      transitions: the step is of a demonstration,
                                                          rather than collected
WITH_REPLACEMENT   [], one per subsequence      bool      how the steps of the subsequence were drawn
MASK               []                           bool      whole episodes: False on a row's padding
EPISODE            [], one per row              int64     whole episodes: which drawn episode the row is
                                                          of, from 0; its rows follow one another
RETURN_MIN         []                           float32   smallest R of the stored episodes
RETURN_MAX         []                           float32   largest R of the stored episodes
MEAN_REWARD_MIN    []                           float32   smallest R / T of the stored episodes
MEAN_REWARD_MAX    []                           float32   largest R / T of the stored episodes
NUM_EPISODES       []                           int64     how many episodes are stored
NUM_SUCCESSES      []                           int64     how many of them are known to have succeeded
NUM_FAILURES       []                           int64     how many of them are known to have failed
FILM               [T + 1, height, width, 3]    uint8     pictures of an evaluation episode, for its video
================== ============================ ========= =========================================
"""

OBSERVATION = "observation"
NEXT_OBSERVATION = "next_observation"
ACTION = "action"
REWARD = "reward"
TERMINATED = "terminated"
DONE = "done"
EPISODE_RETURN = "episode_return"
EPISODE_LENGTH = "episode_length"
SUCCESS = "success"
DEMONSTRATION = "demonstration"
WITH_REPLACEMENT = "with_replacement"
MASK = "mask"
EPISODE = "episode"
RETURN_MIN = "return_min"
RETURN_MAX = "return_max"
MEAN_REWARD_MIN = "mean_reward_min"
MEAN_REWARD_MAX = "mean_reward_max"
NUM_EPISODES = "num_episodes"
NUM_SUCCESSES = "num_successes"
NUM_FAILURES = "num_failures"
FILM = "film"

TRANSITIONS = "transitions"
SUBSEQUENCES = "subsequences"
STATISTICS = "statistics"
