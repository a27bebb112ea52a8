"""FLOPs: torch's own counter is the oracle, on the models that are counted."""

import pytest
from conftest import a_chat, an_image, tiny_model
from external_families import make_checkpoint
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from medvlm.data_recipes.packing import collate
from medvlm.model import build_model
from medvlm.model.flops import PARTS, Flops, model_flops, training_flops
from medvlm.model.loading import empty_model, load_checkpoint
from medvlm.train.assemble import set_trainable
from medvlm.train.config import LearningRates, Lora, Source, Stage

TEXT = {
    "model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 4, "head_dim": 32, "intermediate_size": 128,
}  # fmt: skip
VISION = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128,
          "patch_size": (2, 8, 8)}  # fmt: skip


def packed(processor, conversations):
    rendered = [processor.render(turns, [processor.patch(v) for v in visuals]) for turns, visuals in conversations]
    return collate([(str(i), [r]) for i, r in enumerate(rendered)])


def counted(model, batch, training=False):
    """FlopCounterMode, to which a causal square counts whole; it does not see the fused attention of a CPU."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        where = (batch.targets >= 0).nonzero().squeeze(1)
        logits = model(**batch.model_inputs(), logits_to_keep=where).logits
        if training:
            logits.sum().backward()
    return counter


def whole_squares(flops, batch):
    """What the counter says of the decoder: all of the square, not the half that causal attention computes."""
    squares = float((batch.cu_seqlens.diff().double() ** 2).sum())
    return Flops(linear=flops.linear, attention=batch_pairs(batch, squares, flops.attention))


def batch_pairs(batch, squares, attention):
    lengths = batch.cu_seqlens.diff().double()
    return attention * squares / float((lengths * (lengths + 1) / 2).sum())


@pytest.mark.parametrize(
    ("vision", "projector"),
    [
        ({}, {}),
        ({"depth_window": 1, "prefix_tokens": 3, "mlp": "gated"}, {"kind": "pooling"}),
        ({}, {"kind": "perceiver", "queries": {"image": 8, "volume": 12, "video": 6}, "num_hidden_layers": 2,
              "num_attention_heads": 4}),
        ({}, {"kind": "soft_moe", "num_experts": 2, "slots_per_expert": 3}),
        ({}, {"kind": "attention_pooling", "queries": 8, "num_attention_heads": 4}),
    ],
)  # fmt: skip
def test_a_pack_costs_what_the_counter_of_torch_says(processor, conversations, vision, projector):
    model = build_model(
        {**VISION, **vision}, {"hidden_size": 96, **projector}, {"config": TEXT}, len(processor.tokenizer),
        processor.visual_token_id,
    ).eval()  # fmt: skip
    rule = model.config.projector_config
    own = type(processor)(
        processor.tokenizer, patch_size=(2, 8, 8), max_patches=processor.max_patches, max_depth=processor.max_depth,
        merge=rule.merge, projector=rule.token_rule(),
    )  # fmt: skip
    batch = packed(own, conversations)
    counter = counted(model, batch)
    seen = {name: sum(of.values()) for name, of in counter.get_flop_counts().items()}
    own_name = type(model).__name__
    flops = model_flops(model).of_pack(batch)
    assert list(flops) == list(PARTS)
    # Rotary angles are products of tiny matrices, which nobody counts.
    assert seen[f"{own_name}.vision"] == pytest.approx(flops["vision"].total, rel=1e-3)
    assert seen[f"{own_name}.projector"] == pytest.approx(flops["projector"].total, rel=1e-6)
    text = whole_squares(flops["text"], batch).total + flops["head"].total
    assert seen[f"{own_name}.text"] == pytest.approx(text, rel=1e-6)
    assert model_flops(empty_model(model.config)).of_pack(batch) == flops, "without weights it is the same"


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl", "llava_onevision"])
def test_existing_models_are_counted_too(family, tmp_path):
    model, processor = load_checkpoint(make_checkpoint(family, tmp_path / family))
    batch = packed(processor, [(a_chat(["image"], "nodule?", "yes"), [an_image(1)]), (a_chat([], "x", "left"), [])])
    counter = counted(model.eval(), batch)
    flops = model_flops(model).of_pack(batch)
    predicted = flops["vision"].total + flops["projector"].total + flops["head"].total
    predicted += whole_squares(flops["text"], batch).total
    assert counter.get_total_flops() == pytest.approx(predicted, rel=0.05)


@pytest.mark.parametrize("trained", [("projector",), ("projector", "text"), ("vision", "projector", "text"), ()])
def test_a_backward_pass_costs_what_the_counter_says(processor, conversations, trained):
    model = build_model(VISION, {"hidden_size": 96}, {"config": TEXT}, len(processor.tokenizer),
                        processor.visual_token_id)  # fmt: skip
    rates = LearningRates(**dict.fromkeys(trained, 1e-3))
    lora = None if trained else Lora(rank=1, alpha=1.0)
    set_trainable(model, Stage(name="s", mixture=(Source(manifest="m"),), steps=1, learning_rate=rates, lora=lora))
    batch = packed(processor, conversations)
    counter = counted(model.train(), batch, training=True)
    flops = model_flops(model).of_pack(batch)
    whole = flops | {"text": whole_squares(flops["text"], batch)}
    predicted = training_flops(whole, trained, adapted=() if trained else ("text",))
    # The first layer that trains passes no gradient on, and adapters of rank 1 add a little.
    assert counter.get_total_flops() == pytest.approx(predicted, rel=0.06)
    assert predicted > 1.5 * sum(part.total for part in flops.values())


def test_experts_count_as_those_that_a_token_is_sent_to(processor):
    mixture = {
        "model_type": "qwen3_moe", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 32, "num_experts": 8, "num_experts_per_tok": 2,
        "moe_intermediate_size": 32, "intermediate_size": 128, "decoder_sparse_step": 1, "mlp_only_layers": [],
    }  # fmt: skip
    few = model_flops(tiny_model(processor, **mixture))
    more = model_flops(tiny_model(processor, **{**mixture, "num_experts": 16}))
    router = 2 * 8 * 64
    assert more.token - few.token == router, "eight more experts cost their rows in the router only"
    all_of_them = model_flops(tiny_model(processor, **{**mixture, "num_experts_per_tok": 4}))
    assert all_of_them.token - few.token == 2 * 2 * 3 * 64 * 32
