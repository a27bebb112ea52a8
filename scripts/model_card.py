"""The README.md of an exported checkpoint: YAML front matter for a hub, and what a reader must know.

Mitchell et al. 2019, "Model Cards for Model Reporting" (arXiv:1810.03993).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from medvlm.data_recipes.sample import Sample, read_jsonl
from medvlm.model.loading import Model
from medvlm.model.medvlm import MedVLMForConditionalGeneration
from medvlm.train.config import Curriculum, Stage, load_curriculum

CARD = "README.md"
_PACKAGES = ("medvlm", "torch", "transformers", "peft", "tokenizers", "safetensors")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")

_LOAD = {
    "medvlm": """```python
import medvlm.model  # lets the Auto classes know medvlm
from transformers import AutoModelForImageTextToText, AutoProcessor

processor = AutoProcessor.from_pretrained(FOLDER)
model = AutoModelForImageTextToText.from_pretrained(FOLDER).eval()
```

`pip install medvlm` first. Or ask on the command line: `medvlm chat --model FOLDER scan.nii.gz`.""",
    "decoder": """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(FOLDER)
model = AutoModelForCausalLM.from_pretrained(FOLDER).eval()
```

This is the language model alone: it sees no image.""",
    "external": """```python
from transformers import AutoModelForImageTextToText, AutoProcessor

