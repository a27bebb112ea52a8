"""Scores of words against the golden values of the public implementations; pycocoevalcap itself where Java is."""

import importlib.util
import itertools
import os
import random
import shutil
import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu, sentence_bleu
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from medvlm.data_recipes.grounding import Box2D, iou
from medvlm.data_recipes.sample import Question, Sample, Turn
from medvlm.eval.calibration import calibration_error, equal_width_bins
from medvlm.eval.intervals import micro_f1
from medvlm.eval.metric import Answered
from medvlm.eval.plan import Item
from medvlm.eval.scorers import lexical, meteor, report_text, short_answer
from medvlm.eval.scorers.chrf import chrf_counts, chrf_of_counts
from medvlm.eval.scorers.cider import cider_d
from medvlm.eval.scorers.coco_bleu import bleu_counts, bleu_of_counts
from medvlm.eval.scorers.learned import macro_f1
from medvlm.eval.scorers.lexical import coco_words
from medvlm.eval.scorers.longest_common import coco_rouge_l, longest_common
from medvlm.eval.scorers.nltk_bleu import dotted_words, nltk_bleu
from medvlm.eval.scorers.ptb_tokens import JOINT, ptb_tokens
from medvlm.eval.scorers.radcliq import V0, V1
from medvlm.eval.scorers.radgraph_match import degenerate, f1_of

PAIRS = [
    ("heart size is normal . no pleural effusion .", "heart size is normal . no pleural effusion ."),
    (
        "The heart is enlarged. There is a small left pleural effusion.",
        "Heart size is normal. There is a small left pleural effusion. No pneumothorax.",
    ),
    ("No acute cardiopulmonary abnormality.", "There is no acute cardiopulmonary process."),
    ("Pleural effusion.", "No pleural effusion."),
    ("", "No acute disease."),
    ("pneumonia", "right lower lobe pneumonia"),
    ("lung lung lung lung", "left lung"),
    (
        "Findings: The lungs are clear. Impression: Normal chest.",
        "Findings: Low lung volumes. No focal consolidation. Impression: No acute disease.",
    ),
    (
        "Opacities in both lungs, left > right; 3.5 cm mass (RUL).",
        "Bilateral opacities, left greater than right. 3.5-cm mass in the right upper lobe.",
    ),
    ("Liver is normal. Spleen is normal. Kidneys are normal.", "The liver, spleen and kidneys are normal."),
]
# of each pair BLEU-1, BLEU-4, ROUGE-L, CIDEr-D of coco, BLEU-1, BLEU-4 of nltk (pycocoevalcap 1.2, nltk 3.10.4)
GOLDEN = [
    (1, 1, 1, 10.0, 1, 1),
    (0.682161, 0.506655, 0.738896, 5.354919, 0.6718, 0.5409),
    (0.454898, 7.6e-05, 0.579114, 3.034455, 0.5363, 0),
    (0.606531, 0.000607, 0.772152, 3.8384, 0.7165, 0),
    (0, 0, 0, 0, 0, 0),
    (0.049787, 2e-06, 0.360947, 1.27866, 0.04979, 0),
    (0.25, 0, 0.354651, 0.473418, 0.25, 0),
    (0.171822, 0, 0.204698, 0.621792, 0.2681, 0),
    (0.384615, 0, 0.307692, 0.925638, 0.3054, 0),
    (0.555556, 4.3e-05, 0.639413, 2.616204, 0.4167, 0.2242),
]
METEOR = [1, 0.350489, 0.310127, 0.418397, 0, 0.112676, 0.173913, 0.118899, 0.247739, 0.374688]


def near(value, places=1e-4):
    return pytest.approx(value, abs=places)


@pytest.fixture(scope="module")
def words():
    return [(coco_words(answer), coco_words(reference)) for answer, reference in PAIRS]


def test_coco_sentences_and_corpus(words):
    counts = np.array([bleu_counts(answer[1], [reference[1]]) for answer, reference in words])
    rouge = [coco_rouge_l(answer[0], [reference[0]]) for answer, reference in words]
    cider = cider_d([answer[1] for answer, _ in words], [[reference[1]] for _, reference in words])
    got = zip(bleu_of_counts(counts, 1), bleu_of_counts(counts, 4), rouge, cider, strict=True)
    for (bleu_1, bleu_4, rouge_l, cider_value), golden in zip(got, GOLDEN, strict=True):
        assert (bleu_1, rouge_l, cider_value) == (near(golden[0]), near(golden[2]), near(golden[3]))
        assert bleu_4 == near(golden[1], 1e-6 if golden[1] < 1e-3 else 1e-4)
    whole = [float(bleu_of_counts(counts.sum(axis=0, keepdims=True), order)[0]) for order in (1, 2, 3, 4)]
    assert whole == near([0.500734, 0.379086, 0.326037, 0.285958])
    assert (np.mean(rouge), np.mean(cider)) == (near(0.495756), near(2.814349))


