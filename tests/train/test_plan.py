"""What a plan says before anything is paid for: freezing, files, masks, memory, hours."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import a_chat, an_image, tiny_model
from tiny_curriculum import YAML, write_config

from medvlm.data_recipes.packing import Length, collate, length_of
from medvlm.data_recipes.phantoms.write import write_phantoms
from medvlm.data_recipes.rendering import Renderer
from medvlm.data_recipes.rows import Joined, ManifestRows
from medvlm.data_recipes.sample import from_json
from medvlm.model.flops import model_flops
from medvlm.model.loading import build_config
from medvlm.model.log_probabilities import token_log_probabilities
from medvlm.train import plan
from medvlm.train.assemble import first_processor, set_trainable
from medvlm.train.config import EngineConfig, LearningRates, Lora, load_curriculum
from medvlm.train.devices import named
from medvlm.train.plan_checks import Files, Masks, check_evaluation, check_freezing, check_masks, findings_of
from medvlm.train.plan_memory import activations, estimate_memory, logits, what_would_fit
from medvlm.train.plan_stage import shaped
from medvlm.train.plan_time import Scale, operations_of, time_of
from medvlm.train.throughput import counter_of


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan") / "data"
    write_phantoms(folder, patients=8, seed=3)
    return folder


@pytest.fixture
def config(phantoms, tmp_path):
    return partial(write_config, tmp_path / "c.yaml", phantoms)


# --- freezing -----------------------------------------------------------------------------------------------------


def reasons(curriculum):
    return [(finding.stage, finding.reason) for finding in check_freezing(curriculum)]


def test_random_parts_that_stay_frozen_are_named_until_a_stage_trains_them(config):
    found = reasons(load_curriculum(config()))
    assert ("align", "the vision tower is random and frozen: the projector would learn to read noise") in found
    assert any(s == "align" and r.startswith("'text' is random") for s, r in found)
    assert any(s == "instruct-2d" and r.startswith("'vision' is random") for s, r in found)
    # From instruct-3d on everything has been trained.
    assert {s for s, _ in found} == {"align", "instruct-2d"}


def pretrained(curriculum, **changes):
    """As if tower and decoder were pretrained; nothing is read."""
    source = replace(curriculum.model, vision={"pretrained": "tower"}, text={"pretrained": "decoder"})
    return replace(curriculum, model=source, **changes)


def test_a_random_projector_beside_a_pretrained_decoder_is_named_once_it_is_not_aligned(config):
    curriculum = pretrained(load_curriculum(config()))
    assert not [r for s, r in reasons(curriculum) if "random projector" in r], "the first stage aligns it"
    unaligned = replace(curriculum, stages=curriculum.stages[1:])
    (reason,) = [r for s, r in reasons(unaligned) if s == "instruct-2d" and "random projector" in r]
    assert "together with a pretrained decoder at 0.001" in reason
    found = dict(reasons(curriculum))
    assert found["instruct-2d"] == "the pretrained 'text' is trained in full at 0.001, over 0.0001"


def test_adapters_on_noise_are_named(config):
    curriculum = load_curriculum(config())
    only = replace(curriculum, stages=curriculum.stages[3:4])
    assert any("adapters are put on 'vision', whose weights are random" in r for _, r in reasons(only))


def test_missing_evaluation_manifests_are_named(config):
    path = config()
    text = Path(path).read_text() + "evaluation: {manifests: [test_questions.jsonl, nowhere.jsonl]}\n"
    Path(path).write_text(text)
    (finding,) = check_evaluation(load_curriculum(path))
    assert "nowhere.jsonl is not there" in finding.reason


# --- the command --------------------------------------------------------------------------------------------------


def planned(capsys, *arguments):
    code = plan.main([*map(str, arguments), "--json"])
    out = capsys.readouterr()
    return code, json.loads(out.out), out.err


def one_stage(config, *, manifest="train_2d.jsonl"):
    """A curriculum of one stage that trains everything."""
    tail = YAML[YAML.index("  - name: align") :]
    stage = (
        f"  - name: all\n    mixture: [{{manifest: {manifest}}}]\n"
        "    learning_rate: {vision: 1e-3, projector: 1e-3, text: 1e-3}\n    steps: 2\n"
    )
    return config(tail, stage)


def test_a_plan_for_machines_has_memory_hours_and_cost(config, capsys):
    path = one_stage(config)
    code, told, _ = planned(capsys, path, "--gpu", "h100", "--processes", 2, "--mfu", 0.5, "--price", 3)
    assert code == 0 and not told["refused"] and told["gpu"] == "h100-80gb"
    (stage,) = told["stages"]
    assert stage["files_looked_for"] > 3 and stage["files_missing"] == 0 and stage["fits"] is True
    assert stage["hours"] == pytest.approx(stage["operations"] / (989.4e12 * 0.5 * 2) / 3600)
    assert told["cost"] == pytest.approx(stage["hours"] * 2 * 3)
    assert 0.05 < stage["supervised_share"] < 0.5
    assert stage["largest_pack"]["tokens"] <= 512


def test_a_file_that_vanished_after_it_was_measured_is_found(config, phantoms, tmp_path, capsys):
    root, run = tmp_path / "root", tmp_path / "run"
    shutil.copytree(phantoms, root)
    run.mkdir()  # lengths are kept in it
    path, more = one_stage(config), (f"data.root={root}", f"output_dir={run}")
    assert plan.main([path, *more]) == 0
    capsys.readouterr()
    row = json.loads((root / "train_2d.jsonl").read_text().splitlines()[0])
    gone = next(ref.path for ref in from_json(row, where="row").visuals())
    (root / gone).unlink()
    assert plan.main([path, *more]) == 2
    said = capsys.readouterr().err
    assert "visuals that were looked for are missing, such as" in said and gone in said and "medvlm data check" in said
    assert plan.main([path, f"data.root={root / 'none'}"]) == 2
    assert "no such manifest" in capsys.readouterr().err


def test_turns_that_never_end_and_missing_files_are_refused_by_their_share(config):
    stage = load_curriculum(one_stage(config)).stages[0]
    whole = Masks(samples=4, supervised=0.2, endless=("a",), unlike_prompt=("b",))
    found = findings_of(stage, whole, Files(looked_for=10, missing=("x.png",) * 2), 0, 10, 0.1)
    assert [f.level for f in found] == ["refusal", "warning", "refusal"]
    assert "carries no loss in 1 of 4 samples, such as a" in found[0].reason
    assert "2 of 10 visuals" in found[2].reason
    assert findings_of(stage, whole, Files(looked_for=100, missing=("x.png",)), 0, 10, 0.1)[2].level == "warning"


def test_masks_are_those_of_real_samples(config, phantoms):
    curriculum = load_curriculum(one_stage(config))
    processor = first_processor(curriculum)
    renderer = Renderer(processor, phantoms)
    rows = Joined([ManifestRows(phantoms / "train_2d.jsonl")])
    good = check_masks(rows, range(4), renderer)
    assert good.samples == 4 and not good.endless and not good.unlike_prompt and good.supervised > 0.05

    # The end of a turn without loss, as a template with a mask of its own can have it.
    class Endless(Renderer):
        def sides(self, sample, shown=None):
            return tuple(
                replace(side, supervised=side.supervised & ~torch.isin(
                    torch.from_numpy(side.tokens), torch.tensor(sorted(processor.end_ids))).numpy())
                for side in super().sides(sample, shown)
            )  # fmt: skip

    assert len(check_masks(rows, range(4), Endless(processor, phantoms)).endless) == 4


def test_prompts_that_the_model_will_answer_are_not_asked_for_the_end_of_an_answer(config, capsys):
    rewards = {
        "name": "rewards", "objective": "reinforcement", "steps": 1, "mixture": [{"manifest": "train_2d.jsonl"}],
        "learning_rate": {"text": 1.0e-5}, "reinforcement": {"group_size": 2, "max_new_tokens": 8},
    }  # fmt: skip
    code = plan.main([config(), f"stages={json.dumps([rewards])}", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert [found["reason"] for found in told["findings"] if found["level"] == "refusal"] == []
    assert not any("carry loss" in found["reason"] for found in told["findings"]) and code == 0


def test_auxiliary_losses_whose_labels_are_called_otherwise_are_named(config, capsys):
    losses = [{"kind": "findings", "findings": ["nodule", "nodul"]}, {"kind": "progression", "findings": ["nodule"]},
              {"kind": "unpaired", "findings": ["nodule"]}]  # fmt: skip
    stage = {
        "name": "aside", "steps": 1, "mixture": [{"manifest": "train_2d.jsonl"}], "auxiliary": losses,
        "learning_rate": {"vision": 1.0e-3, "heads": 1.0e-3},
    }  # fmt: skip
    assert plan.main([config(), f"stages={json.dumps([stage])}", "--json"]) == 0
    found = [f for f in json.loads(capsys.readouterr().out)["findings"] if "auxiliary" in f["reason"]]
    assert "auxiliary loss 'findings' for 'nodul'" in found[0]["reason"] and "mass, nodule" in found[0]["mend"]
    assert "'unpaired' has nothing to bring them together with" in found[-1]["reason"]
    assert "mix in labelled reports" in found[-1]["mend"]


# --- memory -------------------------------------------------------------------------------------------------------


def kept_bytes(model, batch) -> int:
    """Bytes that autograd keeps from a forward pass besides parameters and the batch: torch's own hooks count them."""
    known = {p.untyped_storage().data_ptr() for p in model.parameters()}
    known |= {t.untyped_storage().data_ptr() for t in batch.model_inputs().values()}
    found: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage.nbytes()
        held.append(tensor)
        return tensor

    held: list = []
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        token_log_probabilities(model, batch)[0].sum()
    return sum(found.values())


