"""Every dataset that medvlm reads in its published layout. To add one: write its file, import it here."""

from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.recipes import (
    chestx_ray14,
    covid_blues,
    covid_chestxray,
    m3d_refseg,
    medicat,
    medquad,
    open_i,
    pubmedqa,
    slake,
    three_d_rad,
    vqa_med_2019,
    vqa_rad,
    vqa_rad_mevf,
)

RECIPES: tuple[Recipe, ...] = tuple(
    module.RECIPE
    for module in (
        vqa_rad,
        vqa_rad_mevf,
        covid_chestxray,
        covid_blues,
        open_i,
        slake,
        medquad,
        pubmedqa,
        three_d_rad,
        vqa_med_2019,
        medicat,
        m3d_refseg,
        chestx_ray14,
    )
)