def test_coco_special_cases():
    def bleu_1(answer, reference):
        return float(bleu_of_counts(np.array([bleu_counts(answer.split(), [reference.split()])]), 1)[0])

    assert bleu_1("heart size is normal", "the heart size is normal") == near(np.exp(1 - 5 / 4))
    pair = "small left pleural effusion", "there is a small left pleural effusion"
    assert coco_rouge_l(pair[0].split(), [pair[1].split()]) == near(0.693182)
    one, two = ["no", "pleural", "effusion"], ["the", "heart", "size", "is", "normal"]
    assert cider_d([one], [[one]]) == [0.0]  # alone, even when perfect
    assert cider_d([one, two], [[one], [two]]) == [near(7.5), near(10.0)]  # 8.75 in the mean
    assert cider_d([one, one], [[one], [one]]) == [0.0, 0.0]
    # of several references: the closest length, the shorter of two; the best precision and the best recall
    assert bleu_counts(["a", "b", "c"], [["a", "b"], ["a", "b", "c", "d"], ["z", "z"]])[:3] == [3, 2, 3]
    assert coco_rouge_l(["a", "b", "c", "d"], [["a", "b"], ["a", "b", "c", "d", "e", "f", "g", "h"]]) == near(1.0)


def test_penn_treebank_tokens():
    assert ptb_tokens("3.5 cm mass (RUL); left > right, seen.") == [
        "3.5",
        "cm",
        "mass",
        "-lrb-",
        "rul",
        "-rrb-",
        "left",
        ">",
        "right",
        "seen",
    ]
    for text, tokens in {
        "A 3.5-cm mass; 1.5cm nodule at L4.5": "a 3.5-cm mass 1.5 cm nodule at l4 .5",
        "It doesn't; the patient's can't, cannot": "it does n't the patient 's ca n't can not",
        "Mass. No mass. CT. MRI. etc. p.m. vitamin D. The": "mass. no mass ct. mri etc. p.m. vitamin d the",
        "No. 5 and/or a/b/c/d 12/5/2001 50% AP/PA XXXX's": "no. 5 and/or a/b/c / d 12/5/2001 50 % ap/pa xxxx 's",
        '"quoted" `x` ... -- [1] {a} <b>': "quoted x -lsb- 1 -rsb- -lcb- a -rcb- <b>",
        "5½ µm ±2 37°C £5 &lt;3": "5 1/2 µm ± 2 37 ° c # 5 < 3",
        "": "",
    }.items():
        assert " ".join(ptb_tokens(text)) == tokens
    assert ptb_tokens("2 1/2 cm") == [f"2{JOINT}1/2", "cm"]
    assert coco_words("2 1/2 cm")[1] == ["2", "1/2", "cm"]


def test_nltk_means_of_sentences():
    for (answer, reference), golden in zip(PAIRS, GOLDEN, strict=True):
        assert nltk_bleu(answer, [reference], (1, 4)) == near(list(golden[4:]))
    assert np.mean([nltk_bleu(answer, [reference])[0] for answer, reference in PAIRS]) == near(0.176503)
    tokens = [([dotted_words(reference)], dotted_words(answer)) for answer, reference in PAIRS]
    assert corpus_bleu([r for r, _ in tokens], [a for _, a in tokens]) == near(0.309610)
    brevity = sentence_bleu([dotted_words("the heart size is normal.")], dotted_words("heart size is normal."))
    assert brevity == near(np.exp(-0.2)) == near(0.818731)
    pair = dotted_words("small left pleural effusion"), dotted_words("there is a small left pleural effusion")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        methods = [
            sentence_bleu([pair[1]], pair[0], smoothing_function=getattr(SmoothingFunction(), f"method{n}"))
            for n in range(8)
        ]
    assert methods == near([0.472367] * 5 + [0.477388, 0.472367, 0.477388])


