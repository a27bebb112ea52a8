"""Projectors: what each makes of a pack, that visuals do not see each other, and that all of them train."""

import itertools
import json
import math

import pytest
import torch
from conftest import TEXTS, a_chat, a_video, a_volume, an_image
from safetensors.torch import load_file
from torch.nn import functional as F

from medvlm.data_recipes.packing import collate
from medvlm.data_recipes.phantoms.write import write_phantoms
from medvlm.model import MedVLMProcessor, ProjectorConfig, build_model, load_checkpoint, save_checkpoint
from medvlm.model.batch import IMAGE, VIDEO, VOLUME
from medvlm.model.config import own_projector_config
from medvlm.model.grid import GridRule
from medvlm.model.projector import build_projector
from medvlm.model.projector_mixture import SoftMixtureOfExperts, combine_weights, dispatch_weights
from medvlm.model.projector_pooling import average_blocks
from medvlm.model.projector_resampling import AttentionPooling, PerceiverResampler, Reach
from medvlm.model.tokenizer import train_tokenizer
from medvlm.train import run
from medvlm.train.lora import lora_targets

WIDTH, TEXT = 24, 20
SETTINGS = {
    "mlp": {"merge": [1, 2, 2]},
    "soft_moe": {"merge": [1, 2, 2], "num_experts": 3, "slots_per_expert": 4},
    "pooling": {"pool": [2, 2, 2]},
    "perceiver": {
        "queries": {"image": 5, "volume": 9, "video": 7},
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
    "attention_pooling": {"queries": 6, "num_attention_heads": 3},
}
KINDS = list(SETTINGS)
RESAMPLERS = ("perceiver", "attention_pooling")
VISUALS = [((1, 4, 6), IMAGE), ((4, 4, 4), VOLUME), ((4, 4, 4), VOLUME), ((3, 2, 6), VIDEO), ((1, 2, 2), IMAGE)]
NAMES = {IMAGE: "image", VOLUME: "volume", VIDEO: "video"}


def config_of(kind: str, **more) -> ProjectorConfig:
    return ProjectorConfig(kind=kind, hidden_size=32, **SETTINGS[kind], **more)


def projector_of(kind: str, attention: str = "sdpa"):
    torch.manual_seed(0)
    projector = build_projector(config_of(kind, attn_implementation=attention), WIDTH, TEXT)
    assert projector.config._attn_implementation == attention
    with torch.no_grad():
        for parameter in projector.parameters():
            # The usual tiny scale makes all outputs alike, and zero biases hide what they do.
            parameter.mul_(8) if parameter.ndim > 1 else parameter.add_(torch.randn_like(parameter) * 0.1)
    return projector.eval()


def inputs_of(projector, visuals=VISUALS, seed: int = 1):
    """(features, grids, kept, axis_kinds) of a pack."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(sum(math.prod(grid) for grid, _ in visuals), WIDTH, generator=generator)
    counts = [projector.config.tokens(grid, NAMES[code]) for grid, code in visuals]
    return (
        features,
        torch.tensor([grid for grid, _ in visuals]),
        torch.ones(sum(counts), dtype=torch.bool),
        torch.tensor([code for _, code in visuals]),
    )


def alone_minus_packed(projector) -> float:
    """The largest difference of outputs, of gradients of the features or of parameters: a pack against each alone."""
    features, grids, kept, kinds = inputs_of(projector)
    lengths = grids.prod(dim=1).tolist()
    counts = [projector.config.tokens(grid, NAMES[code]) for grid, code in VISUALS]
    weight = torch.randn(len(kept), TEXT, generator=torch.Generator().manual_seed(2))
    leaves, outputs, gradients = [], [], []
    for whole in (True, False):
        leaf = features.clone().requires_grad_()
        projector.zero_grad()
        if whole:
            out = projector(leaf, grids, kept, kinds)
        else:
            pieces = zip(leaf.split(lengths), grids.split(1), kept.split(counts), kinds.split(1), strict=True)
            out = torch.cat([projector(*piece) for piece in pieces])
        (out * weight).sum().backward()
        leaves.append(leaf.grad)
        outputs.append(out.detach())
        gradients.append([p.grad.clone() for p in projector.parameters()])
    assert outputs[0].std() > 0.1 and leaves[0].abs().max() > 1e-2, "an equality must mean something"
    pairs = [(outputs[0], outputs[1]), (leaves[0], leaves[1]), *zip(*gradients, strict=True)]
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1.0)) for a, b in pairs)


CASES = [*((kind, "sdpa") for kind in KINDS), *((kind, "eager") for kind in RESAMPLERS)]


@pytest.mark.parametrize(("kind", "attention"), CASES)
def test_packed_equals_each_visual_alone_forward_and_gradients(kind, attention):
    projector = projector_of(kind, attention)
    features, grids, kept, kinds = inputs_of(projector)
    out = projector(features, grids, kept, kinds)
    assert out.shape == (len(kept), TEXT)
    assert alone_minus_packed(projector) < 1e-5


@pytest.mark.parametrize("kind", RESAMPLERS)
def test_eager_equals_sdpa(kind):
    sdpa, eager = projector_of(kind), projector_of(kind, "eager")
    with torch.no_grad():
        torch.testing.assert_close(sdpa(*inputs_of(sdpa)), eager(*inputs_of(eager)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", RESAMPLERS)
def test_a_planted_leak_of_attention_is_found(monkeypatch, kind, attention):
    real = Reach.__init__

    def leaky(self, *, queries, keys):
        """The second visual sees two keys of its neighbour."""
        if len(keys) > 2:
            keys = [keys[0], keys[1] + 2, keys[2] - 2, *keys[3:]]
        real(self, queries=queries, keys=keys)

    projector = projector_of(kind, attention)
    monkeypatch.setattr(Reach, "__init__", leaky)
    monkeypatch.setattr("medvlm.model.projector_resampling._side_by_side", lambda a, b: torch.arange(sum(a) + sum(b)))
    assert alone_minus_packed(projector) > 1e-3


def test_a_planted_leak_of_slots_is_found(monkeypatch):
    from medvlm.model import projector_mixture

    real = projector_mixture._of_each_visual

    def leaky(x, logits, lengths):
        """The slots of every visual are filled from the whole pack."""
        return real(x, logits, [len(x)]).expand(len(lengths), -1, -1)

    projector = projector_of("soft_moe")
    monkeypatch.setattr(projector_mixture, "_of_each_visual", leaky)
    assert alone_minus_packed(projector) > 1e-3


def test_a_planted_leak_of_blocks_is_found(monkeypatch):
    from medvlm.model import projector_pooling

    real = projector_pooling.average_blocks
    monkeypatch.setattr(
        projector_pooling,
        "average_blocks",
        lambda x, grids, pool: real(x.roll(1, 0) if len(grids) > 1 else x, grids, pool),
    )
    assert alone_minus_packed(projector_of("pooling")) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("visuals", [VISUALS, VISUALS[:1], VISUALS[-1:]])
def test_every_parameter_takes_part_whatever_the_pack(kind, visuals):
    projector = projector_of(kind).train()
    projector(*inputs_of(projector, visuals)).sum().backward()
    for name, parameter in projector.named_parameters():
        assert parameter.grad is not None, name


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_that_are_not_kept_are_not_made(kind):
    projector = projector_of(kind)
    features, grids, kept, kinds = inputs_of(projector)
    some = kept.clone()
    some[1::3] = False
    with torch.no_grad():
        whole, part = projector(features, grids, kept, kinds), projector(features, grids, some, kinds)
    assert part.shape == (int(some.sum()), TEXT)
    if kind != "soft_moe":  # its slots hold what is kept
        torch.testing.assert_close(part, whole[some], atol=1e-6, rtol=1e-6)


def test_pooling_is_that_of_m3d():
    """8 x 16 x 16 patches become 256 tokens (M3D), by torch's own pooling."""
    config = config_of("pooling")
    assert config.tokens((8, 16, 16), "volume") == 256
    features = torch.randn(2 * 2048, WIDTH)
    ours = average_blocks(features, [[8, 16, 16]] * 2, config.pool)
    theirs = F.avg_pool3d(features.view(2, 8, 16, 16, WIDTH).permute(0, 4, 1, 2, 3), 2)
    torch.testing.assert_close(ours, theirs.permute(0, 2, 3, 4, 1).reshape(512, WIDTH), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("grid", [(1, 3, 5), (3, 1, 2), (5, 7, 4), (1, 1, 1)])
@pytest.mark.parametrize("pool", [[2, 2, 2], [3, 1, 2]])
def test_blocks_that_are_not_whole_average_what_they_hold(grid, pool):
    features = torch.randn(math.prod(grid), WIDTH)
    ours = average_blocks(features, [list(grid)], pool)
    assert len(ours) == ProjectorConfig(kind="pooling", pool=pool).tokens(grid, "volume")
    cube = features.view(*grid, WIDTH)
    corners = itertools.product(*(range(0, size, step) for size, step in zip(grid, pool, strict=True)))
    blocks = [cube[z : z + pool[0], y : y + pool[1], x : x + pool[2]].flatten(0, 2).mean(0) for z, y, x in corners]
    torch.testing.assert_close(ours, torch.stack(blocks), atol=1e-6, rtol=1e-6)


def test_weights_of_the_mixture_sum_to_one():
    projector = projector_of("soft_moe")
    assert isinstance(projector, SoftMixtureOfExperts)
    x = torch.randn(2, 7, 4 * WIDTH)
    logits = projector.router(x)
    assert logits.shape == (2, 7, 12) and logits.abs().max() <= projector.router.scale.abs().max() + 1e-5
    assert dispatch_weights(logits).std() > 1e-3 and combine_weights(logits).std() > 1e-3
    torch.testing.assert_close(dispatch_weights(logits).sum(dim=1), torch.ones(2, 12))
    torch.testing.assert_close(combine_weights(logits).sum(dim=2), torch.ones(2, 7))


def test_the_mixture_is_the_formula_of_the_paper():
    """Algorithm 1 of arXiv:2308.00951 written out for one visual, experts in a loop, plus the linear map."""
    projector = projector_of("soft_moe")
    features, grids, kept, kinds = inputs_of(projector, [((2, 4, 4), VOLUME)])
    with torch.no_grad():
        x = projector.norm(features.view(8, 4 * WIDTH))
        phi = projector.router.slots / projector.router.slots.norm(dim=1, keepdim=True)
        logits = (x / x.norm(dim=1, keepdim=True)) @ (phi * projector.router.scale).T
        slots = (logits.exp() / logits.exp().sum(dim=0, keepdim=True)).T @ x
        answers = torch.cat([projector.experts[n // 4](slots[n : n + 1]) for n in range(12)])
        expected = (logits.exp() / logits.exp().sum(dim=1, keepdim=True)) @ answers + projector.skip(x)
        torch.testing.assert_close(projector(features, grids, kept, kinds), expected, atol=1e-5, rtol=1e-5)


def test_the_resampler_is_attention_over_patches_and_queries():
    """One layer by torch's own multi-head attention with the same weights."""
    torch.manual_seed(0)
    config = ProjectorConfig(
        kind="perceiver", hidden_size=32, queries=5, num_hidden_layers=1, num_attention_heads=2, initializer_range=0.3
    )
    projector = PerceiverResampler(config, WIDTH, TEXT).eval()
    features, grids, kept, kinds = inputs_of(projector, [((2, 3, 3), VOLUME)])
    layer = projector.layers[0]
    torchs = torch.nn.MultiheadAttention(WIDTH, 2, batch_first=True)
    own = layer.attention
    with torch.no_grad():
        torchs.in_proj_weight.copy_(torch.cat([own.q.weight, own.k.weight, own.v.weight]))
        torchs.out_proj.weight.copy_(own.out.weight)
        x = projector.queries.table.weight
        queries = layer.norm_queries(x)
        keys = torch.cat([layer.norm_patches(features), queries])
        x = x + torchs(queries[None], keys[None], keys[None])[0][0]
        x = x + layer.mlp["down"](layer.act(layer.mlp["up"](layer.norm(x))))
        expected = projector.out(projector.norm(x))
        torch.testing.assert_close(projector(features, grids, kept, kinds), expected, atol=1e-5, rtol=1e-5)


def test_queries_tell_patches_apart_but_not_their_order():
    """Learned queries read the set of patches: where they lie is in the encoder's features, not in their order."""
    for kind in RESAMPLERS:
        projector = projector_of(kind)
        features, grids, kept, kinds = inputs_of(projector, [((2, 3, 3), VOLUME)])
        with torch.no_grad():
            out = projector(features, grids, kept, kinds)
            shuffled = projector(features[torch.randperm(18)], grids, kept, kinds)
            changed = projector(features.index_fill(0, torch.tensor(4), 0), grids, kept, kinds)
        torch.testing.assert_close(out, shuffled, atol=1e-5, rtol=1e-5)
        assert (out - changed).abs().max() > 1e-3
        assert (out[0] - out[1]).abs().max() > 1e-3, "the queries must not all say the same"


# --- counting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_config_and_processor_count_alike(kind):
    config = config_of(kind)
    rule = GridRule(
        patch=(2, 8, 8), merge=tuple(config.merge), max_patches={}, max_depth={}, **(config.token_rule() or {})
    )
    again = ProjectorConfig(**json.loads(config.to_json_string()))
    assert again.to_dict() == config.to_dict()
    for grid, code in VISUALS:
        assert rule.tokens(grid, NAMES[code]) == config.tokens(grid, NAMES[code]) == again.tokens(grid, NAMES[code])


def test_counts_by_hand():
    assert [config_of(kind).tokens((4, 6, 6), "volume") for kind in KINDS] == [36, 36, 18, 9, 6]
    assert [config_of(kind).tokens((1, 6, 6), "image") for kind in KINDS] == [9, 9, 9, 5, 6]


def test_the_default_is_the_mlp_of_before():
    projector = build_projector(ProjectorConfig(hidden_size=48), WIDTH, TEXT)
    assert projector.config.merge == [1, 2, 2] and projector.config.token_rule() is None
    assert set(projector.state_dict()) == {
        f"{part}.{leaf}" for part in ("norm", "up", "down") for leaf in ("weight", "bias")
    }
    features = torch.randn(16, WIDTH)
    merged = projector.norm(features.view(4, 4 * WIDTH))
    expected = projector.down(F.gelu(projector.up(merged), approximate="tanh"))
    args = (torch.tensor([[2, 2, 4]]), torch.ones(4, dtype=torch.bool), torch.tensor([VOLUME]))
    assert torch.equal(projector(features, *args), expected)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "qformer"}, r"kind is 'qformer'; use one of mlp, soft_moe, pooling, perceiver, attention_pooling"),
        (
            {"kind": "perceiver", "merge": [1, 2, 2]},
            r"'perceiver' has no merge.*remove merge, or set kind to mlp or soft",
        ),
        ({"queries": 64}, r"'mlp' has no queries.*set kind to perceiver or attention_pooling"),
        ({"kind": "pooling", "pool": [2, 2]}, r"pool is \[2, 2\]; use three whole numbers"),
        ({"kind": "perceiver", "queries": {"image": 4}}, r"one for each of image, volume and video"),
        ({"kind": "perceiver", "queries": 0}, r"queries are 0; use one whole number above 0"),
        ({"kind": "soft_moe", "num_experts": 0}, r"num_experts is 0; use a whole number above 0"),
    ],
)
def test_settings_that_a_kind_does_not_have_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        ProjectorConfig(**settings)


@pytest.mark.parametrize("cls", [PerceiverResampler, AttentionPooling])
def test_heads_that_do_not_divide_the_encoder_are_refused(cls):
    kind = "perceiver" if cls is PerceiverResampler else "attention_pooling"
    config = ProjectorConfig(kind=kind, num_attention_heads=7)
    with pytest.raises(ValueError, match=r"encoder is 24 wide.*num_attention_heads 7; choose another number"):
        cls(config, WIDTH, TEXT)


# --- in the model ---------------------------------------------------------------------------------------------------


def processor_of(kind: str, **more) -> MedVLMProcessor:
    config = config_of(kind)
    return MedVLMProcessor(
        train_tokenizer(TEXTS, 400), patch_size=(2, 8, 8), merge=config.merge, projector=config.token_rule(),
        max_patches={"image": 64, "volume": 144, "video": 64}, max_depth={"volume": 8, "video": 4}, **more,
    )  # fmt: skip


def model_of(kind: str, processor: MedVLMProcessor):
    torch.manual_seed(0)
    size = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    text = {"model_type": "qwen3", "num_key_value_heads": 1, "head_dim": 16, **size}
    return build_model(
        {"patch_size": (2, 8, 8), **size}, {"kind": kind, "hidden_size": 32, **SETTINGS[kind]}, {"config": text},
        len(processor.tokenizer), processor.visual_token_id,
    ).eval()  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_packs_saves_and_generates(kind, conversations, tmp_path):
    processor = processor_of(kind)
    model = model_of(kind, processor)
    rendered = [processor.render(turns, [processor.patch(v) for v in shown]) for turns, shown in conversations]
    pack = collate([(str(n), [sample]) for n, sample in enumerate(rendered)])
    pack.check(visual_token_id=processor.visual_token_id)
    with torch.no_grad():
        together = model(**pack.model_inputs()).logits[0]
        for n, sample in enumerate(rendered):
            start, stop = pack.cu_seqlens[n : n + 2].tolist()
            alone = model(**collate([("alone", [sample])]).model_inputs()).logits[0]
            torch.testing.assert_close(together[start:stop], alone, atol=1e-5, rtol=1e-5)
    save_checkpoint(tmp_path / "checkpoint", model, processor)
    loaded, again = load_checkpoint(tmp_path / "checkpoint")
    assert again.rule == processor.rule and again.visual_settings() == processor.visual_settings()
    assert type(loaded.projector) is type(model.projector)
    prompt = {"messages": [a_chat(["image", "volume"], "Which zone?")], "visuals": [[an_image(), a_volume()]]}
    inputs = again(**prompt)
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model(**processor(**prompt)).logits)
    assert loaded.generate(**inputs, max_new_tokens=3, do_sample=False).shape[1] == inputs["input_ids"].shape[1] + 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_pack_of_text_runs_a_blank_visual_through_every_parameter(kind):
    processor = processor_of(kind)
    model = model_of(kind, processor).train()
    chat = processor.render(a_chat([], "Is there a pleural effusion?", "no"), [])
    batch = collate([("text", [chat])])
    model(**batch.model_inputs()).logits.sum().backward()
    for name, parameter in model.projector.named_parameters():
        assert parameter.grad is not None and not parameter.grad.any(), name