@pytest.mark.parametrize("trained", [("vision", "projector", "text"), ("projector",), ("text",)], ids="-".join)
def test_activations_are_about_what_autograd_keeps(config, processor, trained):
    """The oracle is torch; a plan must not be off by half, or a GPU is rented that is too small."""
    curriculum = load_curriculum(one_stage(config))
    rates = dict.fromkeys(("vision", "projector", "text")) | dict.fromkeys(trained, 1e-3)
    stage = replace(curriculum.stages[0], learning_rate=type(curriculum.stages[0].learning_rate)(**rates))
    wide = {"hidden_size": 64, "num_hidden_layers": 6, "intermediate_size": 256}
    model = tiny_model(processor, **wide).train()
    set_trainable(model, stage)
    chats = [(a_chat(["image"], "Is there a nodule? " * 20, "yes " * 10), [an_image(n)]) for n in range(6)]
    rendered = [processor.render(turns, [processor.patch(v) for v in visuals]) for turns, visuals in chats]
    batch = collate([(str(n), [side]) for n, side in enumerate(rendered)])
    sized = replace(
        curriculum,
        data=replace(curriculum.data, tokens_per_pack=len(batch.tokens), patches_per_pack=len(batch.patches)),
    )
    assert activations(model, sized, stage) == pytest.approx(kept_bytes(model, batch), rel=0.5)


