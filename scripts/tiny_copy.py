"""A curriculum made so small that a laptop rehearses it: every stage, its freezing, its data and its objective.

    python -m medvlm.scripts.tiny_copy configs/presets/m3d.yaml --out runs/rehearsal
    medvlm plan runs/rehearsal/curriculum.yaml
    medvlm train runs/rehearsal/curriculum.yaml

OUT gets the small curriculum and, in the place of each manifest that it names, a few virtual patients of the same kind
(2D, 3D, clips, text, pairs). What is trained, in which order and by which objective is that of the original; sizes,
steps and budgets are not, and the numbers that come out mean nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import AutoConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from medvlm.data_recipes.manifest import write_atomic
from medvlm.data_recipes.phantoms.write import write_phantoms
from medvlm.data_recipes.typed_yaml import BadConfig
from medvlm.scripts.stand_ins import KINDS, kind_of, write_stand_in
from medvlm.train.config import Curriculum, ModelSource, Stage, dump, load_curriculum
from medvlm.train.settings.checks import refuse
from medvlm.train.settings.engine import EngineConfig

WIDTH, LAYERS, HEADS = 32, 1, 2
TINY_TEXT = {
    "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": 1,
    "head_dim": WIDTH // HEADS, "intermediate_size": 2 * WIDTH, "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}  # fmt: skip
BUDGETS: dict[str, dict[str, int]] = {
    "max_patches": {"image": 16, "volume": 64, "video": 64},
    "max_depth": {"volume": 8, "video": 4},
    "max_pixels": {"image": 3136, "volume": 3136, "video": 3136},
}
TOKENS, PATCHES = 2048, 512


@dataclass(frozen=True, kw_only=True)
class TinyCopy:
    """What was made.

    Attributes:
        kinds: manifest -> what stands in its place.
        notes: what is not as in the original, one sentence each.
    """

    curriculum: Curriculum
    kinds: dict[str, str]
    notes: tuple[str, ...]


def tiny_copy(
    curriculum: Curriculum,
    out: Path,
    *,
    steps: int = 2,
    patients: int = 24,
    pretrained: str | None = None,
    kinds: Mapping[str, str] | None = None,
    phantoms: Path | None = None,
) -> TinyCopy:
    """Shrink ``curriculum`` and write its data into ``out``/data.

    Args:
        steps: of every stage.
        pretrained: a small checkpoint in the place of ``model.pretrained``; without it a random model of our own
            architecture stands there.
        kinds: manifest -> one of KINDS, where its name says nothing or something else.
        phantoms: a folder of ``write_phantoms`` to take the virtual patients from; None writes ``patients`` of them.

    Raises:
        BadConfig: ``kinds`` names a manifest that no stage has, or an unknown kind.
        ValueError: ``out``/data is there and not empty.
    """
    _check_kinds(curriculum, kinds or {})
    notes: list[str] = []
    model = tiny_model_source(curriculum.model, pretrained, notes)
    root = out / "data"
    if phantoms is None:
        phantoms = out / "phantoms"
        write_phantoms(phantoms, patients=patients, seed=0)
    found = {}
    stages = []
    for stage in curriculum.stages:
        sources = []
        for source in stage.mixture:
            name = _inside(source.manifest)
            found[source.manifest] = kind = (kinds or {}).get(source.manifest) or kind_of(
                Path(curriculum.data.root), source.manifest
            )
            write_stand_in(root / name, phantoms, kind, stage.objective)
            sources.append(replace(source, manifest=name))
        stages.append(tiny_stage(replace(stage, mixture=tuple(sources)), steps, notes))
    small = replace(
        curriculum,
        output_dir=str(out / "run"),
        model=model,
        data=replace(
            curriculum.data, root=str(root), tokens_per_pack=TOKENS, patches_per_pack=PATCHES, cache=False,
            cache_gib=None, shard_cache=None, workers=0, window=64,
        ),
        engine=EngineConfig(
            device="cpu", gradient_clip=curriculum.engine.gradient_clip,
            activation_checkpointing=curriculum.engine.activation_checkpointing,
        ),
        stages=tuple(stages),
        evaluation=None,
    )  # fmt: skip
    write_atomic(out / "curriculum.yaml", dump(small))
    return TinyCopy(curriculum=small, kinds=found, notes=tuple(notes))


def tiny_model_source(source: ModelSource, pretrained: str | None, notes: list[str]) -> ModelSource:
    """The same parts, small; ``notes`` gets what is not the same."""
    if source.pretrained is not None and pretrained is not None:
        return replace(source, pretrained=pretrained, processor=_tiny_settings(source.processor))
    if source.pretrained is not None:
        notes.append(f"a random model of our own architecture stands in the place of {source.pretrained}")
        return ModelSource(
            vision=_tiny_vision({}), projector=_tiny_projector({}), processor=_tiny_settings({}),
            text={"config": {"model_type": "qwen3"} | TINY_TEXT}, tokenizer={"train": {"vocab_size": 400}},
        )  # fmt: skip
    if "pretrained" in source.vision:
        notes.append(f"a random vision transformer stands in the place of {source.vision['pretrained']}")
    return ModelSource(
        vision=_tiny_vision(source.vision),
        projector=_tiny_projector(source.projector),
        text={"config": {"model_type": decoder_type(source.text, notes)} | TINY_TEXT},
        tokenizer={"train": {"vocab_size": 400}},
        processor=_tiny_settings(source.processor),
    )


def decoder_type(text: Mapping[str, Any], notes: list[str]) -> str:
    """``model_type`` of the decoder: as it is stated, as its config says, or told from its name."""
    if "config" in text:
        return str(text["config"]["model_type"])
    name = str(text["pretrained"])
    try:
        return str(AutoConfig.from_pretrained(name).model_type)
    except OSError:
        plain = re.sub(r"[^a-z0-9]", "", name.rpartition("/")[2].lower())
        known = sorted(CONFIG_MAPPING_NAMES, key=len, reverse=True)
        told = next((kind for kind in known if len(kind) > 2 and plain.startswith(kind.replace("_", ""))), "qwen3")
        notes.append(f"the config of {name} cannot be read here; its decoder is taken for {told}, after its name")
        return told


def _tiny_vision(vision: Mapping[str, Any]) -> dict[str, Any]:
    depth = int(vision.get("patch_size", (1 if "pretrained" in vision else 2, 16, 16))[0])
    kept = {name: vision[name] for name in ("depth_window", "rotary", "place_features") if name in vision}
    sizes = {"num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": 2 * WIDTH}
    return {"hidden_size": WIDTH, **sizes, "patch_size": [depth, 16, 16], **kept}


def _tiny_projector(projector: Mapping[str, Any]) -> dict[str, Any]:
    small = {"queries": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "num_experts": 2, "slots_per_expert": 2}
    return {name: small.get(name, value) for name, value in projector.items()} | {"hidden_size": 48}


def _tiny_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The processor's settings with small budgets."""
    result = dict(settings)
    for name, small in BUDGETS.items():
        if name in result:
            result[name] = {kind: small[kind] for kind in result[name] if kind in small}
    if result.get("reduction"):
        result["reduction"] = {name: value for name, value in result["reduction"].items() if name != "max_tokens"}
    return result


