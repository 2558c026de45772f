// All functions, compiled together.

#include "adam.h"
#include "perceptrons.h"
#include "policy.h"
#include "replay.h"
#include "rrd.h"
#include "sac.h"
