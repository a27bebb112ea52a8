"""The attention that a stage runs is told, can be forced, and refuses what cannot run."""

import pytest
import torch

from medvlm.data_recipes.packing import collate
from medvlm.data_recipes.typed_yaml import BadConfig
from medvlm.model.log_probabilities import summed_log_probability
from medvlm.train.attention import choose_attention
from medvlm.train.config import EngineConfig

CPU = torch.device("cpu")


def test_on_a_cpu_samples_are_attended_one_by_one(model):
    assert choose_attention(model, EngineConfig(device="cpu"), CPU) == "encoder sdpa, decoder sdpa_packed"


def test_forced_attention_gives_the_same_loss(model, processor, conversations):
    pack = collate([
        (str(n), [processor.render(messages, [processor.patch(v) for v in visuals])])
        for n, (messages, visuals) in enumerate(conversations)
    ])  # fmt: skip
    right = summed_log_probability(model, pack)
    told = choose_attention(model, EngineConfig(device="cpu", attention="eager"), CPU)
    assert told == "encoder eager, decoder eager"
    torch.testing.assert_close(summed_log_probability(model, pack), right, atol=1e-3, rtol=1e-5)
    assert choose_attention(model, EngineConfig(device="cpu", attention="sdpa"), CPU).endswith("sdpa_packed")
    assert torch.equal(summed_log_probability(model, pack), right)


def test_flash_attention_is_refused_where_it_cannot_run(model):
    with pytest.raises(BadConfig, match="CUDA"):
        choose_attention(model, EngineConfig(device="cpu", attention="flash_attention_2"), CPU)