def test_sacrebleu_corpus_smoothing_and_our_vectors():
    assert "sacrebleu" in report_text.BLEU_SIGNATURE and "13a" in report_text.BLEU_SIGNATURE
    pair = "no effusion seen today", ["there is no effusion seen"]
    for method, value in {"none": 0, "floor": 30.968, "add-k": 51.248, "exp": 46.308}.items():
        assert BLEU(lowercase=True, effective_order=False, smooth_method=method).sentence_score(*pair).score == near(
            value, 1e-3
        )
    rows = np.array([report_text.bleu_statistics(answer, [reference]) for answer, reference in PAIRS])
    sums = rows.sum(axis=0)
    assert sums[:2].tolist() == [75, 89]
    assert [100 * sums[2 + n] / sums[6 + n] for n in range(4)] == near([66.7, 42.4, 32.8, 26.0], 0.05)
    assert np.exp(1 - 89 / 75) == near(0.830, 5e-4)
    for order in (1, 2, 3, 4):
        library = [
            BLEU.compute_bleu(
                row[2 : 2 + order].tolist(), row[6 : 6 + order].tolist(), int(row[0]), int(row[1]),
                smooth_method="exp", effective_order=True, max_ngram_order=order,
            ).score / 100
            for row in [*rows, sums]
        ]  # fmt: skip
        assert report_text.bleu_of_sums(np.vstack([rows, sums]), order) == near(library, 1e-12)


def test_rouge_score_is_equal_and_faster():
    assert report_text.rouge_l(*_pair("small left pleural effusion", "there is a small left pleural effusion")) == near(
        0.727273
    )
    library = RougeScorer(["rougeL"], use_stemmer=False)
    generator = random.Random(0)
    for _ in range(200):
        texts = [
            " ".join(
                generator.choices(
                    ["no", "left", "right", "lung", "is", "clear", "3.5", "x-ray", "effusion.", "The"],
                    k=generator.randint(0, 40),
                )
            )
            for _ in range(2)
        ]
        assert report_text.rouge_l(texts[0], [texts[1]]) == near(
            library.score(texts[1], texts[0])["rougeL"].fmeasure, 1e-12
        )
    stemmed = RougeScorer(["rougeL"], use_stemmer=True).score(PAIRS[7][1], PAIRS[7][0])["rougeL"].fmeasure
    assert stemmed == near(0.315789)
    assert report_text.rouge_l(PAIRS[7][0], [PAIRS[7][1]]) == near(0.210526)  # and without a stemmer
    lines = RougeScorer(["rougeL", "rougeLsum"]).score("a b\nc d\ne f", "e f\nc d\na b")
    assert (lines["rougeL"].fmeasure, lines["rougeLsum"].fmeasure) == (near(1 / 3), near(1.0))


def test_longest_common_subsequence_by_the_table():
    generator = random.Random(1)
    for _ in range(300):
        first, second = ([generator.choice("abcd") for _ in range(generator.randint(0, 12))] for _ in range(2))
        table = np.zeros((len(first) + 1, len(second) + 1), dtype=int)
        for i, j in itertools.product(range(len(first)), range(len(second))):
            table[i + 1, j + 1] = table[i, j] + 1 if first[i] == second[j] else max(table[i, j + 1], table[i + 1, j])
        assert longest_common(first, second) == table[-1, -1]


def _pair(answer, reference):
    return answer, [reference]


def test_chrf_is_sacrebleus():
    pair = _pair("small left pleural effusion", "there is a small left pleural effusion")
    assert 100 * chrf_of_counts(np.array([chrf_counts(*pair)]))[0] == near(76.979, 1e-3)
    library = CHRF()
    rows = np.array([chrf_counts(answer, [reference]) for answer, reference in PAIRS])
    for row, (answer, reference) in zip(rows, PAIRS, strict=True):
        assert 100 * chrf_of_counts(row[None])[0] == near(library.sentence_score(answer, [reference]).score, 1e-9)
    corpus = library.corpus_score([a for a, _ in PAIRS], [[r for _, r in PAIRS]]).score
    assert 100 * chrf_of_counts(rows.sum(axis=0, keepdims=True))[0] == near(corpus, 1e-9)
    several = ["left lung", "a left lower lung nodule"]
    assert 100 * chrf_of_counts(np.array([chrf_counts("left lower lung", several)]))[0] == near(
        library.sentence_score("left lower lung", several).score, 1e-9
    )


