"""A training of one short stage for the tests that interrupt it: its data, its configuration, and what came of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from launching import run_group
from PIL import Image as Picture
from safetensors.torch import load_file
from tiny_curriculum import YAML
from torch import Tensor

WORKER = Path(__file__).parent / "train" / "survival_worker.py"
STAGE = """\
  - name: align
    mixture: [{manifest: rows.jsonl}]
    learning_rate: {projector: 1e-3, text: 1e-3}
    steps: STEPS
    save_every: 2
    keep_checkpoints: 3
    weight_decay: 0.1
"""


def write_data(root: Path, count: int = 12) -> Path:
    """``count`` samples with an image each, of which no two are alike; two of them fill a pack."""
    root.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        Picture.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)).save(root / f"{number}.png")
        content = [{"type": "image", "path": f"{number}.png"}, {"type": "text", "text": "What is seen?"}]
        answer = [{"type": "text", "text": f"a nodule of {number} mm"}]
        rows.append(
            {
                "sample_id": f"s{number:02d}",
                "patient_id": f"p{number}",
                "study_id": f"p{number}",
                "source": "t",
                "licence": "CC0-1.0",
                "split": "train",
                "messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}],
            }
        )
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def write_config(path: Path, root: Path, steps: int = 8) -> str:
    text = YAML[: YAML.index("  - name: align")] + STAGE.replace("STEPS", str(steps))
    text = text.replace("tokens_per_pack: 512", "tokens_per_pack: 128")
    path.write_text(text.replace("ROOT", str(root)).replace("OUTPUT", str(path.with_suffix(""))))
    return str(path)


def stage_of(output: Path) -> Path:
    return output / "stages" / "01-align"


def result(output: Path) -> tuple[list[float | None], dict[str, Tensor]]:
    """Losses of all steps, and the weights at the end."""
    lines = (stage_of(output) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines], load_file(stage_of(output) / "checkpoint/model.safetensors")


def equal(
    one: tuple[list[float | None], dict[str, Tensor]], other: tuple[list[float | None], dict[str, Tensor]]
) -> bool:
    """To the bit."""
    weights = one[1].keys() == other[1].keys() and all(one[1][name].equal(other[1][name]) for name in one[1])
    return one[0] == other[0] and weights


def launch(config: str, runs: list[dict], *, processes: int = 1, timeout: float = 300) -> tuple[list[int], str]:
    """Exit codes of ``runs`` and what they said; see survival_worker.py."""
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--rdzv-backend=c10d"]
        start += ["--rdzv-endpoint=localhost:0"]
    done = run_group([*start, str(WORKER), config, json.dumps(runs)], timeout)
    print(done.stdout[-2000:], done.stderr[-12000:])
    lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
    return json.loads(lines[-1]) if lines else [], done.stderr
