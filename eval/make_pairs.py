"""Preference pairs from a manifest: by rules, by other images, or from a model's own answers.

    medvlm data pairs data/train_sft.jsonl --out data/pairs.jsonl
    medvlm data pairs data/train_sft.jsonl --out data/pairs.jsonl --rules side_flip,negation_flip --images noise,crop
    medvlm data pairs data/train_sft.jsonl --out data/own.jsonl --model CHECKPOINT --answers 4 --temperature 1

Beside PAIRS.jsonl stand PAIRS.summary.json, PAIRS.quarantine.jsonl and PAIRS_visuals/ with the changed images. The same
manifest and seed give the same bytes; a run that was stopped goes on when the command is repeated.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.table import Table

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.one_writer import one_writer
from medvlm.data_recipes.pairs.build import PairSettings, make_pairs
from medvlm.data_recipes.pairs.image_rules import IMAGE_RULES, parse_image_rule
from medvlm.data_recipes.pairs.pair_files import Tally
from medvlm.data_recipes.pairs.rules import RULES
from medvlm.data_recipes.sample import Split
from medvlm.eval.answer_scores import Sampling
from medvlm.eval.loaded_model import CheckpointModel
from medvlm.eval.sampled_pairs import MADE_BY, sampled_pairs


def show_table(tally: Tally, settings: PairSettings, *, sampled: bool = False) -> None:
    """Print what each rule gave."""
    about = {rule.name: rule.about for rule in RULES}
    table = Table("rule", "pairs", "what is wrong")
    if sampled:
        table.add_row(MADE_BY, str(tally.pairs[MADE_BY]), "the answer of the model that scored worst")
    for name in () if sampled else settings.rules:
        table.add_row(name, str(tally.pairs[name]), about[name])
    for rule in () if sampled else settings.images:
        alone, _, added = IMAGE_RULES[rule.kind].partition("; ")
        table.add_row(rule.name, str(tally.pairs[rule.name]), alone if rule.std is None else added)
    Console().print(table)
    left = ", ".join(f"{count} {reason}" for reason, count in sorted(tally.left_out.items()))
    used = sum(tally.samples.values())
    print(f"{sum(tally.pairs.values())} pairs of {used - tally.samples['0']} samples; {tally.samples['0']} gave none")
    if left:
        print(f"not used: {left}")


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for part in text.split(",") if (word := part.strip()))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    names = ", ".join(rule.name for rule in RULES)
    made = argparse.ArgumentParser(
        prog="medvlm data pairs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("manifest", type=Path, help="manifest of samples with answers")
    made.add_argument("--out", type=Path, required=True, help="manifest of pairs to write")
    made.add_argument("--rules", type=_words, help=f"text rules, by commas; all by default: {names}; 'none' for none")
    made.add_argument("--images", type=_words, default=(), help=f"image rules: {', '.join(IMAGE_RULES)}, noise:STD")
    made.add_argument("--seed", type=int, default=0, help="all that is random follows from it")
    made.add_argument("--per-sample", type=int, default=2, help="most pairs of one sample (2); 0 for every rule")
    made.add_argument("--split", choices=get_args(Split), default="train", help="whose samples are used (train)")
    made.add_argument("--held-out", type=Path, action="append", default=[], help="manifest whose patients are not used")
    made.add_argument(
        "--allow-official", action="store_true", help="use patients whom the authors' own split shares with test"
    )
    made.add_argument("--root", type=Path, help="what paths of visuals start from; the manifest's folder by default")
    made.add_argument(
        "--model", help="checkpoint whose own answers are scored and paired; --rules and --images do not apply"
    )
    made.add_argument("--device", help="of the model; the GPU when there is one")
    made.add_argument("--answers", type=int, default=Sampling.answers, help="sampled for each question (4)")
    made.add_argument("--temperature", type=float, default=Sampling.temperature, help="of the sampling (1.0)")
    made.add_argument("--top-p", type=float, default=Sampling.top_p, help="of the sampling (1.0)")
    made.add_argument("--margin", type=float, default=Sampling.margin, help="least difference of two scores (0.3)")
    made.add_argument("--least-chosen", type=float, default=Sampling.least_chosen, help="least score to choose (0.5)")
    made.add_argument("--with-reference", action="store_true", help="choose the reference where it is better")
    made.add_argument("--quiet", action="store_true", help="no progress bar")
    return made


def _from_model(given: argparse.Namespace, settings: PairSettings) -> Tally:
    if given.rules is not None or given.images:
        raise ValueError("--model makes pairs of the model's own answers; run --rules and --images without it")
    how = Sampling(
        answers=given.answers, temperature=given.temperature, top_p=given.top_p, margin=given.margin,
        least_chosen=given.least_chosen, with_reference=given.with_reference,
    )  # fmt: skip
    model = CheckpointModel(given.model, device=given.device)
    out = given.out.absolute()
    with one_writer(out.with_name(f".{out.name}.lock")):
        return sampled_pairs(model, given.manifest, given.out, settings, how, show=not given.quiet)


def main(arguments: list[str] | None = None) -> int:
    """0 done; 1 done but rows were refused or no pair came out; 2 refused."""
    given = parser().parse_args(arguments)
    rules = tuple(rule.name for rule in RULES) if given.rules is None else given.rules
    try:
        if not given.manifest.is_file():
            raise ValueError(f"{given.manifest} is no file; give a manifest (.jsonl), such as data/train_sft.jsonl")
        settings = PairSettings(
            rules=() if rules == ("none",) else rules,
            images=tuple(parse_image_rule(word) for word in given.images),
            seed=given.seed,
            per_sample=given.per_sample or None,
            split=given.split,
            held_out=tuple(given.held_out),
            allow_official=given.allow_official,
            root=given.root,
        )
        if given.model is None:
            tally = make_pairs(given.manifest, given.out, settings, show=not given.quiet)
        else:
            tally = _from_model(given, settings)
    except UnicodeDecodeError as error:
        named = ", ".join(str(path) for path in (given.manifest, *given.held_out))
        print(
            f"medvlm data pairs: not UTF-8 ({error.reason}), so no manifest: {named}. "
            "Mend: give one that medvlm data walk or medvlm data build wrote",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it stopped", file=sys.stderr)
        return 1
    except (BadSample, ValueError, OSError, ModuleNotFoundError) as error:
        print(f"medvlm data pairs: {error}", file=sys.stderr)
        return 2
    show_table(tally, settings, sampled=given.model is not None)
    if tally.quarantined:
        print(
            f"{tally.quarantined} rows were refused: {given.out.name.removesuffix('.jsonl')}.quarantine.jsonl says why"
        )
    return 1 if tally.quarantined or not tally.pairs else 0


if __name__ == "__main__":
    sys.exit(main())
