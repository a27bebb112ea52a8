"""Packs reach the device whole and in order."""

import dataclasses

import pytest
import torch

from medvlm.data_recipes.packing import collate
from medvlm.train.objectives.contrastive import ContrastivePack
from medvlm.train.transfer import on_device


@pytest.fixture
def packs(processor, conversations):
    """Packs as they come, and one of an objective that adds tensors of its own."""
    made = [
        collate([(str(n), [processor.render(messages, [processor.patch(v) for v in visuals])])])
        for n, (messages, visuals) in enumerate(conversations)
    ]
    known = {field.name: getattr(made[0], field.name) for field in dataclasses.fields(made[0])}
    added = {
        name: torch.arange(3.0)
        for name in ("items", "text_tokens", "text_positions", "text_cu_seqlens", "losses", "hits", "pulls")
    }
    return [*made, ContrastivePack(**known, **added, pull_of_logits=torch.ones(2), random_state=("kept", None))]


def assert_same(found, packs, device) -> None:
    assert len(found) == len(packs)
    for one, other in zip(found, packs, strict=True):
        assert type(one) is type(other)
        for field in dataclasses.fields(other):
            value, expected = getattr(one, field.name), getattr(other, field.name)
            if isinstance(expected, torch.Tensor):
                assert value.device.type == device
                torch.testing.assert_close(value.cpu(), expected, rtol=0, atol=0, equal_nan=True)
            else:
                assert value == expected


def test_all_fields_arrive_in_order(packs):
    assert_same(list(on_device(packs, torch.device("cpu"))), packs, "cpu")


def test_no_pack_no_problem():
    assert list(on_device([], torch.device("cpu"))) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_is_copied_beside_a_computation_is_what_was_sent(packs):
    device = torch.device("cuda", torch.cuda.current_device())
    found, busy = [], torch.randn(4096, 4096, device=device)
    for pack in on_device(packs * 4, device):
        busy = torch.tanh(busy @ busy)
        # Read behind the computation, from memory that a later copy must not have taken.
        found.append(dataclasses.replace(pack, **{
            field.name: value.clone()
            for field in dataclasses.fields(pack)
            if isinstance(value := getattr(pack, field.name), torch.Tensor)
        }))  # fmt: skip
        del pack
    assert_same(found, packs * 4, "cuda")
