"""Run by torchrun from test_curriculum.py: medvlm.train.run, whose last rank gets one override more."""

import os
import sys

from medvlm.train.run import main

if __name__ == "__main__":
    config, common, of_last_rank = sys.argv[1], sys.argv[2:-1], sys.argv[-1]
    last = os.environ["RANK"] == str(int(os.environ["WORLD_SIZE"]) - 1)
    sys.exit(main([config, *common, *([of_last_rank] if last else [])]))
