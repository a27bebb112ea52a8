"""The supervised loss against that of transformers, and any split into packs against one pack."""

import pytest
import torch

from medvlm.data_recipes.packing import collate
from medvlm.model.batch import IGNORED
from medvlm.train.objectives.supervised import Supervised


def rendered(processor, conversations):
    return [
        (str(n), [processor.render(messages, [processor.patch(v) for v in visuals])])
        for n, (messages, visuals) in enumerate(conversations)
    ]


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("number", range(5))
def test_supervised_loss_is_the_labels_loss_of_transformers(processor, model, conversations, number):
    name, sides = rendered(processor, conversations)[number]
    batch = collate([(name, sides)])
    labels = torch.full_like(batch.tokens, IGNORED)
    labels[1:] = batch.targets[:-1]
    inputs = {k: v for k, v in batch.model_inputs().items() if k != "cu_seqlens"}
    objective = Supervised()
    loss = objective(model, batch).total / objective.count(batch)
    assert loss.item() == pytest.approx(model(**inputs, labels=labels[None]).loss.item(), rel=1e-6)
    # The decoder's own loss function, given the embeddings: no code of ours computes it.
    embeds = model._embed(batch.tokens[None], tuple(inputs.get(k) for k in list(inputs)[2:]))
    assert loss.item() == pytest.approx(model.text(inputs_embeds=embeds, labels=labels[None]).loss.item(), rel=1e-6)


def test_any_split_into_packs_gives_the_same_gradient(processor, model, conversations):
    samples, objective, found = rendered(processor, conversations), Supervised(), []
    count = objective.count(collate(samples))
    for split in ([[0, 1, 2, 3, 4]], [[0], [1], [2], [3], [4]], [[4, 0], [2, 1, 3]]):
        model.train().zero_grad(set_to_none=True)
        packs = [collate([samples[i] for i in part]) for part in split]
        assert sum(objective.count(pack) for pack in packs) == count
        losses = [objective(model, pack).total / count for pack in packs]
        for loss in losses:
            loss.backward()
        found.append((sum(loss.item() for loss in losses), gradients(model)))
    for loss, gradient in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-6)
        for name, expected in found[0][1].items():
            scale = max(float(expected.abs().max()), 1e-3)
            torch.testing.assert_close(gradient[name], expected, atol=2e-6 * scale, rtol=0, msg=name)
