"""Every prompt of a step with another pair's answer: what KTO's reference point is estimated from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist

from medvlm.model.batch import IGNORED, PackedBatch
from medvlm.train.distributed import of_all_ranks


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """The last answer of a side: ``tokens`` are predicted at the pack's positions from ``start`` on."""

    start: int
    tokens: list[int]


def with_unrelated_answers(packs: Sequence[PackedBatch]) -> list[PackedBatch] | None:
    """``packs`` with the last answer of each side replaced by that of another pair of the step, over all ranks; all
    ranks must call it.

    Chosen answers go to prompts of chosen answers and rejected to rejected, each to the next pair in an order that
    depends on sample ids only: how pairs are split into packs and ranks changes nothing.

    Returns:
        As many packs, in which only the new answers carry loss; None when the step has fewer than two pairs.
    """
    own = [[_last_answer(pack, side) for side in range(len(pack.sample_ids))] for pack in packs]
    told = [
        (pack.sample_ids[2 * pair], chosen.tokens, rejected.tokens)
        for pack, answers in zip(packs, own, strict=True)
        for pair, (chosen, rejected) in enumerate(zip(answers[::2], answers[1::2], strict=True))
        if chosen.tokens and rejected.tokens
    ]
    gathered = of_all_ranks(told)
    rank = dist.get_rank() if len(gathered) > 1 else 0
    everyone = [row for part in gathered for row in part]
    if len(everyone) < 2:
        return None
    first = sum(len(part) for part in gathered[:rank])
    order = sorted(range(len(everyone)), key=lambda n: (hashlib.sha256(everyone[n][0].encode()).digest(), everyone[n]))
    giver = {taker: order[place - 1] for place, taker in enumerate(order)}
    theirs = iter([everyone[giver[first + number]][1:] for number in range(len(told))])
    changed = []
    for pack, answers in zip(packs, own, strict=True):
        given: list[list[int]] = []
        for chosen, rejected in zip(answers[::2], answers[1::2], strict=True):
            given.extend(next(theirs) if chosen.tokens and rejected.tokens else ([], []))
        changed.append(_replaced(pack, answers, given))
    return changed


def _last_answer(pack: PackedBatch, side: int) -> _Answer:
    start, stop = pack.cu_seqlens[side : side + 2].tolist()
    scored = (pack.targets[start:stop] != IGNORED).nonzero().squeeze(1).tolist()
    if not scored:
        return _Answer(start=stop, tokens=[])
    begin = len(scored) - 1
    while begin and scored[begin - 1] == scored[begin] - 1:
        begin -= 1
    return _Answer(
        start=start + scored[begin], tokens=pack.targets[start + scored[begin] : start + scored[-1] + 1].tolist()
    )


def _replaced(pack: PackedBatch, answers: Sequence[_Answer], given: Sequence[list[int]]) -> PackedBatch:
    tokens, targets, positions, ends = [], [], [], [0]
    for start, answer, new in zip(pack.cu_seqlens.tolist(), answers, given, strict=False):
        # Nothing is predicted from the last token of an answer, so it is left out.
        before = slice(start, answer.start + bool(new))
        fresh = torch.tensor(new, dtype=torch.int64)
        place = pack.positions[before]
        tokens += [pack.tokens[before], fresh[:-1]]
        targets += [torch.full((answer.start - start,), IGNORED), fresh]
        positions += [place, place[-1:].repeat_interleave(max(len(new) - 1, 0)) + torch.arange(1, max(len(new), 1))]
        ends.append(ends[-1] + len(place) + max(len(new) - 1, 0))
    return replace(
        pack,
        tokens=torch.cat(tokens),
        targets=torch.cat(targets),
        positions=torch.cat(positions),
        cu_seqlens=torch.tensor(ends, dtype=torch.int32),
    )
