"""Run by torchrun from test_reinforcement_stage.py: whole trainings, one after the other in one group of processes."""

import json
import sys

import torch

from medvlm.train.config import load_curriculum
from medvlm.train.distributed import connect, disconnect
from medvlm.train.run_stages import run_curriculum

if __name__ == "__main__":
    torch.set_num_threads(1)
    for config, *overrides in json.loads(sys.argv[1]):
        curriculum = load_curriculum(config, overrides)
        run_curriculum(curriculum, connect("cpu"))
    disconnect()
