"""The browser of cases: every question with its answers under every condition, as rows that a page can hold.

Of one run, or of two runs side by side. What a model wrote stays text: it is packed as JSON, compressed and base64, and
the page shows it through textContent alone.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medvlm.eval.case_rows import Shortened, boxes_of, case_row
from medvlm.eval.case_tags import TAGS, comparison_tags, tags_of
from medvlm.eval.gallery import choose
from medvlm.eval.generate import Reader
from medvlm.eval.page_options import MEDIA_MEGABYTES, PICTURED
from medvlm.eval.pictures import NOT_CHOSEN, Album, Embedded
from medvlm.eval.plan import Ask
from medvlm.eval.plots import LABELS
from medvlm.eval.rows import Row

MOST_CASES = 5000
PAGE_BYTES = 57_000_000
"""Of cases and media together; tables and plots take less than a further one."""

ALL_TEXT, LEAST_TEXT, MOST_TEXT = 40_000_000, 400, 8_000
"""Characters of all answers together, and the least and the most that one answer keeps."""


@dataclass(frozen=True, kw_only=True)
class AnsweredRun:
    """What a page needs of a run: its name, and the rows of its folder."""

    name: str
    asks: Sequence[Ask]
    scores: Sequence[Row]
    responses: Sequence[Row]


@dataclass(frozen=True, kw_only=True)
class Browser:
    """What report_browser.html shows.

    Attributes:
        cases: gzip and base64 of the JSON that report.js reads.
        media: see pictures.Embedded.
        shown, total: cases in the page and in the run.
        pictured: cases whose visual is embedded.
        chosen: how the cases were chosen, and which have their picture, in a sentence each.
    """

    cases: str
    media: Sequence[Embedded]
    shown: int
    total: int
    pictured: int
    chosen: Sequence[str]


def browse(
    runs: Sequence[AnsweredRun],
    read: Reader,
    *,
    pictured: int = PICTURED,
    megabytes: float = MEDIA_MEGABYTES,
    most: int = MOST_CASES,
    seed: int = 0,
) -> Browser:
    """Make the browser of one run, or of two about the same questions.

    Args:
        runs: one or two.
        read: of visuals.
        pictured: cases that show their picture, by the order in which a person should look at them.
        megabytes: that pictures may take; less where the texts leave less of PAGE_BYTES.
        most: cases in the page.
        seed: of the choice.

    Raises:
        ValueError: not one or two runs, or two runs without a question in common.
    """
    if len(runs) not in (1, 2):
        raise ValueError(f"a page shows one run or two side by side, got {len(runs)}")
    asked = [_by_sample(run) for run in runs]
    common = [name for name in asked[0] if all(name in other for other in asked)]
    if not common:
        raise ValueError("the two runs have no question in common; compare runs of the same task or manifests")
    tagged = {name: _tags(runs, asked, name) for name in common}
    order = _order(runs, common, tagged, most, seed)
    answers = sum(len(one[name]) for one in asked for name in order)
    short = Shortened(most=min(MOST_TEXT, max(LEAST_TEXT, ALL_TEXT // answers)))
    written = [{row["request_id"]: row["text"] for row in run.responses} for run in runs]
    cases = [case_row([one[name] for one in asked], written, short, tagged[name]) for name in order]
    texts = len(_packed(runs, cases, []))
    album = _album(read, cases, order, asked[0], pictured, min(megabytes * 1e6, PAGE_BYTES - texts))
    return Browser(
        cases=_packed(runs, cases, album.pages),
        media=album.pages,
        shown=len(cases),
        total=len(common),
        pictured=sum(bool(case["media"]) for case in cases),
        chosen=_sentences(len(cases), len(common), cases, len(runs)),
    )


_Asked = dict[str, list[tuple[Ask, Row]]]


def _by_sample(run: AnsweredRun) -> _Asked:
    """sample_id -> its requests and marks, the one with its own image first."""
    marks = {row["request_id"]: row for row in run.scores}
    found: _Asked = defaultdict(list)
    for ask in run.asks:
        if ask.request_id in marks:
            found[ask.item.sample.sample_id].append((ask, marks[ask.request_id]))
    return {name: sorted(pairs, key=lambda pair: pair[0].condition != "image") for name, pairs in found.items()}


def _tags(runs: Sequence[AnsweredRun], asked: Sequence[_Asked], name: str) -> list[str]:
    scores = [[score for _, score in one[name]] for one in asked]
    return tags_of(scores[0]) if len(runs) == 1 else comparison_tags(scores[0][0], scores[1][0])


def _order(
    runs: Sequence[AnsweredRun], common: Sequence[str], tagged: Mapping[str, list[str]], most: int, seed: int
) -> list[str]:
    """Sample ids, those first that a person should look at first."""
    kept = set(common)
    items = {ask.item.sample.sample_id: ask.item.sample.source for ask in runs[0].asks}
    rows = [row for row in runs[0].scores if row["sample_id"] in kept]
    if len(runs) == 1:
        return choose(rows, min(most, len(common)), seed=seed, source_of=items)
    everything = choose(rows, len(common), seed=seed, source_of=items)
    return sorted(everything, key=lambda name: "differ" not in tagged[name])[:most]


def _album(
    read: Reader, cases: Sequence[Row], order: Sequence[str], asked: _Asked, pictured: int, budget: float
) -> Album:
    """Fill media, missing and boxes of the cases."""
    first = _pictured_first(cases, pictured)
    items = {place: asked[name][0][0].item for place, name in enumerate(order)}
    shown = {(ref.kind, ref.path, repr(ref.options)) for place in first for ref in items[place].sample.visuals()}
    scans = sum(kind == "volume" for kind, _, _ in shown)
    # Where there are pictures and clips as well, half of the room is theirs.
    room = budget if scans == len(shown) else budget / 2
    album = Album(read=read, budget=budget, share=room / max(1, scans))
    for place, case in enumerate(cases):
        item = items[place]
        if not item.sample.visuals():
            continue
        if place not in first:
            case["missing"] = [NOT_CHOSEN]
            continue
        for ref in item.sample.visuals():
            found = album.place_of(ref, item.root)
            if isinstance(found, int):
                case["media"].append(found)
            elif found not in case["missing"]:
                case["missing"].append(found)
        if case["kind"] == "box" and len(case["media"]) == 1 == len(item.sample.visuals()):
            case["boxes"] = boxes_of(case, item, album.pages[case["media"][0]])
    return album


def _pictured_first(cases: Sequence[Row], pictured: int) -> set[int]:
    """Places of ``pictured`` cases: of one run about two wrong for each right one, of two runs the first."""
    if any(answer["run"] for case in cases[:1] for answer in case["answers"]):
        return set(range(min(pictured, len(cases))))
    wrong = [place for place, case in enumerate(cases) if case["verdict"] != "right"]
    right = [place for place, case in enumerate(cases) if case["verdict"] == "right"]
    first = wrong[: max(round(pictured * 2 / 3), pictured - len(right))]
    return {*first, *right[: max(0, pictured - len(first))]}


def _packed(runs: Sequence[AnsweredRun], cases: Sequence[Row], media: Sequence[Embedded]) -> str:
    conditions = list(dict.fromkeys(answer["condition"] for case in cases for answer in case["answers"]))
    content = {
        "runs": [run.name for run in runs],
        "conditions": {name: LABELS.get(name, name.replace("_", " ")) for name in conditions},
        "tags": TAGS,
        "media": [one.about for one in media],
        "cases": list(cases),
    }
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), 6, mtime=0)).decode()


def _sentences(shown: int, total: int, cases: Sequence[Row], runs: int) -> list[str]:
    first = "those answered differently first" if runs == 2 else "wrong and unreadable ones first"
    said = [f"All {total:,} cases, {first}."]
    if shown < total:
        how = "those answered differently" if runs == 2 else "about two wrong or partly right ones for each right one"
        said = [
            f"{shown:,} of {total:,} cases: {how}, spread over sources, kinds and topics by a seeded draw; {first}."
        ]
    visual = [case for case in cases if case["media"] or case["missing"]]
    pictured = sum(bool(case["media"]) for case in visual)
    if visual and pictured < len(visual):
        said.append(
            f"{pictured:,} of {len(visual):,} cases with a picture, scan or clip show it; more with --gallery N and "
            "--media-megabytes N of medvlm eval report."
        )
    return said
