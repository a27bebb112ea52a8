"""Marks added to a finished run: a scorer in its own Python, killed, hung, refusing, failing on a pair, resumed."""

import json
import os
import sys
import time
import venv
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from evaluation_fixtures import REPORTS, a_sample, write_manifest, write_visuals

from medvlm.data_recipes.sample import Question
from medvlm.eval import mark as command
from medvlm.eval import run
from medvlm.eval.marking import Marking, mark
from medvlm.eval.marks import marks_path, with_marks
from medvlm.eval.models import ConstantModel, OracleModel
from medvlm.eval.rows import read_rows, write_rows
from medvlm.eval.run_folder import read_run
from medvlm.eval.scorers import learned as learned_scorers
from medvlm.eval.scorers import process
from medvlm.eval.scorers.learned import LEARNED, Learned
from medvlm.eval.stages import aggregate_stage, report_stage, rescore, scores_of

PATIENTS = 6
PROTOCOL = Path(process.__file__).parent / "workers"

# A real scorer, small enough to run in an environment that has nothing: likeness of characters by difflib.
WORKER = f"""
import os, sys, time
sys.path.insert(0, {str(PROTOCOL)!r})
from difflib import SequenceMatcher
from marking_protocol import Refused, serve

def load(settings):
    if settings.get("refuse"):
        raise Refused("likeness is not here; pip install likeness")
    print("libraries print what they like")
    def score(pairs):
        if settings.get("slow"):
            time.sleep(settings["slow"])
        for pair in pairs:
            if settings.get("fails_on", "nothing") in pair["answer"]:
                raise RuntimeError("out of range")
            if settings.get("dies_at") == pair["id"] and not os.path.exists(settings["unless"]):
                os.kill(os.getpid(), 9)
        return [{{"likeness": SequenceMatcher(None, pair["answer"], pair["reference"]).ratio()}} for pair in pairs]
    found = [name for name in ("medvlm", "numpy") if name in sys.modules]
    return {{"package": "difflib", "version": "1", "modules": found}}, score

serve(load)
"""


