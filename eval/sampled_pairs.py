"""Preference pairs from a model's own answers, scored by the scorers of evaluation.

Several answers are sampled for each training question; the best and the worst by score become chosen and rejected when
their scores differ enough. Reports are scored by their findings (kind and side, negations kept), closed and choice
questions by being right, open ones by token F1, boxes by IoU. As in RLHF-V's and POVID's line of work the negatives are
what the model itself would say, so that the preference stage corrects its mistakes and not a rule's.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.pairs.build import PairSettings, held_out_patients, moved, why_not
from medvlm.data_recipes.pairs.case import Case, case_of, plain_prompt
from medvlm.data_recipes.pairs.image_rules import Places
from medvlm.data_recipes.pairs.pair_files import PairFiles, Tally
from medvlm.data_recipes.pairs.rules import pair_sample
from medvlm.data_recipes.progress import tracking
from medvlm.data_recipes.sample import Preference, Question, Sample, Turn, VisualRef, read_jsonl
from medvlm.eval.answer_scores import Sampling, choose, question_of, score
from medvlm.eval.models import Request, Response
from medvlm.eval.plan import MAX_NEW_TOKENS, request_name
from medvlm.eval.rows import append_rows, drop_torn_line
from medvlm.model.visual import Visual

MADE_BY = "sampled"


class Writer(Protocol):
    """What samples answers: eval.models.CheckpointModel."""

    @property
    def name(self) -> str: ...

    def read(self, ref: VisualRef, root: Path) -> Visual:
        """A visual as training read it."""
        ...

    def write(self, requests: Sequence[Request], **decoding: Any) -> list[Response]:
        """One response per request."""
        ...


def seed_of(seed: int, sample_id: str) -> int:
    """The seed of all answers to one sample: no other sample changes them."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{sample_id}".encode()).digest()[:7], "big")


def sample_answers(
    writer: Writer, case: Case, question: Question, root: Path, how: Sampling, seed: int
) -> list[Response]:
    """``how.answers`` answers of the model to one question, as one batch.

    Raises:
        BadSample: a visual cannot be read.
    """
    room = MAX_NEW_TOKENS[question.kind]
    visuals = tuple(writer.read(ref, root) for turn in case.turns for ref in turn.visuals)
    requests = [
        Request(
            request_id=request_name(f"{case.sample.sample_id}#{number}", "image", case.turns, room),
            sample_id=case.sample.sample_id, turns=case.turns, question=question, visuals=visuals, max_new_tokens=room,
        )
        for number in range(how.answers)
    ]  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(seed, case.sample.sample_id))
        # top_k 0 is "off"; a checkpoint's generation config could otherwise cut the distribution.
        return writer.write(requests, do_sample=True, temperature=how.temperature, top_p=how.top_p, top_k=0)


def _usable(manifest: Path, settings: PairSettings, tally: Tally, files: PairFiles | None) -> Iterator[Case]:
    """Cases of the manifest in order; with ``files``, what is left out is counted and refused rows are written."""
    held_out = held_out_patients(manifest, settings)
    for row in read_jsonl(manifest):
        if isinstance(row, BadSample):
            if files is not None:
                files.refuse(row, tally)
            continue
        reason = why_not(row, settings, held_out)
        case = case_of(row) if reason is None else None
        if case is not None:
            yield case
        elif files is not None:
            tally.left_out[reason or "no answer"] += 1


def sampled_pairs(
    writer: Writer, manifest: Path, out: Path, settings: PairSettings, how: Sampling, *, show: bool = True
) -> Tally:
    """Write pairs of the model's own answers to ``out``; every answer and score stays in ``out``'s journal.

    The journal (PAIRS.answers.jsonl) grows by one row for each sample and is on the disk before the next is asked, so
    that a killed run loses the sample at work. It belongs to one model, manifest and settings. Pairs are made from it
    at the end: another margin needs no new answers.

    Raises:
        ValueError: the journal is of other answers; ``out`` is the manifest.
    """
    manifest, out = manifest.absolute(), out.absolute()
    if manifest == out:
        raise ValueError(f"{out} is the manifest itself; write the pairs to another file")
    files = PairFiles(out)
    places = Places(root=(settings.root or manifest.parent).absolute(), out=out.parent, folder=files.visuals)
    journal = out.with_name(f"{out.name.removesuffix('.jsonl')}.answers.jsonl")
    total = sum(1 for _ in _usable(manifest, settings, Tally(), None))
    _ask_all(writer, manifest, journal, places.root, settings, how, total, show)
    tally = files.fresh()
    with files.opened():
        answered = _rows(journal)
        for case in _usable(manifest, settings, tally, files):
            row = next(answered)
            pair = _pair(case, row, how, tally, files)
            if pair is not None:
                files.write(moved(pair, places))
                tally.pairs[MADE_BY] += 1
            tally.samples[str(int(pair is not None))] += 1
        files.flush(tally)
    files.finish(_summary(tally, how, writer.name))
    return tally