def big(config, **engine):
    """A decoder of 7 billion parameters as a plan sees it."""
    curriculum = load_curriculum(one_stage(config))
    curriculum = replace(
        curriculum,
        engine=EngineConfig(**engine),
        data=replace(curriculum.data, tokens_per_pack=8192, patches_per_pack=8192),
    )
    text = {
        "model_type": "qwen3", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 11008, "tie_word_embeddings": False,
    }  # fmt: skip
    return curriculum, build_config({}, {}, {"config": text}, 152_000, 0)


def test_zero_divides_what_it_says_and_offload_moves_it(config):
    bf16 = {"kind": "deepspeed", "precision": "bf16"}
    stage = load_curriculum(one_stage(config)).stages[0]
    found = {}
    for level in (1, 2, 3):
        curriculum, shape = big(config, zero_stage=level, **bf16)
        model, _, _ = shaped(shape, stage)
        found[level] = estimate_memory(model, curriculum, stage, 8)
    count = sum(p.numel() for p in model.parameters()) / 2**30
    assert found[1].parts["weights"] == found[2].parts["weights"] == pytest.approx(2 * count)
    assert found[3].parts["weights"] == pytest.approx(2 * count / 8)
    assert found[2].parts["optimizer"] == pytest.approx(8 * count / 8)
    assert found[2].parts["masters"] == pytest.approx(4 * count / 8)
    assert found[1].parts["gradients"] > found[2].parts["gradients"] == pytest.approx(4 * count / 8)
    curriculum, _ = big(config, zero_stage=2, offload=True, **bf16)
    moved = estimate_memory(model, curriculum, stage, 8)
    assert moved.host == pytest.approx(12 * count / 8) and "optimizer" not in moved.parts
    assert moved.total + moved.host == pytest.approx(found[2].total)


