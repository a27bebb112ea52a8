"""Yes for no, and a statement for its contrary: "There is no nodule" <-> "There is a nodule"."""

from __future__ import annotations

import re

import numpy as np

from medvlm.data_recipes.pairs.case import Case, Change
from medvlm.data_recipes.pairs.english import Sentence, like
from medvlm.data_recipes.pairs.finding_words import asserted, mentioned
from medvlm.data_recipes.pairs.pool import Pool

_YES_NO = {"yes": "no", "no": "yes"}
_SEEN = (
    r"(?:seen|identified|present|visible|visuali[sz]ed|noted|demonstrated|evident|"
    r"detected|appreciated|enlarged)"
)
_BE = r"(?:is|are|was|were|appears?|remains?)"
# Nothing stands after "no" that would leave the contrary in doubt, and "with or without" denies nothing.
_OPEN = (
    r"(?!(?:definite|convincing|substantial|large|significant|other|further|additional|"
    r"new|interval|longer|more|prior|previous|comparison\w*|indication|old|XXXX|"
    r"typical|gross|overt|obvious|suspicious|change)\b)"
)

DENIED: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(rf"\b(there (?:is|are|was|were)) no (?:evidence of (?:an? )?|signs? of (?:an? )?)?{_OPEN}", re.I),
        r"\1 ",
    ),
    (
        re.compile(
            rf"^No (?:evidence of (?:an? )?|signs? of (?:an? )?)?{_OPEN}(?=\w)(?=[^.;]*\b(?:is|"
            rf"are) {_SEEN}\b)(?:(?!\bor\b|,).)*?(?= (?:is|are) {_SEEN}\b)",
            re.I,
        ),
        r"UPPER",
    ),
    (
        re.compile(
            rf"^No (?:evidence of (?:an? )?|signs? of (?:an? )?)?{_OPEN}(?=\w)(?![^.;]*\b(?:is|"
            rf"are) {_SEEN}\b)",
            re.I,
        ),
        "There is ",
    ),
    (re.compile(rf"^Negative for {_OPEN}", re.I), "Positive for "),
    (re.compile(rf"\b({_BE}) not ({_SEEN})\b", re.I), r"\1 \2"),
)
"""(pattern, contrary) of a sentence that denies a finding."""

STATED: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"^(there (?:is|are|was|were)) (?:an? |some |the )?", re.I), r"\1 no "),
    (re.compile(rf"\b(is|are|was|were) ({_SEEN})\b", re.I), r"\1 not \2"),
)
"""(pattern, contrary) of a sentence that states a finding."""

NORMAL: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(
            rf"\b({_BE}) (?:grossly |essentially |otherwise |bilaterally )?(normal|clear|"
            rf"intact|within normal limits)\b(?! variant)",
            re.I,
        ),
        r"\1 not \2",
    ),
    (re.compile(rf"\b({_BE}) (?:grossly |essentially |otherwise )?unremarkable\b", re.I), r"\1 abnormal"),
    (re.compile(r"^Normal (?=heart|cardiac|cardiomediastinal|mediasti|pulmonary|lung)", re.I), "Abnormal "),
    (
        re.compile(
            r"^(Heart size|Heart|Cardiac size|Cardiac silhouette|Cardiomediastinal silhouette|"
            r"Mediastinal contours?|Pulmonary vascularity) (normal|within normal limits)\b",
            re.I,
        ),
        r"\1 not \2",
    ),
    (re.compile(r"^(Lungs?(?: fields?)?) (clear)\b", re.I), r"\1 not \2"),
    (re.compile(r"^Clear lungs\b", re.I), "Lungs not clear"),
)
"""(pattern, contrary) of a sentence that calls a part of the body normal."""

_STABLE = re.compile(
    r"\b(?:change[sd]?|unchanged|interval|with or without|improv\w+|increas\w+|"
    r"decreas\w+|other than|except|however|but|otherwise)\b",
    re.I,
)