processor = AutoProcessor.from_pretrained(FOLDER)
model = AutoModelForImageTextToText.from_pretrained(FOLDER).eval()
```

Volumes and clips are prepared by medvlm: `medvlm chat --model FOLDER scan.nii.gz`.""",
}

_USE = """Research on medical vision-language models: answering questions about images, volumes and clips, and drafting
reports, where a person checks every answer.

**Not for clinical use.** This model is no medical device. It was not evaluated for any diagnosis or treatment, its
answers may be wrong in ways that read well, and it may be worse on patients, scanners and languages that its training
data do not hold. Do not give it data that identify a patient unless your rules allow it."""


def run_folder_of(checkpoint: str) -> Path | None:
    """The run folder that ``checkpoint`` lies in (runs/NAME of runs/NAME/stages/NN-STAGE/checkpoint), if it does."""
    parents = Path(checkpoint).resolve().parents
    return parents[2] if len(parents) > 2 and (parents[2] / "curriculum.yaml").is_file() else None


def model_card(
    model: Model,
    *,
    decoder_only: bool,
    checkpoint: str,
    merged: float | None,
    licence: str | None,
    run: Path | None,
    evaluation: Path | None,
) -> str:
    """The card as Markdown. Folders of this machine are named by their last part only.

    Args:
        merged: how far a merge moved the logits; None without one.
        licence: None leaves it out, and the card says so.
        run: folder with curriculum.yaml.
        evaluation: folder with metrics.json.

    Raises:
        FileNotFoundError: ``run`` or ``evaluation`` is given and holds no such file.
    """
    curriculum = None if run is None else _curriculum(run)
    stages = () if curriculum is None else _stages_until(curriculum, checkpoint)
    bases = _bases(curriculum, checkpoint)
    own = isinstance(model, MedVLMForConditionalGeneration)
    kind = "decoder" if decoder_only else "medvlm" if own else "external"
    front: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation" if decoder_only else "image-text-to-text",
        "tags": ["medvlm", "medical", *([] if decoder_only else ["vision-language"])],
    }
    if licence is not None:
        front = {"license": licence, **front}
    ids = [base for base in bases if _HUB_ID.fullmatch(base) and not Path(base).exists()]
    if ids:
        front["base_model"] = ids
    title = curriculum.name if curriculum is not None else Path(checkpoint).name
    said = "" if licence is None else f": {licence}"
    sections = [
        ("", f"# {title}\n\n{_summary(model, decoder_only)}"),
        ("Intended use", _USE),
        ("How to load", _LOAD[kind].replace("FOLDER)", '"path/to/this/folder")')),
        ("Licence", f"Stated by the exporter{said}." if licence else "Not stated by the exporter. The licences of the "
         "parts it was made from apply."),
        ("Made from", "\n".join(f"- {_name(base)}" for base in bases) or "Random weights; nothing pretrained."),
        ("Training", _training(stages, run)),
        ("Data", _data(curriculum, stages)),
        ("Evaluation", _evaluation(evaluation)),
        ("Versions", _versions(merged)),
    ]  # fmt: skip
    body = "\n\n".join(text if not heading else f"## {heading}\n\n{text}" for heading, text in sections)
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n{body}\n"


def _curriculum(run: Path) -> Curriculum:
    path = run / "curriculum.yaml"
    if not path.is_file():
        raise FileNotFoundError(f"{run} holds no curriculum.yaml; give --run the output_dir of a training")
    return load_curriculum(path)


def _bases(curriculum: Curriculum | None, checkpoint: str) -> list[str]:
    """What was pretrained: ids or folders."""
    if curriculum is None:
        return [checkpoint]
    source = curriculum.model
    parts = (source.text, source.vision)
    found = [source.pretrained, *(part.get("pretrained") for part in parts)]
    return [name for name in dict.fromkeys(found) if isinstance(name, str)]


def _name(source: str) -> str:
    return (
        source if _HUB_ID.fullmatch(source) and not Path(source).exists() else f"{Path(source).name} (a local folder)"
    )


def _summary(model: Model, decoder_only: bool) -> str:
    shown: Any = model.text if decoder_only and isinstance(model, MedVLMForConditionalGeneration) else model
    count = sum(p.numel() for p in shown.parameters())
    what = "The language model of a medvlm checkpoint" if decoder_only else "A medical vision-language model"
    return f"{what} ({shown.config.model_type}), {count:,} parameters, written by `medvlm export`."


def _stages_until(curriculum: Curriculum, checkpoint: str) -> tuple[Stage, ...]:
    """The stages that ``checkpoint`` went through: all, or those up to its own folder NN-STAGE."""
    number = Path(checkpoint).resolve().parent.name.partition("-")[0]
    return curriculum.stages[: int(number)] if number.isdigit() else curriculum.stages


def _training(stages: Sequence[Stage], run: Path | None) -> str:
    if run is None:
        return "Not known to the exporter."
    rows = ["| stage | objective | trained parameters | steps |", "|---|---|---|---|"]
    for number, stage in enumerate(stages, start=1):
        done = run / "stages" / f"{number:02d}-{stage.name}" / "done.json"
        if done.is_file():
            record = json.loads(done.read_text(encoding="utf-8"))
            trained = ", ".join(f"{part} {count:,}" for part, count in record["trained"].items())
            rows.append(f"| {stage.name} | {stage.objective} | {trained} | {record['steps']:,} |")
    return "\n".join(rows)


def _data(curriculum: Curriculum | None, stages: Sequence[Stage]) -> str:
    """A row per source and licence; manifests that are gone are named."""
    if curriculum is None:
        return "Not known to the exporter."
    counts: Counter[tuple[str, str, str]] = Counter()
    gone = []
    manifests = dict.fromkeys(source.manifest for stage in stages for source in stage.mixture)
    for manifest in manifests:
        path = Path(curriculum.data.root) / manifest
        if not path.is_file():
            gone.append(path.name)
            continue
        counts.update((row.source, row.licence, row.split) for row in read_jsonl(path) if isinstance(row, Sample))
    rows = ["| source | licence | split | rows |", "|---|---|---|---|"]
    rows += [f"| {source} | {licence} | {split} | {n:,} |" for (source, licence, split), n in sorted(counts.items())]
    left = f"\n\nNot found when this card was written: {', '.join(gone)}." if gone else ""
    return "\n".join(rows) + left


def _evaluation(folder: Path | None) -> str:
    if folder is None:
        return "None given to the exporter."
    path = folder / "metrics.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no metrics.json; give --evaluation the --out folder of medvlm eval")
    found = json.loads(path.read_text(encoding="utf-8"))
    rows = ["| metric | condition | of | value | 95 % interval | n | patients |", "|---|---|---|---|---|---|---|"]
    for row in found["table"]:
        if row["topic"] == "all" and row["value"] is not None:
            interval = "-" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
            rows.append(
                f"| {row['metric']} | {row['condition']} | {row['dimension']} | {row['value']:.3f} | {interval} | "
                f"{row['n']} | {row['n_clusters']} |"
            )
    names = ", ".join(Path(name).name for name in found["run"]["manifests"])
    return f"On {names}, by `medvlm eval`; intervals over patients.\n\n" + "\n".join(rows)


def _versions(merged: float | None) -> str:
    text = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    if merged is not None:
        text += f". The adapter was merged into the weights; the logits moved by {merged:.1e} of the largest"
    return f"{text}."