def tiny_stage(stage: Stage, steps: int, notes: list[str]) -> Stage:
    """The same stage with few steps, one pack a step, and a small objective; ``notes`` gets what is not the same."""
    lora = stage.lora and replace(stage.lora, rank=2, alpha=2 * stage.lora.alpha / stage.lora.rank)
    if lora and lora.quantize and importlib.util.find_spec("bitsandbytes") is None:
        notes.append(f"stage {stage.name} keeps its frozen weights in fp32: bitsandbytes is not installed here")
        lora = replace(lora, quantize=None)
    contrastive = stage.contrastive and replace(stage.contrastive, size=16)
    reinforcement = stage.reinforcement and replace(stage.reinforcement, group_size=2, max_new_tokens=4)
    return replace(
        stage, steps=steps, epochs=None, tokens=None, packs_per_step=1, warmup_steps=min(1, stage.warmup_steps),
        save_every=None, processor=_tiny_settings(stage.processor), lora=lora, contrastive=contrastive,
        reinforcement=reinforcement,
    )  # fmt: skip


def _inside(manifest: str) -> str:
    """A relative path for a manifest that may be absolute, a folder or a URL of shards."""
    plain = re.sub(r"[^\w./-]", "-", manifest.partition("://")[2] or manifest).strip("/")
    plain = "/".join(part for part in plain.split("/") if part not in ("", ".", ".."))
    return plain if plain.endswith(".jsonl") else f"{plain}.jsonl"


def _check_kinds(curriculum: Curriculum, kinds: Mapping[str, str]) -> None:
    named = {source.manifest for stage in curriculum.stages for source in stage.mixture}
    for manifest, kind in kinds.items():
        if manifest not in named:
            refuse(f"no stage has the manifest {manifest!r}", f"use one of {', '.join(sorted(named))}")
        if kind not in KINDS:
            refuse(f"{kind!r} is no kind of samples", f"use one of {', '.join(KINDS)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: 0 written, 2 refused."""
    parser = argparse.ArgumentParser(
        prog="medvlm tiny", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="YAML of one curriculum")
    parser.add_argument("overrides", nargs="*", help="dotted overrides, as for medvlm train")
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    parser.add_argument("--steps", type=int, default=2, help="optimizer steps of every stage (default 2)")
    parser.add_argument("--patients", type=int, default=24, help="virtual patients (default 24)")
    parser.add_argument("--pretrained", help="a small checkpoint in the place of model.pretrained")
    parser.add_argument("--kind", action="append", default=[], metavar="MANIFEST=KIND", help=", ".join(KINDS))
    options = parser.parse_intermixed_args(arguments)
    try:
        curriculum = load_curriculum(options.config, options.overrides)
        given = dict(item.partition("=")[::2] for item in options.kind)
        made = tiny_copy(
            curriculum, options.out, steps=options.steps, patients=options.patients, pretrained=options.pretrained,
            kinds=given,
        )  # fmt: skip
    except (BadConfig, ValueError, OSError) as error:
        print(f"tiny_copy: {error}", file=sys.stderr)
        return 2
    for manifest, kind in made.kinds.items():
        print(f"{manifest}: virtual patients, {kind}")
    for note in made.notes:
        print(note)
    print(f"now: medvlm plan {options.out / 'curriculum.yaml'}, then medvlm train {options.out / 'curriculum.yaml'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
