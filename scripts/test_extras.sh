#!/usr/bin/env bash
# The tests that need a library of an extra: TRL and open_clip (oracles of losses), pycocoevalcap (oracle of scores; its
# METEOR and tokenizer run where Java is), TensorBoard, timm, torchvision, bitsandbytes, datasets,
# s3fs with a local object store, Ray, webdataset, dicom-anonymizer, simplejpeg, ISA-L; the arguments go to pytest. They
# live in an environment of their own, .venv-extras, on top of the usual one: torchvision breaks transformers on a CPU build of torch unless
# medvlm.model is imported first. MEDVLM_EXTRAS_PYTHON=/path/to/python chooses one and installs nothing.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
if [ -z "${MEDVLM_EXTRAS_PYTHON:-}" ]; then
    MEDVLM_EXTRAS_PYTHON=.venv-extras/bin/python
    if ! "$MEDVLM_EXTRAS_PYTHON" -c 'import torch, importlib.util as u; assert all(map(u.find_spec, ("open_clip", "bitsandbytes", "datasets", "s3fs", "ray", "moto", "isal", "trl", "tensorboard", "pycocoevalcap")))' 2>/dev/null; then
        rm -rf .venv-extras
        "$PYTHON" -m venv .venv-extras
        site=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
        own=$("$MEDVLM_EXTRAS_PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
        printf 'import site; site.addsitedir(%s)\n' "'$site'" > "$own/medvlm.pth"
        "$MEDVLM_EXTRAS_PYTHON" -m pip install -q --disable-pip-version-check -c constraints.txt timm open_clip_torch torchvision bitsandbytes \
            trl tensorboard pycocoevalcap datasets s3fs aiohttp 'ray[data]' 'moto[s3]' flask flask-cors webdataset dicom-anonymizer pytesseract simplejpeg isal
    fi
fi
export OMP_NUM_THREADS=1 MEDVLM_TESTS=1
exec "$MEDVLM_EXTRAS_PYTHON" -m pytest -n auto --dist worksteal \
    tests/model/test_pretrained_libraries.py tests/model/test_external_processors.py tests/train/test_lora.py tests/train/test_lora_stage.py \
    tests/train/test_contrastive.py tests/train/test_preference.py tests/train/test_preference_losses.py tests/train/test_advantages_trl.py tests/train/test_trackers.py tests/scripts/test_bench_dpo.py \
    tests/eval/test_golden_text.py tests/eval/test_foreign.py \
    tests/data_recipes/test_own_datasets.py tests/data_recipes/test_shards_remote.py tests/data_recipes/test_shards_ray.py \
    tests/data_recipes/test_shards_visuals.py tests/data_recipes/test_deidentification_dicom.py \
    tests/data_recipes/test_scaled_reading.py tests/data_recipes/test_readers_nifti.py "$@"