def test_a_processor_of_another_projector_is_refused():
    processor = processor_of("pooling")
    model = model_of("perceiver", processor)
    words = r"'kept' holds .* values, .* of kind 'perceiver' makes 5 tokens.*projector=config\.token_rule"
    with pytest.raises(ValueError, match=words):
        model(**processor(messages=[a_chat(["image"], "Which zone?")], visuals=[[an_image()]]))


def test_a_misspelt_setting_is_refused():
    with pytest.raises(ValueError, match=r"model\.projector has no setting merg; it has kind, hidden_size, merge"):
        own_projector_config({"merg": [2, 2, 2]})


def test_each_kind_of_visual_has_its_own_number_of_tokens():
    processor = processor_of("perceiver")
    assert [processor.patch(v).tokens for v in (an_image(), a_volume(), a_video())] == [5, 9, 7]
    assert [processor_of("attention_pooling").patch(v).tokens for v in (an_image(), a_volume())] == [6, 6]


def test_reduction_before_a_projector_that_makes_its_own_tokens_is_refused():
    for kind in ("perceiver", "attention_pooling", "pooling"):
        with pytest.raises(ValueError, match=r"makes its own tokens.*remove model\.processor\.reduction, or use.*mlp"):
            processor_of(kind, reduction={})
    assert processor_of("soft_moe", reduction={}).reduction == {}


