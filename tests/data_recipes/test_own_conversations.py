"""LLaVA conversations, TRL messages and TRL preferences of a user's own, good and faulty."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from own_fixtures import built, jsonl, picture, said

ASK, TELL = {"from": "human", "value": "<image>\nIs there a nodule?"}, {"from": "gpt", "value": "Yes."}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    picture(tmp_path / "images" / "a.png", 1)
    picture(tmp_path / "images" / "b.png", 2)
    return tmp_path


def llava(home: Path, rows: list, **fields) -> tuple[list, list[str]]:
    (home / "train.json").write_text(json.dumps(rows))
    return built(home, format="llava", paths=["train.json"], images="images", **fields)


def test_llava_images_stand_where_their_placeholders_stand(home):
    two = {
        "image": ["a.png", "b.png"],
        "conversations": [
            {"from": "human", "value": "Before: <image>\nAfter: <image>\nWhat has changed?"},
            {"from": "gpt", "value": "Nothing."},
            {"from": "human", "value": "Sure?"},
            {"from": "gpt", "value": "Yes."},
        ],
    }
    text = {
        "conversations": [{"from": "human", "value": "What is a nodule?"}, {"from": "gpt", "value": "A round spot."}]
    }
    one = {"id": "7", "image": "a.png", "system": "You are brief.", "conversations": [ASK, TELL]}
    samples, refused = llava(home, [two, text, one])
    assert refused == []
    assert [said(sample) for sample in samples] == [
        [
            ("user", ["Before:", "<image a.png>", "After:", "<image b.png>", "What has changed?"]),
            ("assistant", ["Nothing."]),
            ("user", ["Sure?"]),
            ("assistant", ["Yes."]),
        ],
        [("user", ["What is a nodule?"]), ("assistant", ["A round spot."])],
        [("system", ["You are brief."]), ("user", ["<image a.png>", "Is there a nodule?"]), ("assistant", ["Yes."])],
    ]
    assert [sample.sample_id for sample in samples] == ["mine/train/1", "mine/train/2", "mine/train/3"]
    assert len({sample.patient_id for sample in samples}) == 3 and samples[0].metadata == {"dimension": "2d"}


def test_llava_faults_are_named_by_row(home):
    picture(home / "images" / "torn.png", 3)
    torn = home / "images" / "torn.png"
    torn.write_bytes(torn.read_bytes()[:-40])
    (home / "images" / "text.png").write_text("no picture")
    good = {"image": "a.png", "conversations": [ASK, TELL]}
    rows = [
        good,
        good | {"image": ["a.png", "b.png"]},
        good | {"image": None},
        good | {"image": "none.png"},
        good | {"conversations": [ASK, {"from": "gpt", "value": " "}]},
        good | {"conversations": [ASK, {"from": "narrator", "value": "Yes."}]},
        good | {"conversations": [ASK, TELL, TELL]},
        good | {"conversations": [ASK]},
        good | {"conversations": []},
        good | {"image": "text.png"},
        good | {"image": "torn.png"},
        good | {"image": "https://example.org/a.png"},
        good | {"conversations": [{"from": "human", "value": "Look."}, {"from": "gpt", "value": "<image> Yes."}]},
        "no object",
    ]
    samples, refused = llava(home, rows)
    assert len(samples) == 1 and len(refused) == 13
    images = home / "images"
    assert refused[:10] == [
        "train.json:2: 1 of 2 visuals have no placeholder in the text. Mend: write <image> (or "
        "<video>) where each is shown, "
        "or unplaced: first in the recipe",
        "train.json:3: <image> number 1 has no visual: the row names 0. Mend: name as many files as "
        "there are placeholders",
        f"train.json:4: the visual is missing ({images}/none.png). Mend: correct the path, or images "
        "in the recipe, or drop "
        "the row",
        "train.json:5: conversations[1]: the answer is empty. Mend: fill in the answer or drop the row",
        "train.json:6: conversations[1] has the unknown role 'narrator'. Mend: use one of system, "
        "user, human, assistant, "
        "gpt, or drop the row",
        "train.json:7: 'messages' has assistant after assistant. Mend: alternate user and assistant "
        "turns; a system turn "
        "comes first",
        "train.json:8: the conversation ends without an answer. Mend: end with an assistant turn, or add a question",
        "train.json:9: 'conversations' must be a non-empty list of messages, got an empty list. Mend: write the turns",
        f"train.json:10: {images}/text.png is no picture, DICOM, NIfTI, NPY or clip, going by its "
        "content. Mend: name a file "
        "that holds an image, or drop the row",
        f"images/torn.png: {refused[9].split(': ', 1)[1]}",
    ]
    assert refused[10].startswith("train.json:12: the visual is an address (https://...), nothing is fetched")
    assert refused[11].startswith("train.json:13: messages[1] is an assistant turn with a visual")
    assert refused[12] == "train.json:14: expected an object, got str. Mend: write an object"


def test_unplaced_visuals_are_shown_first_when_the_recipe_says_so(home):
    row = {"image": "a.png", "conversations": [{"from": "human", "value": "Is it big?"}, TELL]}
    samples, refused = llava(home, [row], unplaced="first")
    assert refused == [] and said(samples[0])[0] == ("user", ["<image a.png>", "Is it big?"])


def test_a_test_row_ends_with_its_question(home):
    rows = [
        {"image": "a.png", "conversations": [ASK, TELL]},
        {"image": "a.png", "conversations": [ASK, {"from": "gpt", "value": "On the left."}]},
    ]
    samples, refused = llava(home, rows, split={"all": "test"}, question="vqa")
    assert refused == [] and [len(sample.turns) for sample in samples] == [1, 1]
    asked = [sample.question for sample in samples]
    assert [(q.kind, q.answers, q.choices) for q in asked if q] == [
        ("closed", ("yes",), ("yes", "no")),
        ("open", ("On the left.",), ()),
    ]


def test_messages_of_trl_and_of_openai(home):
    data = base64.b64encode((home / "images" / "b.png").read_bytes()).decode()
    answer = {"role": "assistant", "content": "Yes."}
    rows = [
        {"images": ["a.png"], "messages": [{"role": "user", "content": "Is it big?"}, answer]},
        {
            "images": ["b.png"],
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Look:"}, {"type": "image"}]}, answer],
        },
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
                        {"type": "text", "text": "Big?"},
                    ],
                },
                {"role": "assistant", "content": [{"type": "text", "text": "No."}]},
            ]
        },
        {"images": ["a.png"], "prompt": "Is it big?", "completion": "Yes."},
        {"prompt": [{"role": "user", "content": "What is a nodule?"}], "completion": [answer]},
    ]
    jsonl(home / "chat.jsonl", rows)
    samples, refused = built(home, format="messages", paths=["chat.jsonl"], images="images")
    assert refused == []
    names = [said(sample) for sample in samples]
    assert names[0] == [("user", ["<image a.png>", "Is it big?"]), ("assistant", ["Yes."])]
    assert names[1][0] == ("user", ["Look:", "<image b.png>"])
    assert names[2][0][1][1] == "Big?" and samples[2].visuals()[0].path.startswith("visuals/")
    assert samples[2].visuals()[0].sha256 == samples[1].visuals()[0].sha256
    assert names[3] == names[0] and names[4] == [("user", ["What is a nodule?"]), ("assistant", ["Yes."])]


def test_messages_faults(home):
    user, answer = {"role": "user", "content": "Is it big?"}, {"role": "assistant", "content": "Yes."}
    rows = [
        {"messages": [{"role": "tool", "content": "x"}, answer]},
        {"messages": [{"role": "user", "content": [{"type": "audio"}]}, answer]},
        {"messages": [user, {"role": "assistant", "content": None}]},
        {"prompt": "Is it big?", "completion": ""},
        {"messages": "Is it big?"},
        {"messages": [{"role": ["user"], "content": 3}]},
        {"messages": [{"role": "user", "content": 3}]},
        '{"messages": [',
    ]
    jsonl(home / "chat.jsonl", rows)
    samples, refused = built(home, format="messages", paths=["chat.jsonl"])
    assert samples == []
    assert [line.split(". Mend")[0] for line in refused] == [
        "chat.jsonl:1: messages[0] has the unknown role 'tool'",
        "chat.jsonl:2: messages[0].content[0] is of type 'audio'",
        "chat.jsonl:3: messages[1]: the answer is empty",
        "chat.jsonl:4: 'completion' is empty",
        "chat.jsonl:5: 'messages' must be a non-empty list of messages, got str",
        "chat.jsonl:6: messages[0] has the unknown role ['user']",
        "chat.jsonl:7: messages[0]: the content must be text or a list of parts, got int",
        "chat.jsonl:8: not JSON: Expecting value at column 15",
    ]


def test_preferences_of_every_form(home):
    def turn(role: str, text: str) -> dict:
        return {"role": role, "content": text}

    rows = [
        {
            "images": ["a.png"],
            "prompt": "Write.",
            "chosen": "Clear lungs.",
            "rejected": "A nodule.",
            "made_by": "invented",
        },
        {
            "images": ["a.png"],
            "prompt": [turn("user", "Write.")],
            "chosen": [turn("assistant", "Clear.")],
            "rejected": [turn("assistant", "A mass.")],
        },
        {
            "images": ["a.png"],
            "chosen": [turn("user", "Write."), turn("assistant", "Clear.")],
            "rejected": [turn("user", "Write."), turn("assistant", "A mass.")],
        },
        {
            "images": ["a.png"],
            "rejected_images": ["b.png"],
            "prompt": "Write.",
            "chosen": "Clear.",
            "rejected": "Clear.",
        },
    ]
    jsonl(home / "pairs.jsonl", rows)
    samples, refused = built(home, format="preferences", paths=["pairs.jsonl"], images="images")
    assert refused == [] and {path.name for path in (home / "out").glob("*pairs*")} == {"train_pairs.jsonl"}
    pairs = [sample.preference for sample in samples]
    assert [pair.made_by for pair in pairs if pair] == ["invented", "mine", "mine", "mine"]
    assert [said(sample) for sample in samples] == [[("user", ["<image a.png>", "Write."])]] * 4
    first, last = pairs[0], pairs[3]
    assert first and (first.chosen[0].text, first.rejected[0].text) == ("Clear lungs.", "A nodule.")
    assert last and [ref.path[-5:] for turn in last.rejected for ref in turn.visuals] == ["b.png"]
    assert pairs[1] == pairs[2]


def test_sides_that_repeat_the_prompt_show_its_images(home):
    def whole(answer: str) -> list[dict]:
        return [{"role": "user", "content": "Write."}, {"role": "assistant", "content": answer}]

    row = {"images": ["a.png"], "prompt": "Write.", "chosen": whole("Clear."), "rejected": whole("A mass.")}
    jsonl(home / "pairs.jsonl", [row, row | {"prompt": "Look."}])
    samples, refused = built(home, format="preferences", paths=["pairs.jsonl"], images="images")
    assert [said(sample) for sample in samples] == [[("user", ["<image a.png>", "Write."])]]
    assert samples[0].preference and [turn.role for turn in samples[0].preference.rejected] == ["assistant"]
    assert refused == [
        "pairs.jsonl:2: 'prompt' is not what both sides begin with. Mend: remove 'prompt', or correct the sides"
    ]


def test_preference_faults(home):
    rows = [
        {"prompt": "Write.", "chosen": "Clear.", "rejected": "Clear."},
        {"prompt": "Write.", "chosen": "", "rejected": "A mass."},
        {"prompt": "Write."},
        {"chosen": "Clear.", "rejected": "A mass."},
        {"images": ["a.png", "none.png"], "prompt": "Write.", "chosen": "Clear.", "rejected": "A mass."},
    ]
    jsonl(home / "pairs.jsonl", rows)
    samples, refused = built(home, format="preferences", paths=["pairs.jsonl"], images="images")
    assert samples == []
    assert [line.split(". Mend")[0] for line in refused] == [
        "pairs.jsonl:1: preference.chosen and preference.rejected are the same",
        "pairs.jsonl:2: 'chosen' is empty",
        "pairs.jsonl:3: 'chosen' is empty",
        "pairs.jsonl:4: there is no 'prompt', and 'chosen' and 'rejected' do not begin alike and end apart",
        f"pairs.jsonl:5: the visual is missing ({home}/images/none.png)",
    ]