def _report(patient, *references):
    question = Question(kind="report", answers=references, topic="report")
    return a_sample(patient, "image", "report", "Write the report.", question)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_visuals(folder, PATIENTS)
    samples = [_report(n, REPORTS[side], "Second.") for n, side in enumerate(("left", "right") * (PATIENTS // 2))]
    out = tmp_path_factory.mktemp("run")
    both = run.Settings(conditions=("image", "no_image"))
    run.evaluate(OracleModel(), [write_manifest(folder / "test.jsonl", samples)], out, both)
    return out


@pytest.fixture
def out(finished, tmp_path) -> Path:
    """A copy of the run, without the marks of other tests."""
    for path in finished.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory) -> Path:
    """A Python of another environment, in which nothing is installed."""
    folder = tmp_path_factory.mktemp("environment") / "bare"
    venv.create(folder, with_pip=False, symlinks=True)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def likeness(tmp_path_factory) -> Learned:
    script = tmp_path_factory.mktemp("worker") / "likeness_worker.py"
    script.write_text(WORKER)
    return Learned(name="likeness", script=script, read=_likeness, batch_size=2)


def _likeness(said, answer, reference):
    return {"likeness": said["likeness"]}


def how(python, **settings) -> Marking:
    return Marking(python={"": python}, settings={"likeness": settings}, silence_s=20)


def test_a_scorer_in_another_environment(out, likeness, bare_python):
    done = mark(out, "likeness", how(bare_python), learned=likeness)
    assert (done["scored"], done["unscored"], done["new"]) == (PATIENTS, 0, PATIENTS)
    assert done["about"] == read_run(out)["marked"]["likeness"]
    assert done["about"]["version"] == "1" and done["about"]["modules"] == []  # nothing of this environment came along
    assert "libraries print" in (out / "marks.likeness.log").read_text()
    rows = [row for row in scores_of(out) if row["condition"] == "image"]
    assert [row["likeness"] for row in rows] == [1.0] * PATIENTS and all(row["added"] == ["likeness"] for row in rows)
    assert all("likeness: of several references the first counts" in row["flags"] for row in rows)
    assert all("likeness" not in row for row in scores_of(out) if row["condition"] != "image")
    again = mark(out, "likeness", how(bare_python), learned=likeness)
    assert again["new"] == 0 and len(read_rows(marks_path(out, "likeness"))) == PATIENTS
    with pytest.raises(ValueError, match="--again"):
        mark(out, "likeness", how(bare_python, other="setting"), learned=likeness)


def test_what_cannot_be_marked_is_unscored_and_tried_again(out, likeness, bare_python):
    done = mark(out, "likeness", how(bare_python, fails_on="right"), learned=likeness)
    assert (done["scored"], done["unscored"]) == (PATIENTS // 2, PATIENTS // 2)
    rows = [row for row in scores_of(out) if row["condition"] == "image"]
    failed = [row for row in rows if "likeness" not in row]
    assert len(failed) == PATIENTS // 2  # None, never 0
    assert all("likeness: unscored: RuntimeError: out of range" in row["flags"] for row in failed)
    metrics = aggregate_stage(out)
    assert metrics["counts"]["degenerate"]["likeness: unscored: RuntimeError: out of range"] == PATIENTS // 2
    assert mark(out, "likeness", how(bare_python, fails_on="right"), learned=likeness)["new"] == PATIENTS // 2


def test_killed_in_the_middle_and_resumed(out, likeness, bare_python, tmp_path):
    settings = {"dies_at": "4", "unless": str(tmp_path / "enough memory")}
    with pytest.raises(ValueError, match="2 of 6 unmarked: killed by signal 9"):
        mark(out, "likeness", how(bare_python, **settings), learned=likeness)
    path = marks_path(out, "likeness")
    assert len(read_rows(path)) == 4
    with path.open("a") as file:
        file.write('{"request_id": "half a li')  # what a killed medvlm leaves
    (tmp_path / "enough memory").touch()
    done = mark(out, "likeness", how(bare_python, **settings), learned=likeness)
    assert (done["scored"], done["new"]) == (PATIENTS, 2) and len(read_rows(path)) == PATIENTS


def test_refused_hung_and_missing(out, likeness, bare_python):
    with pytest.raises(ValueError, match="pip install likeness"):
        mark(out, "likeness", how(bare_python, refuse=True), learned=likeness)
    began = time.monotonic()
    slow = Marking(python={"": bare_python}, settings={"likeness": {"slow": 60}}, silence_s=1)
    with pytest.raises(ValueError, match="said nothing for 1 s"):
        mark(out, "likeness", slow, learned=likeness)
    assert time.monotonic() - began < 20
    with pytest.raises(ValueError, match="cannot be started"):
        mark(out, "likeness", how(Path("/nowhere/python")), learned=likeness)
    with pytest.raises(ValueError, match="no scorer"):
        mark(out, "unheard_of", Marking())
    with pytest.raises(ValueError, match="has no scores"):
        mark(out / "nothing", "radgraph", Marking())
    assert not marks_path(out, "likeness").exists() or not read_rows(marks_path(out, "likeness"))


@pytest.mark.parametrize("name", sorted(LEARNED))
def test_each_learned_scorer_refuses_with_the_line_that_installs_it(out, bare_python, name):
    with pytest.raises(ValueError, match="pip install"):
        mark(out, name, Marking(python={name: bare_python}, silence_s=30))
    assert name not in read_run(out).get("marked", {})
    metrics = aggregate_stage(out)  # and its metrics are not there, rather than 0
    assert not [row for row in metrics["table"] if row["tier"] in ("C", "D")]


def test_marks_of_another_answer_are_not_used(out, likeness, bare_python):
    mark(out, "likeness", how(bare_python), learned=likeness)
    scores = read_rows(out / "scores.jsonl")
    changed = next(row for row in scores if row["condition"] == "image")
    changed["value"] = "another reading"
    assert "likeness" not in next(row for row in with_marks(out, scores) if row["request_id"] == changed["request_id"])
    write_rows(out / "scores.jsonl", scores)
    assert mark(out, "likeness", how(bare_python), learned=likeness)["new"] == 1


def test_marks_stay_through_a_rescore_and_repeat_to_the_byte(out, likeness, bare_python):
    mark(out, "likeness", how(bare_python), learned=likeness)
    rescore(out)
    first = (out / "metrics.json").read_bytes()
    rescore(out)
    assert (out / "metrics.json").read_bytes() == first
    assert json.loads(first)["run"]["marked"]["likeness"]["package"] == "difflib"
    report_stage(out)


def _graph(*entities):
    return {"entities": {str(n): {"tokens": t, "label": "present", "relations": []} for n, t in enumerate(entities)}}


def test_what_the_parent_makes_of_what_scorers_say():
    effusion, mass, both = _graph("effusion"), _graph("mass"), _graph("effusion", "lung")
    radgraph = learned_scorers._radgraph({"answer": effusion, "reference": both}, "a", "b")
    assert radgraph["radgraph_partial"] == pytest.approx(2 / 3) and radgraph["flags"] == []
    given, expected = [1, 1, *[0] * 12], [0, 1, 1, *[0] * 11]
    chexbert = learned_scorers._chexbert({"answer": given, "reference": expected, "cosine": 0.5}, "a", "b")
    metrics = {metric.name: metric for scorer in learned_scorers.SCORERS for metric in scorer.metrics}
    assert metrics["chexbert_micro_f1_14"].counts([chexbert]) == [[1.0, 1.0, 1.0]]
    assert metrics["chexbert_micro_f1_5"].counts([chexbert]) == [[1.0, 0.0, 0.0]]
    by_class = np.array(metrics["chexbert_macro_f1_14"].counts([chexbert]))
    assert metrics["chexbert_macro_f1_14"].value(by_class)[0] == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="14"):
        learned_scorers._chexbert({"answer": [1], "reference": expected, "cosine": 0}, "a", "b")
    assert learned_scorers._ratescore({"ratescore": 0.5}, "", "b")["flags"][1].startswith("exactly 0.5")
    assert learned_scorers._green({"green": None, "matched": 0}, "a", "b")["green"] is None
    assert "0 by convention" in learned_scorers._green({"green": 0.0, "matched": 0}, "a", "b")["flags"][0]
    same = {"graphs": {"answer": effusion, "reference": effusion}, "bertscore": 1.0, "semb": 1.0}
    other = {"graphs": {"answer": mass, "reference": effusion}, "bertscore": 0.2, "semb": 0.3}
    good, bad = (learned_scorers._radcliq(said, "an effusion", "an effusion") for said in (same, other))
    assert good["radcliq_v1"] < bad["radcliq_v1"] and good["radcliq_v0"] < bad["radcliq_v0"]
    assert metrics["radcliq_v0"].better == metrics["radcliq_v1"].better == "lower"
    assert metrics["radgraph_partial"].better == "higher"


def test_the_command(out, bare_python, capsys):
    assert command.main([str(out), "--with", "radgraph", "--python", str(bare_python)]) == 2
    assert "pip install radeval" in capsys.readouterr().err
    assert command.main([str(out), "--with", "judge"]) == 2  # a report has no open answer, and nobody judges
    assert "error" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main([str(out), "--with", "bleu"])
    assert command.main([str(out), "--with", "radgraph", "--set", "radgraf.model=x"]) == 2
    assert "NAME.KEY=VALUE" in capsys.readouterr().err


BERTSCORE = os.environ.get("MEDVLM_BERTSCORE_PYTHON")


@pytest.mark.skipif(not BERTSCORE, reason="MEDVLM_BERTSCORE_PYTHON names no Python with bert-score")
@pytest.mark.slow
def test_bert_score_itself_with_a_tiny_model(tmp_path, out):
    """The real package in its own environment; only its weights are made up."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = sorted(set(" ".join(REPORTS.values()).lower().replace(".", " .").replace(":", " :").split()))
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    tiny = tmp_path / "tiny"
    BertTokenizerFast(vocab_file=str(vocabulary), model_max_length=64).save_pretrained(tiny)
    config = BertConfig(
        vocab_size=len(words) + 5, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
    )
    BertModel(config).save_pretrained(tiny)
    settings = {"bertscore": {"model": str(tiny), "layers": 2, "rescaled": ""}}
    python = {"bertscore": Path(BERTSCORE)}
    done = mark(out, "bertscore", Marking(python=python, settings=settings, silence_s=300))
    assert (done["scored"], done["unscored"]) == (PATIENTS, 0) and done["about"]["package"].startswith("bert")
    table = aggregate_stage(out)["table"]
    block = next(row for row in table if row["metric"] == "bertscore" and row["topic"] == "all")
    assert block["tier"] == "C" and block["value"] == pytest.approx(1.0, abs=1e-4)


def test_silence_of_a_constant_is_marked_as_empty(tmp_path, likeness, bare_python):
    write_visuals(tmp_path, 2)
    samples = [_report(n, REPORTS["left"]) for n in range(2)]
    out = tmp_path / "run"
    shown = run.Settings(conditions=("image",))
    run.evaluate(ConstantModel(""), [write_manifest(tmp_path / "t.jsonl", samples)], out, shown)
    assert mark(out, "likeness", how(bare_python), learned=likeness)["scored"] == 2
    assert [row["likeness"] for row in scores_of(out)] == [0.0, 0.0]