ROLES = {
    "perceiver": {"projector.attention": 2 * 4, "projector.mlp": 2 * 2},
    "attention_pooling": {"projector.attention": 4, "projector.mlp": 2},
    "soft_moe": {"projector.mlp": 3 * 2},
    "pooling": {"projector.mlp": 2},
}


@pytest.mark.parametrize("kind", ROLES)
def test_adapters_find_the_roles(kind):
    model = model_of(kind, processor_of(kind))
    for target, count in ROLES[kind].items():
        assert len(lora_targets(model, (target,)).modules) == count


# --- training through the configuration file --------------------------------------------------------------------------

YAML = """\
name: tiny
output_dir: {output}
seed: 5
model:
  vision: {{hidden_size: 48, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 64,
           patch_size: [2, 16, 16]}}
  projector: {projector}
  text:
    config: {{model_type: qwen3, hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 1,
             head_dim: 16, intermediate_size: 64, max_position_embeddings: 1024, tie_word_embeddings: true}}
  tokenizer: {{train: {{vocab_size: 400}}}}
  processor: {{max_patches: {{image: 36, volume: 64, video: 64}}, max_depth: {{volume: 8, video: 4}}}}
data: {{root: {root}, tokens_per_pack: 512, patches_per_pack: 512, cache: true}}
engine: {{kind: accelerate, device: cpu}}
stages:
  - name: align
    mixture: [{{manifest: train_captions_2d.jsonl}}, {{manifest: train_3d.jsonl}}]
    learning_rate: {{vision: 1e-3, projector: 1e-3, text: 1e-3}}
    steps: 2
"""


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("projectors") / "data"
    write_phantoms(folder, patients=3, seed=3)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_two_steps_of_training(kind, phantoms, tmp_path):
    projector = json.dumps({"kind": kind, "hidden_size": 32, **SETTINGS[kind]})
    path = tmp_path / "tiny.yaml"
    path.write_text(YAML.format(output=tmp_path / "run", root=phantoms, projector=projector))
    assert run.main([str(path)]) == 0
    stages = tmp_path / "run" / "stages"
    before, after = (load_file(stages / name / "checkpoint" / "model.safetensors") for name in ("00-start", "01-align"))
    assert before.keys() == after.keys()
    same = [name for name in before if name.startswith("projector.") and torch.equal(before[name], after[name])]
    # A bias of the keys moves no softmax, so it has no gradient.
    assert all(name.endswith("attention.k.bias") for name in same), same
    rows = [json.loads(line) for line in (stages / "01-align" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2 and all(math.isfinite(row["loss"]) for row in rows)
    model, processor = load_checkpoint(stages / "01-align" / "checkpoint")
    assert model.config.projector_config.kind == kind
    assert processor.projector == model.config.projector_config.token_rule()
