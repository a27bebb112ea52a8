"""Write a checkpoint as a plain transformers folder with a model card, and put it on a hub.

medvlm export runs/mine/stages/04-lora/checkpoint --out release --licence apache-2.0 --evaluation runs/mine/evaluation
medvlm export BASE --merge runs/mine/stages/04-lora/adapter --out merged --dtype bfloat16
medvlm export CHECKPOINT --out decoder --decoder-only
medvlm export CHECKPOINT --out release --push-to-hub ORG/NAME --private

The folder loads with transformers after `import medvlm.model`; a checkpoint of another vision-language family, and
the decoder alone, load without medvlm. No code is written into the folder. The hub is that of HF_ENDPOINT, the token
that of HF_TOKEN or of `hf auth login`.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.utils.logging import disable_progress_bar

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.manifest import write_atomic
from medvlm.data_recipes.packing import collate
from medvlm.model.batch import PackedBatch
from medvlm.model.loading import Model, Processor, load_checkpoint, save_checkpoint
from medvlm.model.medvlm import MedVLMForConditionalGeneration
from medvlm.model.visual import Image
from medvlm.scripts.model_card import CARD, model_card, run_folder_of
from medvlm.train.adapter import load_adapter
from medvlm.train.checkpoint import write_folder
from medvlm.train.lora import merge_lora

try:  # what huggingface_hub speaks HTTP by
    from httpx2 import TransportError
except ModuleNotFoundError:
    from httpx import TransportError  # type: ignore[no-redef]

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, kw_only=True)
class Export:
    """What to write.

    Attributes:
        checkpoint: folder or hub id.
        out: folder to write; must not exist, so that nothing of an earlier export is published with it.
        merge: adapter folder that belongs to ``checkpoint``.
        decoder_only: the language model and its tokenizer, as a plain causal language model.
        dtype: of the weights written.
        licence: for the card; a hub's short name such as apache-2.0.
        run: run folder for the card; found from ``checkpoint`` when it lies in one.
        evaluation: folder of `medvlm eval`, whose metrics the card shows.
    """

    checkpoint: str
    out: Path
    merge: Path | None = None
    decoder_only: bool = False
    dtype: str = "float32"
    licence: str | None = None
    run: Path | None = None
    evaluation: Path | None = None


def probe_pack(processor: Processor) -> PackedBatch:
    """One conversation about a picture of noise: what a merge is proved on where no training data are at hand."""
    pixels = np.random.default_rng(0).random((1, 64, 64), dtype=np.float32)
    visual = processor.patch(Image(pixels=pixels, modality="CR", unit="display"))
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is there a pleural effusion?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "No."}]},
    ]
    return collate([("probe", [processor.render(messages, [visual])])])


def export(plan: Export) -> float | None:
    """Write the folder; see ``Export``.

    Returns:
        How far a merge moved the logits, relative to the largest; None without a merge.

    Raises:
        FileNotFoundError, ValueError: no such checkpoint, adapter or evaluation; ``out`` exists; a merge that moves
            the logits (nothing is written then).
    """
    if plan.out.exists():
        raise ValueError(f"{plan.out} exists; name a folder that does not, or remove it")
    model, processor = load_checkpoint(plan.checkpoint)
    moved = None
    if plan.merge is not None:
        load_adapter(plan.merge, model)
        moved = merge_lora(model, probe_pack(processor))
    card = model_card(
        model,
        decoder_only=plan.decoder_only,
        checkpoint=plan.checkpoint,
        merged=moved,
        licence=plan.licence,
        run=plan.run or run_folder_of(plan.checkpoint),
        evaluation=plan.evaluation,
    )
    weights: Any = model
    weights.to(_DTYPES[plan.dtype])
    plan.out.parent.mkdir(parents=True, exist_ok=True)

    def write(unfinished: Path) -> None:
        if plan.decoder_only:
            _write_decoder(unfinished, model, processor)
        else:
            save_checkpoint(unfinished, model, processor)
        write_atomic(unfinished / CARD, card)

    write_folder(plan.out, write)
    return moved


def _write_decoder(folder: Path, model: Model, processor: Processor) -> None:
    if not isinstance(model, MedVLMForConditionalGeneration):
        raise ValueError(
            f"a {model.config.model_type!r} checkpoint is one model of its library, whose decoder is no part of its "
            "own here; leave --decoder-only out"
        )
    if model.text.generation_config is not None:
        model.text.generation_config.eos_token_id = model.generation_config.eos_token_id
        model.text.generation_config.pad_token_id = model.generation_config.pad_token_id
    model.text.set_attn_implementation("sdpa" if model.text._supports_sdpa else "eager")
    model.text.save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)


def push_to_hub(folder: Path, repository: str, *, private: bool = False) -> str:
    """Upload ``folder`` as ``repository`` ("ORG/NAME"), made when it is not there; return its address.

    Args:
        private: without it the organisation's default holds.

    Raises:
        ValueError: ``repository`` is no such name, or is there and public although ``private`` is asked for.
        OSError: the hub refused, or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    check_repository(repository)
    api = HfApi()
    try:
        return _upload(api, folder, repository, private)
    except TransportError as error:
        raise OSError(f"the hub {api.endpoint} cannot be reached ({error}); {_later(folder, repository)}") from error
    except HfHubHTTPError as error:
        raise OSError(f"the hub {api.endpoint} refused: {error}; {_later(folder, repository)}") from error