def _ask_all(
    writer: Writer,
    manifest: Path,
    journal: Path,
    root: Path,
    settings: PairSettings,
    how: Sampling,
    total: int,
    show: bool,
) -> None:
    head = {
        "model": writer.name, "seed": settings.seed, "answers": how.answers, "temperature": how.temperature,
        "top_p": how.top_p,
    }  # fmt: skip
    drop_torn_line(journal)
    done = _check_journal(journal, head)
    with tracking("sampling answers", total, done=done, show=show) as track:
        for number, case in enumerate(_usable(manifest, settings, Tally(), None)):
            if number < done:
                continue
            append_rows(journal, [_answered(writer, case, root, how, settings.seed, head)])
            track.advance()


def _answered(writer: Writer, case: Case, root: Path, how: Sampling, seed: int, head: dict[str, Any]) -> dict[str, Any]:
    """One row of the journal: answers and scores, or why there are none."""
    row: dict[str, Any] = {"sample_id": case.sample.sample_id, "asked": _asked(case), **head}
    question = question_of(case)
    try:
        written = sample_answers(writer, case, question, root, how, seed)
    except BadSample as bad:
        return {**row, "bad": bad.to_dict()}
    answers = [response.text.strip() for response in written]
    scores = [score(question, text, case.prompt) for text in answers]
    return {
        **row,
        "kind": question.kind,
        "texts": answers,
        "scores": scores,
        "finish": [w.finish_reason for w in written],
    }


def _asked(case: Case) -> str:
    words = json.dumps([plain_prompt(case.prompt), case.answer])
    return hashlib.sha256(words.encode()).hexdigest()[:16]


def _rows(journal: Path) -> Iterator[dict[str, Any]]:
    if not journal.exists():
        return
    with journal.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _check_journal(journal: Path, head: dict[str, Any]) -> int:
    """Rows of the journal, all of which must be of this model and these settings."""
    done = 0
    for done, row in enumerate(_rows(journal), start=1):
        differs = [key for key, value in head.items() if row.get(key) != value]
        if differs:
            raise ValueError(
                f"{journal}:{done} has {differs[0]} {row.get(differs[0])!r}, not {head[differs[0]]!r}; "
                "repeat that run, or write the pairs to another file"
            )
    return done


def _pair(case: Case, row: dict[str, Any], how: Sampling, tally: Tally, files: PairFiles) -> Sample | None:
    if row["sample_id"] != case.sample.sample_id or row["asked"] != _asked(case):
        raise ValueError(
            f"the journal answers {row['sample_id']} where the manifest asks {case.sample.sample_id}: the manifest or "
            "the held-out patients have changed; write the pairs to another file"
        )
    if "bad" in row:
        files.refuse(BadSample(**{**row["bad"], "sample_id": case.sample.sample_id}), tally)
        return None
    best = choose(case.answer, row["texts"], row["scores"], [end == "stop" for end in row["finish"]], how)
    if best is None:
        tally.left_out["no two answers far enough apart"] += 1
        return None
    chosen, rejected = (Turn(role="assistant", content=(text,)) for text in best)
    preference = Preference(chosen=(chosen,), rejected=(rejected,), made_by=MADE_BY)
    drawn = {key: row[key] for key in ("model", "seed", "temperature", "top_p", "kind", "texts", "scores", "finish")}
    return pair_sample(case, MADE_BY, preference, {**drawn, "margin": how.margin, "reference": case.answer})


def _summary(tally: Tally, how: Sampling, model: str) -> dict[str, Any]:
    return {
        "model": model,
        "sampling": asdict(how),
        "pairs": dict(tally.pairs),
        "samples_by_pairs": dict(sorted(Counter(tally.samples).items())),
        "left_out": dict(sorted(tally.left_out.items())),
    }
