"""A reinforcement stage by the real command: it learns, resumes to the bit, and two processes do what one does."""

import hashlib
import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from launching import FULL, torchrun
from safetensors.torch import load_file
from spot_task import FROM_CHECKPOINT, SIDES, question, write_config, write_spots

from medvlm.train import run

WORKER = Path(__file__).parent / "reinforcement_worker.py"
DEEPSPEED = importlib.util.find_spec("deepspeed") is not None


@pytest.fixture(scope="module")
def spots(tmp_path_factory) -> Path:
    """Pictures and manifests, and beside them ``whole``: a run whose first stage has taught the form of the answers."""
    folder = tmp_path_factory.mktemp("spots")
    write_spots(folder / "data")
    assert run.main([write_config(folder / "whole.yaml", folder / "data"), "--stage", "format"]) == 0
    return folder


def rows(folder: Path, name: str = "metrics.jsonl") -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


@pytest.mark.slow
def test_rewards_rise(spots, capsys):
    """From below 0.4 to above 0.8 on a question whose answer is in the picture alone."""
    assert run.main([str(spots / "whole.yaml")]) == 0
    folder = spots / "whole" / "stages" / "02-rewards"
    found = rows(folder)
    curve = [row["reward"] for row in found]
    with capsys.disabled():
        print("\nreward of every third step:", " ".join(f"{value:.2f}" for value in curve[::3]))
    assert sum(curve[:3]) / 3 < 0.4 and sum(curve[-3:]) / 3 > 0.8
    assert found[0]["groups_without_signal"] < found[-1]["groups_without_signal"]
    assert {"reward_answer", "reward_std", "unread", "answer_tokens", "cut_off", "entropy", "clipped"} <= set(found[0])
    written = rows(folder, "rollouts.jsonl")
    assert {row["step"] for row in written} == set(range(1, len(found) + 1))
    last = written[-1]
    assert last["reference"] in SIDES and len(last["answers"]) == 8 and last["question"] == "Where is the spot?"
    for answer in last["answers"]:
        assert answer["reward"] == float(answer["text"] == last["reference"]) or answer["unread"] is False


# --- one process and two -----------------------------------------------------------------------------------------

SMALL = ["stages.rewards.steps=3", "data.tokens_per_pack=120", "stages.rewards.reinforcement.max_new_tokens=4"]
ALGORITHMS = {
    "grpo": [],
    "dapo": [
        "stages.rewards.reinforcement.algorithm=dapo", "stages.rewards.reinforcement.updates=2",
        "stages.rewards.reinforcement.overlong_buffer=2",
    ],
    "dr_grpo": [
        "stages.rewards.reinforcement.algorithm=dr_grpo", "stages.rewards.reinforcement.updates=2",
        "stages.rewards.reinforcement.beta=0.1", "stages.rewards.learning_rate={}",
        "stages.rewards.lora={rank: 4, learning_rate: 1e-2}",
    ],
}  # fmt: skip
ENGINES = {"accelerate": [], "FSDP": ["engine.kind=fsdp"]}
if DEEPSPEED:
    ENGINES |= {f"ZeRO {stage}": ["engine.kind=deepspeed", f"engine.zero_stage={stage}"] for stage in (2, 3)}
RUNS = [("dapo", "accelerate"), *([("grpo", "ZeRO 3")] if DEEPSPEED else [])]
if FULL:
    RUNS += [("grpo", "FSDP"), *([("dr_grpo", "ZeRO 2")] if DEEPSPEED else [])]


def arguments(spots: Path, folder: Path, algorithm: str, engine: str, packs: int) -> list[str]:
    config = folder.with_suffix(".yaml")
    config.write_text(
        FROM_CHECKPOINT.replace("ROOT", str(spots / "data"))
        .replace("OUTPUT", str(folder))
        .replace("CHECKPOINT", str(spots / "whole" / "stages" / "01-format" / "checkpoint"))
    )
    return [str(config), *SMALL, *ALGORITHMS[algorithm], *ENGINES[engine], f"stages.rewards.packs_per_step={packs}"]


@pytest.fixture(scope="module")
def trained(spots):
    """(algorithm, engine) -> folder of the stage that two processes trained; and algorithm -> that of one."""
    folders = {one: spots / f"{one[0]}-{one[1]}".replace(" ", "") for one in RUNS}
    commands = [arguments(spots, folder, *one, 2) for one, folder in folders.items()]
    done = torchrun(WORKER, [json.dumps(commands)], timeout=400)
    assert done.returncode == 0, done.stderr[-6000:]
    alone = {algorithm: spots / f"{algorithm}-alone" for algorithm in ALGORITHMS}
    for algorithm, folder in alone.items():
        assert run.main(arguments(spots, folder, algorithm, "accelerate", 4)) == 0
    stages = {one: folder / "stages" / "01-rewards" for one, folder in folders.items()}
    return stages | {name: folder / "stages" / "01-rewards" for name, folder in alone.items()}