def test_open_answers_precision_recall_f1_and_bleu_1():
    assert short_answer.token_precision_recall_f1("left lung", ["left lower lung"]) == near((1.0, 2 / 3, 0.8))
    assert short_answer.token_precision_recall_f1("lung lung lung", ["left lung"]) == near((1 / 3, 0.5, 0.4))
    assert short_answer.token_precision_recall_f1("", ["left lung"]) == (0, 0, 0)
    marks = short_answer._score(
        [_answered(text, "left lung", kind="open") for text in ("left lung", "the heart and the left lung", "", "left")]
    )
    assert [mark["token_recall"] for mark in marks] == [1, 1, 0, 0.5]  # recall rewards length
    assert [mark["token_f1"] for mark in marks] == near([1, 2 / 3, 0, 2 / 3])
    assert [(mark["words"], mark["reference_words"]) for mark in marks] == [(2, 2), (6, 2), (0, 2), (1, 2)]
    sums = np.array([mark["bleu_1"] for mark in marks])
    assert short_answer.bleu_1_of_sums(sums) == near([1, 0.5, 0, np.exp(-1)])
    library = BLEU(max_ngram_order=1, tokenize="none", smooth_method="none")
    corpus = library.corpus_score(["left lung", "heart and left lung", "", "left"], [["left lung"] * 4]).score / 100
    assert short_answer.bleu_1_of_sums(sums.sum(axis=0, keepdims=True))[0] == near(corpus, 1e-12)


def test_chinese_counts_characters_and_says_so():
    same = "双肺纹理清晰。心影不大。"
    assert RougeScorer(["rougeL"]).score(same, same)["rougeL"].fmeasure == 0  # what others report
    assert report_text.rouge_l(same, [same]) == 1 and 0 < report_text.rouge_l("心影增大", [same]) < 1
    assert report_text.bleu_of(report_text.bleu_statistics(same, [same])) == near(1.0)
    marks = short_answer._score([_answered("左肺", "左肺。", kind="open"), _answered("左侧肺", "左肺", kind="open")])
    assert marks[0]["exact_match"] == 1 and marks[1]["token_f1"] == near(0.8)
    assert all("characters counted as words" in mark["flags"][0] for mark in marks)
    assert lexical._coco([_answered("心影不大", same)])[0]["coco_rouge_l"] > 0.3


def test_degenerate_reports_are_flagged():
    def flags(answer, reference):
        return report_text._score([_answered(answer, reference)])[0]["flags"]

    assert flags("The lungs are clear today.", "The lungs are clear.") == []
    assert flags("", "The lungs are clear.") == ["empty answer"]
    assert flags("Findings:", "Impression: Normal.") == ["empty answer"]
    assert flags("The lungs are clear today.", "Findings: Impression:") == ["empty reference"]
    assert flags("Clear lungs.", "The lungs are clear.") == ["answer of fewer than 4 words: no 4-gram"]
    assert "de-identification" in flags("The lungs are clear today.", "XXXX lungs are clear.")[0]
    one = lexical._coco([_answered("The lungs are clear today.", "The lungs are clear today.")])[0]
    assert one["coco_cider_d"] == 0 and "single report" in one["flags"][0]


def test_f1_by_class():
    truth, given = (
        np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]),
        np.array([[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]),
    )
    by_class = [(truth & given).sum(axis=0), (~truth & 1 & given).sum(axis=0), (truth & ~given & 1).sum(axis=0)]
    assert micro_f1(np.array([[part.sum() for part in by_class]]))[0] == near(0.6667)
    from sklearn.metrics import f1_score

    for average, by_division in {"macro": {0: 0.3333, 1: 0.8333}, "samples": {0: 0.4444, 1: 0.7778}}.items():
        for division, value in by_division.items():
            assert f1_score(truth, given, average=average, zero_division=division) == near(value)
    # ours leaves out the two classes that nobody has, and so depends on neither convention
    assert macro_f1(np.concatenate(by_class)[None].astype(float))[0] == near(2 / 3)


