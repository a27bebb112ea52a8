"""A loader of forty short texts, for tests of what a loader does with any samples."""

from conftest import a_chat

from medvlm.data_recipes.lengths import Lengths
from medvlm.data_recipes.loader import Loader
from medvlm.data_recipes.mixture import Mixture
from medvlm.data_recipes.pack_plan import PackPlan
from medvlm.data_recipes.packing import length_of
from medvlm.data_recipes.rows import Joined, ListRows


class Named(str):
    """A sample that is nothing but its name."""

    preference = None

    def __new__(cls, name):
        return super().__new__(cls, name)

    @property
    def sample_id(self):
        return str(self)


class TextOnly:
    """A renderer of ready samples: the loader asks nothing else of it."""

    def __init__(self, processor, rendered):
        self.processor, self.rendered = processor, rendered

    def sides(self, sample, shown=None):
        return (self.rendered[sample],)

    def length(self, sample):
        return length_of(self.sides(sample))


def loader_of(processor, rank, world, packs_per_step=1, workers=0, window=8192):
    names = [Named(f"s{i}") for i in range(40)]
    rendered = {n: processor.render(a_chat([], f"Is there a nodule {i}?", "yes"), []) for i, n in enumerate(names)}
    renderer = TextOnly(processor, rendered)
    rows = Joined([ListRows(names)])
    plan = PackPlan(
        mixture=Mixture(sizes=(40,), weights=(1.0,), seed=0),
        lengths=Lengths(rows, renderer.length), tokens_per_pack=100, patches_per_pack=1, window=window,
    )  # fmt: skip
    return Loader(rows, plan, renderer, packs_per_step=packs_per_step, rank=rank, world_size=world, workers=workers)