@pytest.mark.slow
@pytest.mark.parametrize("one", RUNS, ids=" ".join)
def test_two_processes_do_what_one_does(trained, one):
    """Answers are a function of seed, step and sample, so that the same ones are learnt from, dealt out otherwise."""
    found, right = rows(trained[one]), rows(trained[one[0]])
    assert len(found) == len(right) == 3 and any(row["grad_norm"] > 1e-3 for row in right)
    for row, expected in zip(found, right, strict=True):
        for name in ("reward", "reward_std", "answer_tokens", "groups_without_signal", "supervised_tokens"):
            assert row[name] == pytest.approx(expected[name], rel=1e-9), name
        assert row["loss"] == pytest.approx(expected["loss"], rel=1e-4, abs=1e-6)
        assert row["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)
        for name in {"entropy", "clipped", "divergence"} & expected.keys():
            assert row[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6), name
    weights, wanted = (load_file(trained[key] / "checkpoint" / "model.safetensors") for key in (one, one[0]))
    for name, tensor in weights.items():
        # The bias of a key moves no attention: its gradient is rounding, which Adam makes as large as any.
        if not name.endswith("qkv.bias"):
            torch.testing.assert_close(tensor, wanted[name], atol=1e-4, rtol=0, msg=name)


@pytest.mark.slow
def test_the_variants_did_what_they_are_for(trained):
    """Ranks had unlike numbers of packs; ratios left 1; the reference was left; groups were dropped."""
    dapo, dr_grpo = rows(trained["dapo"]), rows(trained["dr_grpo"])
    assert any(row["divergence"] > 0 for row in dr_grpo) and all("divergence" not in row for row in dapo)
    assert any(row["loss"] != pytest.approx(0, abs=1e-5) for row in dr_grpo)
    assert any(row["groups_without_signal"] > 0 for row in dapo)


@pytest.mark.slow
def test_a_resumed_stage_writes_and_learns_the_same(spots):
    folder = spots / "resumed"
    command = [*arguments(spots, folder, "grpo", "accelerate", 2), "stages.rewards.save_every=1"]
    assert run.main(command) == 0
    stage = folder / "stages" / "01-rewards"
    first = hashlib.sha256((stage / "checkpoint" / "model.safetensors").read_bytes()).hexdigest()
    metrics, rollouts = rows(stage), rows(stage, "rollouts.jsonl")
    (stage / "done.json").unlink()
    shutil.rmtree(stage / "checkpoint")
    shutil.rmtree(stage / "state" / "step-00000003")
    assert run.main(command) == 0
    assert hashlib.sha256((stage / "checkpoint" / "model.safetensors").read_bytes()).hexdigest() == first
    assert rows(stage, "rollouts.jsonl") == rollouts
    assert [row["loss"] for row in rows(stage)] == [row["loss"] for row in metrics]


# --- what is refused ---------------------------------------------------------------------------------------------

REFUSED = {
    "a reference without adapters": (["stages.rewards.reinforcement.beta=0.1"], "there is no 'lora'"),
    "a reference that moves": (
        ["stages.rewards.reinforcement.beta=0.1", "stages.rewards.lora={targets: [vision.mlp]}",
         "stages.rewards.learning_rate={text: 1e-3}"],
        "other weights are trained too",
    ),
    "dropout": (
        ["stages.rewards.learning_rate={}", "stages.rewards.lora={dropout: 0.1}"], "set lora.dropout: 0",
    ),
    "an unknown reward": (["stages.rewards.reinforcement.rewards={anser: 1}"], "did you mean 'answer'"),
    "a server without a model": (["stages.rewards.reinforcement.server=http://localhost:1/v1"], "server_model"),
    "a secret in the URL": (["stages.rewards.reinforcement.server=http://a:b@localhost/v1"], "MEDVLM_SERVER_KEY"),
    "a buffer over the room": (["stages.rewards.reinforcement.overlong_buffer=7"], "between 0 and 6"),
    "rewards that cannot mark the question": (
        ["stages.rewards.reinforcement.rewards={box: 1, format: 1}"], "none of the rewards box can mark a closed",
    ),
    "too little room": (["data.tokens_per_pack=10"], "over the budget of 10 tokens"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_learnt_from_is_refused(spots, tmp_path, capsys, case):
    overrides, words = REFUSED[case]
    config, *_ = arguments(spots, tmp_path / "refused", "grpo", "accelerate", 1)
    capsys.readouterr()
    assert run.main([config, *overrides]) == 2
    assert words in capsys.readouterr().err


def test_questions_for_evaluation_are_never_learnt_from(spots, capsys, tmp_path):
    shutil.copytree(spots / "data", tmp_path / "data")
    for split in ("test", "validation"):
        asked = [question(n, "left") | {"split": split} for n in range(5)]
        (tmp_path / "data" / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
        config, *_ = arguments(spots, tmp_path / split, "grpo", "accelerate", 1)
        assert run.main([config, f"data.root={tmp_path / 'data'}"]) == 2
        assert f"a {split} sample with a question must not be trained on" in capsys.readouterr().err
