"""Run by torchrun from test_seen_training.py: whole trainings one after another, of which some look."""

from __future__ import annotations

import json
import sys

from medvlm.train.config import load_curriculum
from medvlm.train.distributed import connect, disconnect
from medvlm.train.run_stages import run_curriculum

if __name__ == "__main__":
    ranks = connect("cpu")
    for overrides in json.loads(sys.argv[2]):
        run_curriculum(load_curriculum(sys.argv[1], overrides), ranks)
    disconnect()
