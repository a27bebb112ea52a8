"""Which question is asked under which condition, and the name of each request."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import Question, Sample, Turn, VisualRef, read_jsonl
from medvlm.eval.controls import Condition, Visuals, swap_partners, with_visuals, without_visuals
from medvlm.eval.extract import choice_index
from medvlm.eval.prompts import ROOM_TO_THINK, Style, in_style
from medvlm.eval.rewording import Asked, paraphrase, rotations

DIMENSIONS = ("2d", "3d", "video")
_DIMENSION_OF_KIND = {"image": "2d", "volume": "3d", "video": "video"}

MAX_NEW_TOKENS: Mapping[str, int] = {
    "closed": 32, "choice": 32, "open": 64, "report": 384, "box": 96, "labels": 128, "span": 256, "json": 256,
}  # fmt: skip
"""Room for an answer, by kind of question, unless told otherwise."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """An evaluation sample and the manifest that it stands in; its paths are relative to that folder."""

    sample: Sample
    manifest: Path

    @property
    def root(self) -> Path:
        """What relative paths of visuals start from."""
        return self.manifest.parent

    @property
    def question(self) -> Question:
        assert self.sample.question is not None, "read_items keeps only samples with a question"
        return self.sample.question

    @property
    def prompt(self) -> str:
        """The text of the question as asked."""
        return self.sample.turns[-1].text

    @property
    def dimension(self) -> str:
        """2d, 3d or video; "mixed" when the visuals are of several kinds, "text" when there are none."""
        found = {_DIMENSION_OF_KIND[ref.kind] for ref in self.sample.visuals()}
        return found.pop() if len(found) == 1 else ("mixed" if found else "text")


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One request before its visuals are read.

    Attributes:
        turns: the conversation as asked under ``condition``, which is not always ``item.sample.turns``.
        question: as asked under ``condition``: other choices or another order have other answers than the sample's.
    """

    request_id: str
    item: Item
    condition: Condition
    turns: tuple[Turn, ...]
    question: Question
    max_new_tokens: int

    @property
    def prompt(self) -> str:
        """The text of the question as asked."""
        return self.turns[-1].text


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Every request of a run.

    Attributes:
        not_asked: condition -> reason -> number of samples not asked under it.
    """

    asks: tuple[Ask, ...]
    not_asked: dict[str, dict[str, int]]


def read_items(manifests: Sequence[Path]) -> tuple[list[Item], list[BadSample]]:
    """The samples of ``manifests`` that can be asked and scored, and why the others cannot."""
    items: list[Item] = []
    bad: list[BadSample] = []
    seen: dict[str, Path] = {}
    for manifest in manifests:
        for read in read_jsonl(manifest):
            if isinstance(read, BadSample):
                bad.append(read)
                continue
            problem = why_unusable(read, seen, manifest)
            if problem is not None:
                bad.append(problem)
                continue
            seen[read.sample_id] = manifest
            items.append(Item(sample=read, manifest=manifest))
    return items, bad


def why_unusable(sample: Sample, seen: Mapping[str, Path], where: Path) -> BadSample | None:
    """Why ``sample`` cannot be asked and scored; None when it can.

    Args:
        seen: sample_id -> where it was met before.
    """
    problem = _problem(sample, seen)
    if problem is None:
        return None
    return BadSample(problem[0], where=str(where), mend=problem[1], sample_id=sample.sample_id)


def _problem(sample: Sample, seen: Mapping[str, Path]) -> tuple[str, str] | None:
    if sample.question is None:
        return "the sample has no question", "add one, or leave the sample out of the evaluation"
    if sample.sample_id in seen:
        return f"sample_id was already used in {seen[sample.sample_id]}", "make sample_id unique over all manifests"
    if sample.question.kind in ("closed", "choice"):
        for answer in sample.question.answers:
            if choice_index(sample.question, answer, sample.turns[-1].text) is None:
                choices = list(sample.question.choices)
                return f"answer {answer!r} is none of the choices {choices}", "write the choice's text or its letter"
    for number, finding in enumerate(sample.question.findings):
        if not isinstance(finding.get("kind"), str) or not isinstance(finding.get("present"), bool):
            return f"question.findings[{number}] lacks a text 'kind' or a true/false 'present'", "state both"
        if finding.get("side") not in (None, "left", "right", "bilateral"):
            return f"question.findings[{number}] has side {finding['side']!r}", "use left, right, bilateral or null"
    return None


def take(items: Sequence[Item], limit: int | None, *, seed: int) -> list[Item]:
    """At most ``limit`` items of each manifest, spread by a seeded hash of sample_id, in their old order."""
    if limit is None:
        return list(items)
    kept: set[str] = set()
    for manifest in {item.manifest for item in items}:
        names = [item.sample.sample_id for item in items if item.manifest == manifest]
        kept.update(sorted(names, key=lambda n: hashlib.sha256(f"{seed}/{n}".encode()).hexdigest())[:limit])
    return [item for item in items if item.sample.sample_id in kept]


def request_name(sample_id: str, condition: str, turns: Iterable[Turn], max_new_tokens: int) -> str:
    """24 hexadecimal digits over all that decides the answer of a given model: prompt, media, arguments, condition."""
    content = {
        "sample_id": sample_id,
        "condition": condition,
        "turns": [[turn.role, [_part(part) for part in turn.content]] for turn in turns],
        "max_new_tokens": max_new_tokens,
        "do_sample": False,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def _part(part: str | VisualRef) -> object:
    if isinstance(part, str):
        return part
    return {"kind": part.kind, "media": part.sha256 or part.path, "options": part.options}


def make_plan(
    items: Sequence[Item],
    *,
    conditions: Sequence[Condition],
    limit: int | None = None,
    control_limit: int | None = None,
    control_report_limit: int | None = None,
    max_new_tokens: int | Mapping[str, int] = MAX_NEW_TOKENS,
    style: Style = "plain",
    seed: int = 0,
) -> Plan:
    """Every request of a run, in manifest order within each condition.

    Args:
        items: all that may be asked; partners for swapping are drawn from all of them, ``limit`` or not.
        conditions: among controls.CONDITIONS.
        limit: samples per manifest.
        control_limit: samples per manifest asked under each condition but "image", spread by a seeded hash; None: all.
        control_report_limit: report questions asked under each control condition (they are long to write); None: all.
        max_new_tokens: one number, or one by kind of question.
        style: how the answer is asked for, see prompts.py.
        seed: of the limits and of the swaps.
    """
    partners: dict[str, Visuals] = {}
    if "swapped" in conditions:
        for root in dict.fromkeys(item.root for item in items):
            partners |= swap_partners((item.sample for item in items if item.root == root), seed=seed)
    taken = take(items, limit, seed=seed)
    controlled = taken if control_limit is None else take(taken, control_limit, seed=seed)
    asks: list[Ask] = []
    not_asked: dict[str, dict[str, int]] = {}
    for condition in conditions:
        reasons: Counter[str] = Counter()
        reports = 0
        if condition != "image" and len(controlled) < len(taken):
            reasons["beyond the limit of controls"] = len(taken) - len(controlled)
        for item in taken if condition == "image" else controlled:
            if condition != "image" and item.question.kind == "report":
                reports += 1
                if control_report_limit is not None and reports > control_report_limit:
                    reasons["beyond the limit of reports under controls"] += 1
                    continue
            asked = _asked_under(condition, item, partners)
            if isinstance(asked, str):
                reasons[asked] += 1
                continue
            room = _room(max_new_tokens, item.question.kind, style)
            for turns, question in asked:
                styled = in_style(turns, style)
                asks.append(
                    Ask(
                        request_id=request_name(item.sample.sample_id, condition, styled, room),
                        item=item,
                        condition=condition,
                        turns=styled,
                        question=question,
                        max_new_tokens=room,
                    )
                )
        not_asked[condition] = dict(sorted(reasons.items()))
    return Plan(asks=tuple(asks), not_asked=not_asked)


def _room(max_new_tokens: int | Mapping[str, int], kind: str, style: Style) -> int:
    return max_new_tokens if isinstance(max_new_tokens, int) else max_new_tokens[kind] + ROOM_TO_THINK[style]


def _asked_under(condition: Condition, item: Item, partners: Mapping[str, Visuals]) -> Sequence[Asked] | str:
    """The conversations under ``condition`` with their questions, or why it is not asked."""
    turns, question = item.sample.turns, item.question
    match condition:
        case "image":
            return [(turns, question)]
        case "choices_shuffled":
            return rotations(turns, question)
        case "paraphrase":
            return [paraphrase(turns, question)]
    if not item.sample.visuals():
        return "shows no visual, so a control would repeat the question"
    if condition == "no_image":
        return [(without_visuals(turns), question)]
    if condition == "noise":
        return [(turns, question)]
    partner = partners.get(item.sample.sample_id)
    if partner is None:
        return "no other patient shows visuals of the same kind and modality"
    return [(with_visuals(turns, partner), question)]
