"""Experiments, rollouts, losses, runs, evaluation and replay."""

import os
import sys

# Where a person's own modules are, behind everything else. Processes that Ray starts know of it by this variable alone.
sys.path += [place for place in os.environ.get("COTERIE_PATH", "").split(os.pathsep) if place and place not in sys.path]
