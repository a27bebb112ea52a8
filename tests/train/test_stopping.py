"""Signals in a process of its own: the first is noted, the second ends at once, whatever the main thread is doing."""

import subprocess
import sys
import time
from signal import SIGINT, SIGTERM

import pytest

BUSY = """
import sys
from medvlm.train.stopping import Stopping

with Stopping() as stopping:
    stopping.in_steps = True
    print("ready", flush=True)
    import hashlib
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 2**31 - 1)  # Python does not run meanwhile, as in a collective
"""
OUTSIDE = """
import sys, time
from medvlm.train.stopping import Stopped, Stopping

try:
    with Stopping() as stopping:
        print("ready", flush=True)
        time.sleep(60)
except Stopped as stopped:
    print(stopped)
    sys.exit(75)
"""


def start(code: str) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def test_a_second_signal_ends_at_once_also_where_python_does_not_run():
    process = start(BUSY)
    for _ in range(2):  # the same signal, sent on by a launcher
        process.send_signal(SIGTERM)
        time.sleep(0.3)
    assert process.poll() is None
    time.sleep(3)
    process.send_signal(SIGTERM)
    said = process.communicate(timeout=20)[1]
    assert process.returncode == 128 + SIGTERM
    assert "SIGTERM: finishes the step, saves and ends" in said and "SIGTERM again: ends at once" in said


@pytest.mark.parametrize("number", [SIGTERM, SIGINT])
def test_outside_of_steps_there_is_nothing_to_finish(number):
    process = start(OUTSIDE)
    process.send_signal(number)
    out = process.communicate(timeout=20)[0]
    assert process.returncode == 75 and out == f"stopped by {number.name}\n"
