"""One thread per process: pytest-xdist already uses every core, and two threads on a busy core only wait for each other."""

import torch

torch.set_num_threads(1)
