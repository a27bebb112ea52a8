"""A model that was trained further under the same path does not go on in the run folder of what it was before."""

import torch

from medvlm.eval.loaded_model import weights_name


def test_weights_are_told_apart_by_training_and_not_by_place():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(300, 200), torch.nn.LayerNorm(200))
    before = weights_name(model)
    assert before == weights_name(model) and len(before) == 16
    model(torch.randn(4, 300)).sum().backward()
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    assert weights_name(model) != before
    assert weights_name(model.to(torch.bfloat16)) != before
    assert weights_name(torch.nn.Linear(1, 0)) != before, "a tensor without values does no harm"
