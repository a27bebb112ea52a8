"""Contrastive learning: losses against open_clip and the papers, the gradient cache against one whole graph."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from conftest import tiny_model
from torch.nn import functional as F

from medvlm.data_recipes.packing import collate
from medvlm.data_recipes.rendering import Renderer
from medvlm.data_recipes.sample import Sample, Turn, VisualRef
from medvlm.model import load_checkpoint, save_checkpoint
from medvlm.model.head_contrastive import LARGEST_LOG_SCALE, embed_pairs, pack_texts
from medvlm.model.loading import empty_model
from medvlm.train.assemble import component_of, parameters, set_trainable
from medvlm.train.config import ContrastiveConfig, EngineConfig, LearningRates, Lora, Source, Stage
from medvlm.train.engine import make_engine
from medvlm.train.loop import items, mean
from medvlm.train.objectives.contrastive import Contrastive
from medvlm.train.objectives.contrastive_losses import (
    clip_losses,
    held,
    identity,
    no_negatives,
    siglip_losses,
)
from medvlm.train.optim import parameter_groups

EXTRAS = "bash scripts/test_extras.sh runs these tests"
VOLUME = {"unit": "HU", "spacing_mm": [8, 5, 5], "orientation": "SPL", "modality": "CT"}


def unit_rows(seed: int, count: int = 7, size: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, size, generator=generator), dim=-1)


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_losses_are_those_of_open_clip(loss):
    pytest.importorskip("open_clip", reason=EXTRAS)
    from open_clip.loss import ClipLoss, SigLipLoss

    visual, text = unit_rows(1).requires_grad_(), unit_rows(2).requires_grad_()
    scale, bias = torch.tensor([13.0], requires_grad=True), torch.tensor([-4.0], requires_grad=True)
    leaves = [visual, text, scale, *([bias] if loss == "siglip" else [])]
    if loss == "clip":
        theirs, ours = ClipLoss()(visual, text, scale), clip_losses(visual, text, scale).mean()
    else:
        theirs = SigLipLoss()(visual, text, scale, bias)
        ours = siglip_losses(visual, text, scale, bias).mean()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    for a, b in zip(torch.autograd.grad(ours, leaves), torch.autograd.grad(theirs, leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_losses_are_the_formulas_of_their_papers():
    visual, text = unit_rows(3, 4).double(), unit_rows(4, 4).double()
    cosines = (visual @ text.T).tolist()
    clip = clip_losses(visual, text, torch.tensor([9.0])).tolist()
    siglip = siglip_losses(visual, text, torch.tensor([9.0]), torch.tensor([-3.0])).tolist()
    for i in range(4):
        rows = math.log(sum(math.exp(9 * cosines[i][j]) for j in range(4))) - 9 * cosines[i][i]
        columns = math.log(sum(math.exp(9 * cosines[j][i]) for j in range(4))) - 9 * cosines[i][i]
        assert clip[i] == pytest.approx((rows + columns) / 2, rel=1e-9)
        signs = [1 if i == j else -1 for j in range(4)]
        expected = sum(math.log(1 + math.exp(-s * (9 * c - 3))) for s, c in zip(signs, cosines[i], strict=True))
        assert siglip[i] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_a_masked_pair_is_left_out_of_both_directions(loss):
    """As if the other pair were not there: of three pairs of which 0 and 1 are the same, 2 sees all of them."""
    visual, text, scale, bias = unit_rows(5, 3), unit_rows(6, 3), torch.tensor([7.0]), torch.tensor([-1.0])
    same = no_negatives(torch.tensor([[1, 5, 9], [2, 5, 8], [3, 6, 7]]))
    assert same.tolist() == [[False, True, False], [True, False, False], [False, False, False]]
    of = partial(siglip_losses, bias=bias) if loss == "siglip" else clip_losses
    masked = of(visual, text, scale, same=same)
    for kept, item in (([0, 2], 0), ([1, 2], 1)):
        alone = of(visual[kept], text[kept], scale)
        assert masked[item].item() == pytest.approx(alone[0].item(), rel=1e-6)
    assert masked[2].item() == pytest.approx(of(visual, text, scale)[2].item(), rel=1e-6)


def a_pair(name: str, path: str, text: str, study: str | None = None, **options: object) -> Sample:
    kind = "volume" if path.endswith(".npy") else "image"
    ref = VisualRef(kind=kind, path=path, options=VOLUME if kind == "volume" else dict(options))
    turns = (Turn(role="user", content=(ref, "Write the report.")), Turn(role="assistant", content=(text,)))
    return Sample(
        sample_id=name, patient_id=name, study_id=study or name, source="fixture", licence="CC0-1.0", split="train",
        turns=turns,
    )  # fmt: skip


def test_what_is_no_negative():
    pairs = [
        a_pair("a", "1.png", "No nodule."),
        a_pair("b", "2.png", "No  nodule. "),  # says the same
        a_pair("c", "1.png", "A mass."),  # shows the same
        a_pair("d", "3.png", "Effusion."),
        replace(a_pair("d", "4.png", "A large heart."), sample_id="e"),  # of the same study
    ]
    numbers = torch.tensor([identity(pair, pair.said()) for pair in pairs])
    found = {(i, j) for i, j in no_negatives(numbers).nonzero().tolist() if i < j}
    assert found == {(0, 1), (0, 2), (3, 4)}


def test_the_scale_is_held():
    log_scale = torch.tensor([-0.1, 0.0, 2.0, LARGEST_LOG_SCALE, 5.0])
    for gradient in (-1.0, 1.0):
        kept = held(log_scale, torch.full((5,), gradient), LARGEST_LOG_SCALE)
        # Down is out at the lower end, up at the upper one; the update goes against the gradient.
        out = [3, 4] if gradient < 0 else [0, 1]
        assert kept.nonzero().flatten().tolist() == [n for n in range(5) if n not in out]


@pytest.fixture(scope="module")
def start(processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("contrastive")
    for number in range(4):
        voxels = np.random.default_rng(number).normal(-300, 400, (12, 48, 40)).astype(np.float32)
        np.save(folder / f"{number}.npy", voxels)
    save_checkpoint(folder / "start", tiny_model(processor), processor)
    return folder / "start"


def stage_of(**changes: object) -> Stage:
    settings = {
        "name": "clip", "objective": "contrastive", "mixture": (Source(manifest="none"),), "steps": 1,
        "learning_rate": LearningRates(vision=1e-3, text=1e-3, heads=1e-3), "contrastive": ContrastiveConfig(size=16),
    }  # fmt: skip
    return Stage(**{**settings, **changes})  # type: ignore[arg-type]


PAIRS = [
    a_pair("a", "0.npy", "There is a 25 mm nodule in the left upper zone."),
    a_pair("b", "1.npy", "No pneumothorax."),
    a_pair("c", "2.npy", "moderate effusion, right lower zone consolidation"),
    a_pair("d", "3.npy", "The heart is normal in size."),
    a_pair("e", "3.npy", "No pneumothorax."),  # says what b says, shows what d shows
]


def packs_of(processor, start, split):
    """Of an empty part what the loader makes when nothing of a pack could be read."""
    renderer = Renderer(processor, start.parent)
    nothing = [("nothing could be read", [processor.render([{"role": "user", "content": "x"}], [])] * 2)]
    return [
        collate([(PAIRS[i].sample_id, renderer.sides(PAIRS[i])) for i in part] or nothing, [PAIRS[i] for i in part])
        for part in split
    ]


def gradients_of(start, stage, split, seed=0):
    """Loss and gradients of one step of the real objective on a real engine; the packs of ``split``."""
    torch.manual_seed(seed)
    model, processor = load_checkpoint(start)
    set_trainable(model.train(), stage)
    groups = parameter_groups(model.named_parameters(), partial(component_of, model), stage.peak_learning_rates(), 0.0)
    engine = make_engine(EngineConfig(device="cpu"), model, groups, micro_batches_per_step=len(split))
    objective = Contrastive(stage.contrastive, processor.tokenizer)
    packs = objective.prepare(engine, packs_of(processor, start, split))
    counts, losses, found = items(objective, packs), [], []
    for pack in packs:
        found.append(objective(engine.model, pack))
        losses.append(mean(objective, found[-1], counts))
        engine.backward(losses[-1], last=pack is packs[-1])
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    engine.close()
    assert not missing, f"ranks would wait for the gradients of {missing}"
    return sum(loss.item() for loss in losses), gradients, found


def whole_graph(start, stage, seed=0):
    """The same by one backward pass through everything, with open_clip's arithmetic written out here."""
    torch.manual_seed(seed)
    model, processor = load_checkpoint(start)
    set_trainable(model.train(), stage)
    (pack,) = packs_of(processor, start, [range(len(PAIRS))])
    texts = pack_texts(processor.tokenizer, [pair.said() for pair in PAIRS])
    made = embed_pairs(model, pack, list(range(len(PAIRS))), texts)
    logits = made.log_scale.exp() * made.visual @ made.text.T + (0 if made.bias is None else made.bias)
    same = no_negatives(torch.tensor([identity(pair, pair.said()) for pair in PAIRS]))
    if stage.contrastive.loss == "clip":
        logits = logits.masked_fill(same & torch.tensor(stage.contrastive.mask_duplicates), -1e30)
        right = torch.arange(len(PAIRS))
        loss = (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
    else:
        each = -F.logsigmoid((2 * torch.eye(len(PAIRS)) - 1) * logits)
        loss = (each * ~same if stage.contrastive.mask_duplicates else each).sum() / len(PAIRS)
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


VARIANTS = {
    "clip": ContrastiveConfig(size=16),
    "siglip": ContrastiveConfig(size=16, loss="siglip", text="mean"),
    "attention": ContrastiveConfig(size=16, pooling="attention"),
    "all negatives": ContrastiveConfig(size=16, mask_duplicates=False),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_gradient_of_any_split_is_that_of_one_graph(start, variant):
    stage = stage_of(contrastive=VARIANTS[variant])
    expected, right = whole_graph(start, stage)
    assert len(right) > 30 and all(bool(g.any()) for name, g in right.items() if "bias" not in name)
    for split in ([[0, 1, 2, 3, 4]], [[4, 2], [], [1], [3, 0]]):
        loss, gradients, found = gradients_of(start, stage, split)
        assert loss == pytest.approx(expected, rel=1e-5)
        assert sum(part.metrics["scale"] for part in found) == pytest.approx(5 * math.exp(stage.contrastive.log_scale))
        assert gradients.keys() >= right.keys()
        for name, gradient in gradients.items():
            wanted = right.get(name, torch.zeros_like(gradient))
            scale = max(float(wanted.abs().max()), 1e-3)
            torch.testing.assert_close(gradient, wanted, atol=5e-5 * scale, rtol=0, msg=name)


def test_dropout_is_the_same_in_both_passes(start):
    """One pack: what the two passes drop must be what one whole graph drops after the same seed."""
    lora = Lora(rank=2, dropout=0.5, targets=("text.mlp", "vision.mlp"))
    stage = stage_of(learning_rate=LearningRates(heads=1e-3), lora=lora)

    def wake(model):
        # Adapters start as nothing, and dropping nothing is no dropout.
        torch.manual_seed(9)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        torch.manual_seed(4)

    torch.manual_seed(0)
    model, processor = load_checkpoint(start)
    set_trainable(model.train(), stage)
    wake(model)
    groups = parameter_groups(model.named_parameters(), partial(component_of, model), stage.peak_learning_rates(), 0.0)
    engine = make_engine(EngineConfig(device="cpu"), model, groups)
    objective = Contrastive(stage.contrastive, processor.tokenizer)
    first, second = objective.prepare(engine, packs_of(processor, start, [[0, 1], [2, 3]]))
    for pack in (second, first):  # in any order
        torch.manual_seed(77)
        loss = objective(engine.model, pack)
        again = objective.begin(pack)
        made = embed_pairs(model, again, [0, 1], again.texts)
        direct = (made.visual * pack.pulls[:, 0]).sum() + (made.text * pack.pulls[:, 1]).sum()
        names = [name for name, p in model.named_parameters() if p.requires_grad and "log_scale" not in name]
        leaves = [p for name, p in model.named_parameters() if name in names]
        for a, b in zip(torch.autograd.grad(loss.total, leaves), torch.autograd.grad(direct, leaves), strict=True):
            torch.testing.assert_close(a, b)
    # The embeddings that were compared are those that are pulled: the losses of the pool are a function of them.
    torch.manual_seed(4)
    with torch.no_grad():
        parts = [embed_pairs(model, pack, [0, 1], pack.texts) for pack in (first, second)]
    visual, text = (torch.cat([getattr(part, name) for part in parts]) for name in ("visual", "text"))
    losses = clip_losses(visual, text, parts[0].log_scale.exp())
    torch.testing.assert_close(torch.cat([first.losses, second.losses]), losses)
    engine.close()


def test_the_text_does_not_see_the_visual(start):
    model, processor = load_checkpoint(start)
    set_trainable(model, stage_of())
    texts = pack_texts(processor.tokenizer, [pair.said() for pair in PAIRS])
    assert processor.visual_token_id not in texts.tokens
    (one,), (other,) = (packs_of(processor, start, [part]) for part in ([0, 1], [2, 3]))
    first, second = (embed_pairs(model, pack, [0, 1], texts) for pack in (one, other))
    assert torch.equal(first.text, second.text) and not torch.allclose(first.visual, second.visual)
    with torch.no_grad():
        alone = embed_pairs(model, one, [0], pack_texts(processor.tokenizer, [PAIRS[1].said()]))
    torch.testing.assert_close(alone.text[0], first.text[1], atol=1e-5, rtol=0)


def test_special_tokens_in_a_report_are_characters(processor):
    name = processor.tokenizer.convert_ids_to_tokens(processor.visual_token_id)
    texts = pack_texts(processor.tokenizer, [f"a {name} b", ""])
    assert processor.visual_token_id not in texts.tokens
    assert texts.cu_seqlens.diff().tolist()[1] == 1
    assert texts.tokens[-1] == processor.tokenizer.eos_token_id


def test_heads_are_kept_with_the_checkpoint(start, tmp_path):
    stage = stage_of(contrastive=ContrastiveConfig(size=16, loss="siglip", pooling="attention"))
    model, processor = load_checkpoint(start)
    trained = set_trainable(model, stage)
    assert set(trained) == {"vision", "text", "heads"}
    assert model.heads["contrastive"].log_scale.item() == pytest.approx(math.log(10))
    assert model.heads["contrastive"].logit_bias.item() == -10
    again, _ = load_checkpoint(save_checkpoint(tmp_path / "c", model, processor))
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(again.state_dict()[name], value) for name, value in model.state_dict().items())
    # Another contrastive stage goes on with it; a supervised one keeps it, frozen.
    set_trainable(again, stage)
    assert torch.equal(again.heads["contrastive"].visual.weight, model.heads["contrastive"].visual.weight)
    rest = Stage(name="s", mixture=(Source(manifest="m"),), steps=1, learning_rate=LearningRates(text=1e-3))
    assert set(set_trainable(again, rest)) == {"text"}
    with pytest.raises(ValueError, match=r"has a head 'contrastive' with .*'size': 16.* asks for .*'size': 8"):
        set_trainable(again, stage_of(contrastive=ContrastiveConfig(size=8)))


@pytest.mark.parametrize("tied", [True, False])
def test_what_a_contrastive_stage_does_not_run_is_frozen(processor, tied):
    model = tiny_model(processor, tie_word_embeddings=tied)
    trained = set_trainable(model, stage_of())
    assert set(trained) == {"vision", "text", "heads"}
    assert model.text.get_output_embeddings().weight.requires_grad is tied
    assert model.get_input_embeddings().weight.requires_grad


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_heads_are_planned_without_weights(processor, loss):
    config = ContrastiveConfig(size=16, loss=loss, pooling="attention")
    full = tiny_model(processor)
    empty = empty_model(full.config)
    trained = set_trainable(empty, stage_of(contrastive=config))
    assert all(parameter.is_meta for parameter in empty.parameters())
    assert parameters(empty)["heads"] == trained["heads"]
    full.config.heads = {}  # the empty model shares its config
    assert set_trainable(full, stage_of(contrastive=config)) == trained
