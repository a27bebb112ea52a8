"""Answers that published scorers have read wrongly, and how they must be read: for tests and `medvlm eval selftest`.

Each case says who got it wrong: the repositories and issues named are where the fault was seen.
"""

from __future__ import annotations

from dataclasses import dataclass

from medvlm.data_recipes.sample import Question, QuestionKind
from medvlm.eval.extract import extract

_ORGAN = "Which organ?\nA. liver\nB. spleen\nC. kidney\nD. lung\nAnswer with the letter."
_ORGANS = ("liver", "spleen", "kidney", "lung")
_TEN = tuple(f"finding {number}" for number in range(10))
_YES_NO = ("yes", "no")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One written answer.

    Attributes:
        value: the choice that must be read, or None when nothing may be.
        why: what others made of it.
    """

    written: str
    value: str | None
    why: str
    kind: QuestionKind = "closed"
    choices: tuple[str, ...] = _YES_NO
    prompt: str = ""

    def question(self) -> Question:
        """The question; its reference plays no part in reading."""
        return Question(kind=self.kind, answers=(self.choices[0] if self.choices else "x",), choices=self.choices)

    def read(self) -> str | None:
        """What our rules read."""
        return extract(self.question(), self.written, self.prompt).value


def _yes_no(written: str, value: str | None, why: str, prompt: str = "") -> Case:
    return Case(written=written, value=value, why=why, prompt=prompt)


def _choice(written: str, value: str | None, why: str) -> Case:
    return Case(written=written, value=value, why=why, kind="choice", choices=_ORGANS, prompt=_ORGAN)


_SUBSTRING = "MedEvalKit searches 'no' as a substring"
_NEAREST = "MedEvalKit takes the nearest choice by likeness"

CASES: tuple[Case, ...] = (
    _yes_no("The heart is normal", None, f"{_SUBSTRING}: 'normal' counts as no", "Is the heart enlarged?"),
    _yes_no("unknown", None, f"{_SUBSTRING}: 'unknown' counts as no"),
    _yes_no("Yes, there is a nodule", "yes", f"{_SUBSTRING}: 'nodule' makes it wrong"),
    _yes_no("I notice an opacity.", None, "VLMEvalKit#73: 'notice' counts as no"),
    _yes_no("Normal.", None, f"{_SUBSTRING}"),
    _yes_no("", None, "an empty answer earned the point of the key"),
    _yes_no("No.", "no", ""),
    _yes_no("YES", "yes", "a test of the answer that minds its case (MedEvalKit, PathVQA)"),
    _yes_no("**Answer:** Yes", "yes", ""),
    _yes_no("Yes\n\nNo", None, "the first or the last is taken"),
    _yes_no("Yes and no", None, "the first or the last is taken"),
    _yes_no("Not yes", None, f"{_SUBSTRING}"),
    _yes_no("Answer: no finding", None, "'no' before another noun answers another question", "Is the heart enlarged?"),
    _yes_no("The answer is no, there is no nodule", "no", ""),
    _yes_no("No pneumothorax.", "no", "", "Is there a pneumothorax?"),
    _yes_no("No pneumothorax.", None, "a denial of something else counts as no", "Is there an effusion?"),
    _yes_no("There is an effusion.", None, "half of what is asked is no yes", "Is there a left effusion?"),
    _yes_no("<think>yes, perhaps</think>No", "no", "thinking is searched for the answer"),
    _yes_no("<think>The answer is yes", None, "thinking that was cut off is searched for the answer"),
    _choice("", None, f"{_NEAREST}: '' becomes A, and earns the point when the key is A"),
    _choice("I cannot determine from this image", None, f"{_NEAREST}: it becomes A"),
    _choice("<think>maybe A</think>B", "spleen", "MedEvalKit reads A"),
    _choice("ANSWER: AB", None, "openai/evals#1767: accepted for A and for B"),
    _choice("A. liver not B. spleen", "liver", "M3D accepts any 'X.' in the text: right for A and for B"),
    _choice("A. liver, but B. spleen too", None, "M3D accepts any 'X.' in the text: right for A and for B"),
    _choice("B, C", None, "the first is taken"),
    _choice("I think it's A or B", None, "the first is taken"),
    _choice("A\nB\nC\nD", None, "the first is taken"),
    _choice("Z", None, "VLMEvalKit fills in Z and marks it, MMMU#72 guesses at random"),
    _choice("None of the above", None, "MMMU#72 guesses at random"),
    _choice("A mass is seen in the left lobe", None, "the article A counts as the letter"),
    _choice("I cannot say", None, "the pronoun I counts as a letter where there are nine choices"),
    _choice("The answer is not B.", None, "the letter counts although it is denied"),
    _choice("It is not the spleen but the kidney", "kidney", "the first choice named counts"),
    _choice("The answer is (C).", "kidney", ""),
    _choice("\\boxed{B}", "spleen", ""),
    _choice("\\boxed{\\text{B}}", "spleen", ""),
    _choice("Let me think. A is the liver. B is the spleen. So the answer is D.", "lung", "the first letter counts"),
    _choice("<answer>B</answer>", "spleen", ""),
    _choice("It is the spleen.", "spleen", ""),
    _choice("b.", "spleen", ""),
    Case(written="J", value="finding 9", why="", kind="choice", choices=_TEN),
    Case(written="The answer is I.", value="finding 8", why="letters beyond D are lost", kind="choice", choices=_TEN),
    Case(written="正常", value=None, why="lmms-eval's synonyms read 正常 as yes", choices=("是", "否")),
    Case(written="是的", value="是", why="", choices=("是", "否")),
    Case(written="没有", value="没有", why="有 is a substring of 没有", choices=("有", "没有")),
    Case(written="Aorta", value="Aorta", why="VLMEvalKit#110: it becomes the letter A", kind="open", choices=()),
    Case(
        written="I cannot determine the size.", value="I cannot determine the size.",
        why="a refusal is the answer to be scored, and is counted as one", kind="open", choices=(),
    ),
)  # fmt: skip


def misread() -> list[str]:
    """The cases that our rules get wrong, in words; none, or the rules are broken."""
    return [
        f"{case.written!r} was read as {case.read()!r}, must be {case.value!r}"
        for case in CASES
        if case.read() != case.value
    ]