def test_what_does_not_fit_is_refused_with_what_would(config):
    curriculum, shape = big(config, kind="deepspeed", zero_stage=2, precision="bf16")
    stage = curriculum.stages[0]
    model, _, _ = shaped(shape, stage)
    card = named("h100-80gb")
    memory = estimate_memory(model, curriculum, stage, 1)
    assert not memory.fits(card), "weights, masters, gradients and Adam of 8 billion take 16 bytes each"
    changes = what_would_fit(model, curriculum, stage, 1, card)
    assert any("zero_stage: 3" in change and "processes" in change for change in changes), changes
    assert estimate_memory(model, curriculum, stage, 64).parts["optimizer"] < memory.parts["optimizer"] / 60


def test_four_bits_take_a_quarter_of_bf16(config):
    curriculum, shape = big(config, kind="deepspeed", zero_stage=2, precision="bf16")
    plain = replace(curriculum.stages[0], learning_rate=LearningRates(), lora=Lora(targets=("text.all",)))
    packed = replace(plain, lora=replace(plain.lora, quantize="nf4"))
    model, trained, findings = shaped(shape, packed)
    assert set(trained) == {"lora"}
    assert all("bitsandbytes" in finding.reason for finding in findings)
    whole = estimate_memory(model, curriculum, plain, 1).parts["weights"]
    small = estimate_memory(model, curriculum, packed, 1).parts["weights"]
    assert 0.25 < small / whole < 0.45, "embeddings, the output layer, tower and projector stay in bf16"


def test_logits_are_there_some_rows_at_a_time(config):
    curriculum, shape = big(config)
    model, _, _ = shaped(shape, curriculum.stages[0])
    assert logits(model, 8192) < 3 * 8192 * 152_000 * 4 / 2
    assert logits(model, 100) == pytest.approx(3 * 100 * 152_000 * 4 + 152_000 * 4096 * 4)


# --- time ---------------------------------------------------------------------------------------------------------


def test_operations_of_a_plan_are_those_of_the_packs(config, processor):
    """The counter of the training is the oracle: a plan from lengths alone comes to the same over packs it has read."""
    model = tiny_model(processor)
    stage = load_curriculum(one_stage(config)).stages[0]
    packs, lengths = [], []
    for n in range(3):
        side = processor.render(a_chat(["image"], f"Is there a nodule {n}?", "yes"), [processor.patch(an_image(n))])
        packs.append(collate([("a", [side])]))
        lengths.append([length_of([side])])
    costs, count = model_flops(model), counter_of(model, stage)
    scale = Scale.of_packs(packs, lengths, costs, stage)
    assert operations_of(lengths, costs, stage, scale) == pytest.approx(sum(count(pack).model for pack in packs))
    assert isinstance(lengths[0][0], Length)
    took = time_of(989.4e12 * 3600, named("h100"), 0.5, 4)
    assert took.hours == pytest.approx(0.5) and took.gpu_hours == pytest.approx(2.0)