def test_radgraph_matching_of_hand_made_graphs():
    def graph(*entities):
        return {
            "entities": {
                str(n): {"tokens": t, "label": kind, "relations": r} for n, (t, kind, r) in enumerate(entities)
            }
        }

    pleural = ("pleural", "Anatomy::definitely present", [])
    effusion = ("effusion", "Observation::definitely present", [["located_at", "1"]])
    absent = ("effusion", "Observation::definitely absent", [["located_at", "1"]])
    small = ("small", "Observation::definitely present", [["modify", "0"]])
    levels = ("simple", "partial", "complete")

    def f1(first, second):
        found = f1_of(first, second)
        return [found[level] for level in levels]

    assert f1(graph(effusion, pleural), graph(effusion, pleural, small)) == near([0.8, 0.8, 0.8])
    assert f1(graph(absent, pleural), graph(effusion, pleural)) == near([0.5, 0.5, 0.5])
    assert f1(graph(effusion, pleural), graph(effusion, pleural)) == [1, 1, 1]
    assert f1(graph(), graph()) == [0, 0, 0] and "0 by convention" in degenerate(graph(), graph())[0]
    assert degenerate(graph(pleural), graph())[0].startswith("no entity in the reference")
    assert degenerate(graph(), graph(pleural)) == []  # a silent answer is no degenerate case
    # ReXrank: entities 2 of 2 + 3, relations 1 of 1 + 2
    found = f1_of(graph(effusion, pleural), graph(effusion, pleural, small))
    assert found["rexrank"] == near((0.8 + 2 / 3) / 2)
    # the levels differ: effusion alone against effusion in the pleura
    bare = ("effusion", "Observation::definitely present", [])
    assert f1(graph(bare, pleural), graph(effusion, pleural)) == near([1, 0.5, 0.5])


def test_radcliq_is_lower_for_better_reports():
    mean = [0.5379231241355762, 0.6175725628125001, 0.7647942121140658, 0.44738335396242174]
    assert V1(mean) == near(0.0, 1e-8)
    good, bad = (1.0, 1.0, 1.0, 1.0), (0.0, 0.1, 0.2, 0.0)
    by_hand = 0.3771 * (1 - 0.5379) / 0.3028 + 0.3703 * (1 - 0.6176) / 0.2243 + 0.2526 * (1 - 0.7648) / 0.2539
    assert V1(good) == near(-by_hand, 1e-3)
    assert V0((0.5398376019082272, 0.6312549595000001, 0.7716797866672277, 0.4607372064809605)) == near(1.641667)
    for composite in (V0, V1):
        assert composite(good) < composite(bad)
    assert V1(good) < 0 and 1 / V1(good) < 1 / V1(bad)  # so 1 / mean would call the good report the worse one
    with pytest.raises(ValueError, match="made of"):
        V1((1.0, 1.0))


def test_calibration_error_as_torchmetrics():
    confidence, correct = np.array([0.95, 0.85, 0.75, 0.65, 0.55, 0.45]), np.array([1, 1, 0, 1, 0, 0])
    for bins, value in {5: 0.2667, 10: 0.3833, 15: 0.3833}.items():
        assert calibration_error(confidence, correct, equal_width_bins(confidence, bins)) == near(value)


def test_box_overlap():
    assert iou(Box2D(x1=0.1, y1=0.1, x2=0.5, y2=0.5), Box2D(x1=0.3, y1=0.3, x2=0.7, y2=0.7)) == near(0.142857, 1e-6)


def _answered(value, *references, kind="report"):
    question = Question(kind=kind, answers=references)
    sample = Sample(
        sample_id="s", patient_id="p", study_id="t", source="fixture", licence="CC0-1.0", split="test",
        turns=(Turn(role="user", content=("Write.",)),), question=question,
    )  # fmt: skip
    item = Item(sample=sample, manifest=Path("m.jsonl"))
    return Answered(item=item, question=question, prompt="Write.", condition="image", written=value, value=value)


def test_every_metric_of_reports_and_open_answers_is_computed():
    answers = [_answered(answer or None, reference) for answer, reference in PAIRS]
    rows = [{"kind": "report"} for _ in answers]
    for scorer in (*report_text.SCORERS, *lexical.SCORERS):
        if not scorer.added:
            for row, marks in zip(rows, scorer.score(answers), strict=True):
                row |= marks
    values = {}
    for scorer in (*report_text.SCORERS, *lexical.SCORERS):
        for metric in scorer.metrics:
            counts = metric.counts(rows) if not scorer.added else None
            if counts is not None:
                values[metric.name] = float(metric.value(np.sum(counts, axis=0, keepdims=True))[0])
    assert values["coco_cider_d"] == near(2.8, 0.3) and values["repetition"] == 0
    assert lexical._repeated(["no", "clear", "sign", "no", "clear", "sign", "no", "clear", "sign"]) == [3, 6]
    lengths = [sum(len(pair[side].split()) for pair in PAIRS) - 2 for side in (0, 1)]  # two labels of sections each
    assert values["length_ratio"] == near(lengths[0] / lengths[1], 1e-9)
    assert {"bleu_4", "rouge_l", "chrf", "coco_bleu_4", "coco_rouge_l", "nltk_bleu_4_mean"} <= values.keys()


