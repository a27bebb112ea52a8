"""A fixture for each of the eight datasets that prove what a Recipe can hold, and what is said when it is spoilt."""

from recipe_fixtures import chestx_ray14, ct_rate, medmnist, medpix, medqa, open_i, slake, vqa_rad
from recipe_fixtures.writing import Fixture

FIXTURES: tuple[Fixture, ...] = tuple(
    module.FIXTURE for module in (open_i, vqa_rad, slake, medmnist, medpix, ct_rate, chestx_ray14, medqa)
)
