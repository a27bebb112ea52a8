"""Run by torchrun from test_survival*.py: medvlm.train.run, several times in one process, each meeting an accident.

    survival_worker.py CONFIG RUNS

RUNS is JSON: a list of ``{"overrides": [...], "accident": [...]}``. Accidents, of which the tested code knows nothing:

- ``nan SAMPLE``: the loss of packs with that sample is multiplied by NaN; ``inf SAMPLE``: their gradient is infinite
  while their loss is a number;
- ``halt STEP``: the last rank gets SIGUSR1 before that step;
- ``stop RANK STEP``: the process of that rank is stopped before that step, as a debugger or a bad machine does;
- ``limit BYTES AFTER``: once AFTER states are there, no file may grow over BYTES, which is how a full disk behaves.

The exit code is that of the last run; all of them are the last line of standard output.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

from medvlm.train import run, run_stages
from medvlm.train.distributed import disconnect
from medvlm.train.objectives.supervised import Supervised
from medvlm.train.survival import Survival

RANK, WORLD_SIZE = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))


def plant(sample: str, *, gradient: bool) -> Any:
    compute = Supervised.__call__

    def spoiled(self: Any, model: Any, batch: Any) -> Any:
        loss = compute(self, model, batch)
        if sample in batch.sample_ids and gradient:
            loss.total.register_hook(lambda of: of * float("inf"))
        elif sample in batch.sample_ids:
            object.__setattr__(loss, "total", loss.total * float("nan"))
        return loss

    return patch.object(Supervised, "__call__", spoiled)


def before(phase: str, act: Callable[[Survival, int], None]) -> Any:
    at = Survival.at

    def acting(self: Survival, step: int, now: str) -> None:
        at(self, step, now)
        if now == phase:
            act(self, step)

    return patch.object(Survival, "at", acting)


def halt(step: str) -> Any:
    def act(survival: Survival, now: int) -> None:
        if now == int(step) and RANK == WORLD_SIZE - 1:
            os.kill(os.getpid(), signal.SIGUSR1)

    return before("forward and backward", act)


def stop(rank: str, step: str) -> Any:
    def act(survival: Survival, now: int) -> None:
        if now == int(step) and int(rank) == RANK:
            time.sleep(3 * survival.watchdog.period_s)  # until the note says where it is
            os.kill(os.getpid(), signal.SIGSTOP)

    return before("forward and backward", act)


def limit(size: str, after: str) -> Any:
    def act(survival: Survival, now: int) -> None:
        if len(list(survival.states.folder.glob("step-*[0-9]"))) >= int(after):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), resource.RLIM_INFINITY))

    return before("saving", act)


ACCIDENTS: dict[str, Callable[..., Any]] = {
    "nan": lambda sample: plant(sample, gradient=False),
    "inf": lambda sample: plant(sample, gradient=True),
    "halt": halt,
    "stop": stop,
    "limit": limit,
}

if __name__ == "__main__":
    codes = []
    for asked in json.loads(sys.argv[2]):
        name, *arguments = asked.get("accident") or [""]
        # DeepSpeed remembers its process group for the life of the process.
        with ACCIDENTS[name](*arguments) if name else nullcontext(), patch.object(run_stages, "disconnect"):
            codes.append(run.main([sys.argv[1], *asked.get("overrides", [])]))
    disconnect()
    print(json.dumps(codes), flush=True)
    sys.exit(codes[-1])