WHY_NO_COCO = meteor.why_missing()
coco = pytest.mark.skipif(bool(WHY_NO_COCO), reason=WHY_NO_COCO or "it is there")


def _reports():
    folder = Path(os.environ.get("MEDVLM_SHARED_DATA", ""), "open-i-reports")
    texts = []
    for path in sorted(folder.rglob("*.xml")) if os.environ.get("MEDVLM_SHARED_DATA") else []:
        parts = [part.text for part in ElementTree.parse(path).iter("AbstractText") if part.text]
        texts.append(" ".join(" ".join(parts[2:]).split()))
    return [text for text in texts if text]


def _against_pycocoevalcap(pairs, with_meteor):
    """Tokens, BLEU, ROUGE-L, CIDEr-D and METEOR of pycocoevalcap and of ours."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    lists = [{n: [{"caption": pair[side]}] for n, pair in enumerate(pairs)} for side in (0, 1)]
    # One call for both sides and a line between each: its lines otherwise lean on the next ("No." before "5 ribs").
    answers, references = (PTBTokenizer().tokenize(one) for one in lists)
    ours = [[coco_words(text) for text in pair] for pair in pairs]
    for n, (answer, reference) in enumerate(ours):
        assert [" ".join(answer[0])] == answers[n], pairs[n][0]
        assert [" ".join(reference[0])] == references[n], pairs[n][1]
    value, each = Bleu(4).compute_score(references, answers, verbose=0)
    counts = np.array([bleu_counts(answer[1], [reference[1]]) for answer, reference in ours])
    for order in (1, 2, 3, 4):
        assert bleu_of_counts(counts, order) == near(each[order - 1], 1e-6)
        assert bleu_of_counts(counts.sum(axis=0, keepdims=True), order)[0] == near(value[order - 1], 1e-6)
    value, each = Rouge().compute_score(references, answers)
    assert [coco_rouge_l(answer[0], [reference[0]]) for answer, reference in ours] == near(list(each), 1e-6)
    value, each = Cider().compute_score(references, answers)
    assert cider_d([a[1] for a, _ in ours], [[r[1]] for _, r in ours]) == near(list(each), 1e-6)
    if with_meteor:
        from pycocoevalcap.meteor.meteor import Meteor

        value, each = Meteor().compute_score(references, answers)
        marks = np.array([mark["coco_meteor"] for mark in meteor.marks([(a, [r]) for a, r in pairs])])
        assert meteor.meteor_of_counts(marks) == near(list(each), 1e-6)
        assert meteor.meteor_of_counts(marks.sum(axis=0, keepdims=True))[0] == near(value, 1e-6)
        return meteor.meteor_of_counts(marks), value
    return None


@coco
@pytest.mark.slow
def test_pycocoevalcap_itself_agrees_on_the_ten_pairs():
    each, whole = _against_pycocoevalcap(PAIRS, with_meteor=True)
    assert each == near(METEOR, 1e-6) and whole == near(0.279923, 1e-6)


@coco
@pytest.mark.slow
@pytest.mark.skipif(not _reports(), reason="MEDVLM_SHARED_DATA names no folder with open-i-reports")
def test_pycocoevalcap_itself_agrees_on_real_reports():
    reports = _reports()
    assert len(reports) > 200
    _against_pycocoevalcap(list(zip(reports[1:] + reports[:1], reports, strict=True)), with_meteor=True)


def test_meteor_is_unscored_where_it_cannot_run(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert meteor.marks([("a", ["a"])]) == [{"coco_meteor": None, "flags": [f"unscored: {meteor.why_missing()}"]}]
    assert "java" in meteor.why_missing() and "pip install" in meteor.why_missing()
    monkeypatch.undo()
    if importlib.util.find_spec("pycocoevalcap") is None and shutil.which("java"):
        assert "pycocoevalcap" in meteor.why_missing()