def _later(folder: Path, repository: str) -> str:
    return f"{folder} is whole: upload it later with `hf upload {repository} {folder}`"


def _upload(api: HfApi, folder: Path, repository: str, private: bool) -> str:
    made = api.create_repo(repository, private=private or None, exist_ok=True)
    # The hub ignores the wish for a repository that is there already; weights must not become public by that.
    if private and not api.model_info(made.repo_id).private:
        raise ValueError(
            f"{made} is public, so nothing was uploaded; make it private in its settings or name another repository; "
            f"{_later(folder, repository)}"
        )
    api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message="medvlm export")
    return str(made)


def check_repository(repository: str) -> None:
    """Raise ValueError unless ``repository`` is "ORG/NAME"."""
    if not _REPOSITORY.fullmatch(repository):
        raise ValueError(f"--push-to-hub is {repository!r}; write ORG/NAME, such as my-hospital/ct-report")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="medvlm export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help="checkpoint folder or hub id")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; must not exist")
    parser.add_argument("--merge", type=Path, metavar="ADAPTER", help="adapter folder of a LoRA stage, on its base")
    parser.add_argument("--decoder-only", action="store_true", help="the language model and its tokenizer alone")
    parser.add_argument("--dtype", choices=tuple(_DTYPES), default="float32", help="of the weights (default float32)")
    parser.add_argument("--licence", help="for the card: a hub's short name, such as apache-2.0")
    parser.add_argument("--run", type=Path, help="run folder for the card (found when CHECKPOINT lies in one)")
    parser.add_argument("--evaluation", type=Path, help="folder of medvlm eval, for the card")
    parser.add_argument("--push-to-hub", metavar="ORG/NAME", help="upload the folder")
    parser.add_argument("--private", action="store_true", help="make the repository private")
    options = parser.parse_args(arguments)
    disable_progress_bar()
    try:
        if options.push_to_hub is not None:
            check_repository(options.push_to_hub)
        elif options.private:
            raise ValueError("--private says how a repository is made; add --push-to-hub ORG/NAME, or leave it out")
        moved = export(
            Export(
                checkpoint=options.checkpoint,
                out=options.out,
                merge=options.merge,
                decoder_only=options.decoder_only,
                dtype=options.dtype,
                licence=options.licence,
                run=options.run,
                evaluation=options.evaluation,
            )
        )
        if moved is not None:
            print(f"merged: the logits moved by {moved:.1e} of the largest")
        print(f"written: {options.out}")
        if options.push_to_hub is not None:
            print(f"uploaded: {push_to_hub(options.out, options.push_to_hub, private=options.private)}")
    except (BadSample, ValueError, OSError, ModuleNotFoundError) as error:
        print(f"medvlm export: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
