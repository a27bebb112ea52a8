"""Overlap of words as the report literature counts it, each by its implementation's name (tier A).

coco_*: pycocoevalcap without Java, see coco_bleu, longest_common and cider. chrf: sacrebleu. nltk_*: see nltk_bleu.
coco_meteor runs the Java program itself and so is added by ``medvlm eval mark``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version

import numpy as np

from medvlm.data_recipes.sample import QuestionKind
from medvlm.eval.metric import Answered, Marks, Metric, Scorer, each, mean_of
from medvlm.eval.rows import Row
from medvlm.eval.scorers import meteor
from medvlm.eval.scorers.chrf import chrf_counts, chrf_of_counts
from medvlm.eval.scorers.cider import cider_d
from medvlm.eval.scorers.cjk import FLAG, spaced
from medvlm.eval.scorers.coco_bleu import ORDERS, bleu_counts, bleu_of_counts
from medvlm.eval.scorers.longest_common import coco_rouge_l
from medvlm.eval.scorers.nltk_bleu import nltk_bleu
from medvlm.eval.scorers.ptb_tokens import JOINT, ptb_tokens
from medvlm.eval.scorers.report_text import degenerate, without_labels

_PREPARED = "section labels removed; marks of de-identification (XXXX) count as words"


def texts_of(one: Answered) -> tuple[str, list[str]]:
    """Answer and references as all measures of reports see them: without "Findings:" and "Impression:"."""
    return without_labels(one.value or ""), [without_labels(reference) for reference in one.question.answers]


def coco_words(text: str) -> tuple[list[str], list[str]]:
    """Tokens of ``text`` for ROUGE-L, and for BLEU and CIDEr, which split "2 1/2" where ROUGE-L does not."""
    tokens = ptb_tokens(spaced(text))
    return tokens, [word for token in tokens for word in token.split(JOINT)]


def _coco(answers: Sequence[Answered]) -> list[Marks | None]:
    """One mark per report; CIDEr-D counts rarity over the references of all ``answers``."""
    words = []
    for one in answers:
        answer, references = texts_of(one)
        words.append((coco_words(answer), [coco_words(reference) for reference in references]))
    cider = cider_d([answer[1] for answer, _ in words], [[one[1] for one in references] for _, references in words])
    alone = ["CIDEr-D of a single report is 0 whatever it says"] if len(answers) == 1 else []
    return [
        {
            "coco_bleu": bleu_counts(answer[1], [reference[1] for reference in references]),
            "coco_rouge_l": coco_rouge_l(answer[0], [reference[0] for reference in references]),
            "coco_cider_d": value,
            "flags": [flag for flag in degenerate(*texts_of(one)) if flag != FLAG] + alone,
        }
        for one, (answer, references), value in zip(answers, words, cider, strict=True)
    ]


def _coco_bleu(order: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda sums: bleu_of_counts(sums, order)


def _chrf(answers: Sequence[Answered]) -> list[Marks | None]:
    return [{"chrf": chrf_counts(*texts_of(one))} for one in answers]


def _nltk(answers: Sequence[Answered]) -> list[Marks | None]:
    found = [nltk_bleu(*texts_of(one), _NLTK_ORDERS) for one in answers]
    return [{f"nltk_bleu_{order}": value for order, value in zip(_NLTK_ORDERS, one, strict=True)} for one in found]


_NLTK_ORDERS = (1, 4)


_LONG = 4


def _repeated(words: Sequence[str]) -> list[int]:
    """[4-grams that stood in the text before, 4-grams]."""
    grams = [tuple(words[place : place + _LONG]) for place in range(len(words) - _LONG + 1)]
    return [len(grams) - len(set(grams)), len(grams)]


def _shape(answers: Sequence[Answered]) -> list[Marks | None]:
    marks: list[Marks | None] = []
    for one in answers:
        answer, references = texts_of(one)
        words = spaced(answer).lower().split()
        marks.append({"lengths": [len(words), len(spaced(references[0]).split())], "repeated": _repeated(words)})
    return marks


def _counts(key: str) -> Callable[[Row], list[float]]:
    return lambda row: [float(count) for count in row[key]]


_REPORT: tuple[QuestionKind, ...] = ("report",)

SCORERS: tuple[Scorer, ...] = (
    Scorer(
        name="coco_text",
        tier="A",
        kinds=_REPORT,
        implementation="medvlm after pycocoevalcap 1.2 (Penn Treebank tokens without punctuation, lower case; BLEU "
        "with the closest reference length, ROUGE-L with beta 1.2, CIDEr-D), equal to it within 1e-6 in a test; "
        "of Chinese, Japanese and Korean text every character is a word, which pycocoevalcap does not do. CIDEr-D: "
        "rarity from the references of the condition, values of reports averaged; a resample or a subgroup keeps the "
        f"rarity of the whole. {_PREPARED}",
        score=_coco,
        metrics=(
            *(
                Metric(
                    name=f"coco_bleu_{order}", title=f"Reports: BLEU-{order} (coco)", kinds=_REPORT,
                    counts=each(_counts("coco_bleu")), value=_coco_bleu(order),
                )
                for order in range(1, ORDERS + 1)
            ),
            Metric(
                name="coco_rouge_l", title="Reports: ROUGE-L (coco)", kinds=_REPORT, counts=mean_of("coco_rouge_l")
            ),
            Metric(
                name="coco_cider_d", title="Reports: CIDEr-D (coco, 0 to 10)", kinds=_REPORT,
                counts=mean_of("coco_cider_d"), unit="points",
            ),
        ),
        degenerate="CIDEr-D of one report is 0, of texts under 4 words below 10 even when equal, and not comparable "
        "between sets of reports; BLEU without a matching 4-gram is some 1e-5",
    ),
    Scorer(
        name="chrf",
        tier="A",
        kinds=_REPORT,
        implementation=f"medvlm, equal to chrF2 of sacrebleu {version('sacrebleu')} (case:mixed, eff:yes, nc:6, nw:0, "
        f"space:no), in 0..1; {_PREPARED}",
        score=_chrf,
        metrics=(
            Metric(
                name="chrf", title="Reports: chrF2", kinds=_REPORT, counts=each(_counts("chrf")), value=chrf_of_counts
            ),
        ),
    ),
    Scorer(
        name="nltk_bleu",
        tier="A",
        kinds=_REPORT,
        implementation=f"nltk {version('nltk')} sentence_bleu, no smoothing, mean over reports; lower case, full stops "
        f"apart, split at blanks (as MedEvalKit); {_PREPARED}",
        score=_nltk,
        metrics=tuple(
            Metric(
                name=f"nltk_bleu_{order}_mean", title=f"Reports: mean of sentence BLEU-{order} (nltk)", kinds=_REPORT,
                counts=mean_of(f"nltk_bleu_{order}"),
            )
            for order in _NLTK_ORDERS
        ),
        degenerate="a report without a matching 4-gram scores 0 in BLEU-4, however good its words are",
    ),
    Scorer(
        name="text_shape",
        tier="A",
        kinds=_REPORT,
        implementation="medvlm: words of the answers over words of the first references; share of an answer's 4-grams "
        "that stood in it before. Section labels removed",
        score=_shape,
        metrics=(
            Metric(
                name="length_ratio", title="Reports: length against the reference", kinds=_REPORT,
                counts=each(_counts("lengths")), unit="times", better="neither",
            ),
            Metric(
                name="repetition", title="Reports: repeated 4-grams", kinds=_REPORT, counts=each(_counts("repeated")),
                better="lower",
            ),
        ),
    ),
    Scorer(
        name="meteor",
        tier="A",
        kinds=_REPORT,
        implementation="METEOR 1.5, the Java program of pycocoevalcap (English, normalised, exact, stem, synonym and "
        f"paraphrase), its counts pooled over reports; Penn Treebank tokens as coco_text; {_PREPARED}",
        score=lambda answers: meteor.marks([texts_of(one) for one in answers]),
        metrics=(
            Metric(
                name="coco_meteor", title="Reports: METEOR 1.5 (coco)", kinds=_REPORT,
                counts=each(lambda row: row.get("coco_meteor")), value=meteor.meteor_of_counts,
            ),
        ),
        degenerate="Chinese, Japanese and Korean text is not scored: its tables are English",
        added=True,
    ),
)  # fmt: skip