def yes_no_flip(case: Case, rng: np.random.Generator, pool: Pool) -> Change | None:
    """ "yes" <-> "no", of an answer that is nothing else."""
    found = re.fullmatch(r"\s*(yes|no)(\W*)", case.answer, re.IGNORECASE)
    # "Is it left or right?" answered "yes" says nothing, and neither does its contrary.
    if found is None or not case.english:
        return None
    new = like(_YES_NO[found[1].lower()], found[1])
    return Change(text=new + found[2], how={"old": found[1], "new": new})


def negation_flip(case: Case, rng: np.random.Generator, pool: Pool) -> Change | None:
    """One statement of the answer becomes its contrary; which one is drawn at random.

    What denies or states a change, or denies something "definite" or "large", has no plain contrary and is left alone.
    So is a statement whose finding another sentence contradicts or repeats otherwise.
    """
    if not case.english:
        return None
    ways = [(sentence, new) for sentence in case.sentences if (new := contrary(sentence)) is not None]
    ways = [(sentence, new) for sentence, new in ways if not _said_elsewhere(case, sentence)]
    if not ways:
        return None
    sentence, new = ways[int(rng.integers(len(ways)))]
    text = case.answer[: sentence.start] + new + case.answer[sentence.end :]
    return Change(text=text, how={"old": sentence.text, "new": new, "span": [sentence.start, sentence.end]})


def _said_elsewhere(case: Case, sentence: Sentence) -> bool:
    """Whether the contrary is what another sentence says already: "No effusion on the right. Left effusion."."""
    keys = set(mentioned(sentence.text))
    stated = set(asserted(sentence))
    others = {key for other in case.sentences if other != sentence for key in asserted(other)}
    return bool(keys & others) and not stated


def contrary(sentence: Sentence) -> str | None:
    """The contrary of one sentence, or None where no rule is sure of it."""
    text = sentence.text
    if sentence.doubtful or _STABLE.search(text):
        return None
    for rule, change in NORMAL:
        if rule.search(text):
            return rule.sub(change, text, count=1)
    for rule, change in DENIED:
        match = rule.search(text)
        if match:
            return _deny_less(text, match, change)
    if asserted(sentence) and sentence.asserted == len(text):
        for rule, change in STATED:
            if rule.search(text):
                return rule.sub(change, text, count=1)
    return None


def _deny_less(text: str, match: re.Match[str], change: str) -> str | None:
    if change == "UPPER":
        rest = re.sub(r"^No (?:evidence of |signs? of )?", "", text, flags=re.I)
        return rest[0].upper() + rest[1:]
    new = text[: match.start()] + match.expand(change) + text[match.end() :]
    if re.search(r"\b(?:no|not|without|nor)\b", new[match.start() :], re.I):
        return None  # a second denial would be left, and the sentence half true
    new = re.sub(
        r"^(There) is (?=(?:\w+ )?(?:\w+ )?(?:nodules|masses|effusions|fractures|"
        r"opacities|infiltrates|consolidations|findings|abnormalities|pneumothoraces|"
        r"lesions)\b)",
        r"\1 are ",
        new,
    )
    new = _with_article(new)
    return re.sub(r"\b(There (?:is|are)) any\b", r"\1", new, flags=re.I)


_COUNTED = re.compile(
    r"(?:(?:focal|acute|pleural|pericardial|large|small|pulmonary|lung) )*(?:nodule|"
    r"mass|fracture|pneumothorax|(?:pleural |pericardial )?effusion|abnormality|"
    r"lesion|cyst|hernia|haemorrhage|hemorrhage)\b",
    re.I,
)
_THERE = re.compile(r"\b(There (?:is|was)) ", re.I)


def _with_article(text: str) -> str:
    """ "There is nodule" -> "There is a nodule", for the findings that are counted."""
    match = _THERE.search(text)
    if match is None or not _COUNTED.match(text, match.end()):
        return text
    return f"{text[: match.end()]}{'an' if text[match.end()].lower() in 'aeio' else 'a'} {text[match.end() :]}"
