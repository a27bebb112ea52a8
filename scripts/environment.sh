# Sourced by the other scripts: sets PYTHON to an interpreter that has medvlm of this checkout, all pinned.
# An active environment that is complete is used as it is. Otherwise .venv in the checkout is made, and nothing is
# installed anywhere else. MEDVLM_PYTHON=/path/to/python chooses one and installs nothing.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

complete() {  # does interpreter $1 have this checkout and what the scripts need?
    "$1" - <<'PYTHON' >/dev/null 2>&1
import importlib.util
from pathlib import Path

spec = importlib.util.find_spec("medvlm.model")
assert spec is not None and Path(spec.origin).resolve().is_relative_to(Path.cwd().resolve())
for name in ("torch", "transformers", "deepspeed", "ninja", "pydicom", "nibabel", "av", "pytest", "xdist"):
    assert importlib.util.find_spec(name), name
PYTHON
}

if [ -n "${MEDVLM_PYTHON:-}" ]; then
    PYTHON=$MEDVLM_PYTHON
    complete "$PYTHON" || { echo "$PYTHON lacks medvlm of $PWD: $PYTHON -m pip install -e '.[deepspeed,dev]' -c constraints.txt" >&2; exit 2; }
elif [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && complete python; then
    PYTHON=python
elif complete .venv/bin/python; then
    PYTHON=.venv/bin/python
else
    base=$(command -v python3.11 || command -v python3.12 || command -v python3) || { echo "Python 3.11 or newer is needed" >&2; exit 2; }
    "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$base is older than Python 3.11: install a newer one" >&2; exit 2; }
    echo "making .venv (about a minute and 1.6 GB)" >&2
    "$base" -m venv .venv
    PYTHON=.venv/bin/python
    # torch first and exactly as pinned: a looser pin would fetch gigabytes of CUDA packages; and DeepSpeed's build reads it.
    "$PYTHON" -m pip install -q --disable-pip-version-check -c constraints.txt torch setuptools ninja packaging numpy
    "$PYTHON" -m pip install -q --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[deepspeed,dev]'
fi
export PATH="$(cd "$(dirname "$(command -v "$PYTHON")")" && pwd):$PATH"  # ninja and torchrun lie beside the interpreter
export TOKENIZERS_PARALLELISM=false HF_HUB_DISABLE_PROGRESS_BARS=1 HF_HUB_DISABLE_TELEMETRY=1
