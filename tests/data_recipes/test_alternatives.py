"""What a closed question names: read from its wording alone, and nothing made up."""

from __future__ import annotations

import pytest

from medvlm.data_recipes.alternatives import choices_of, named


@pytest.mark.parametrize(
    ("question", "answer", "choices"),
    [
        ("Is there a nodule?", " Yes. ", ("yes", "no")),
        ("Is the mass cystic or solid?", "Solid", ("cystic", "solid")),
        ("Is this a CT or an MRI?", "MRI", ("CT", "MRI")),
        ("Which is larger in the picture,colon or small bowel?", "Small Bowel", ("colon", "small bowel")),
        ("Which is largest, the lung, liver, or heart ?", "Heart", ("lung", "liver", "heart")),
        ("是哪一侧,左侧还是右侧?", "右侧", ("左侧", "右侧")),
        ("用什么方式,核磁共振、CT还是X光？", "CT", ("核磁共振", "CT", "X光")),
        ("图片中包含心脏吗?", "不包含", ("包含", "不包含")),
        ("图片正常吗?", "不正常", ("正常", "不正常")),
    ],
)
def test_choices_are_those_of_the_question(question, answer, choices):
    found = choices_of(question, answer)
    assert found is not None and found[0] == choices
    assert found[1].lower() == answer.strip().strip(".").lower()


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Which is larger, kidney or spleen?", "Liver"),  # the key is none of them
        ("Is this a T1 weighted or T2 weighted image?", "T2"),  # where an alternative begins would be a guess
        ("Is it on the patient's left or right side?", "Left"),
        ("Was it taken with contrast or not?", "contrast"),
        ("On which side is the lesion?", "left"),
        ("Is it an infection?", "maybe"),
        ("图中哪个更大?", "没有"),  # "which" is not answered by a denial
    ],
)
def test_nothing_is_made_up(question, answer):
    assert choices_of(question, answer) is None


def test_the_answer_does_not_change_what_a_question_names():
    question = "Which organ is abnormal, heart or lung?"
    assert choices_of(question, "Heart") == (("heart", "lung"), "heart")
    assert choices_of(question, "LUNG") == (("heart", "lung"), "lung")
    assert named(question) == ("heart", "lung") and choices_of(question, "Both") is None
