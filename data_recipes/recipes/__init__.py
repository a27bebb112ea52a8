"""Every dataset that medvlm reads in its published layout. To add one: write its file, import it here."""

from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.recipes import (
    chestx_ray14,
    chexpert_plus,
    covid_blues,
    covid_chestxray,
    ct_rate,
    kvasir_vqa,
    m3d_cap,
    m3d_refseg,
    m3d_vqa,
    medicat,
    medmnist,
    medpix,
    medqa,
    medquad,
    mimic_cxr,
    open_i,
    path_vqa,
    pmc_vqa,
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
        medmnist,
        medpix,
        ct_rate,
        medqa,
        mimic_cxr,
        chexpert_plus,
        path_vqa,
        pmc_vqa,
        kvasir_vqa,
        m3d_cap,
        m3d_vqa,
    )
)
