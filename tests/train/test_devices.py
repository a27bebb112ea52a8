"""Published figures of accelerators, their names, and a peak that is measured."""

import json

import pytest
import torch

from medvlm.train.devices import ACCELERATORS, PEAK_FILE, called, measured_peak, named, peak_of


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100-80gb"),
        ("NVIDIA H100 PCIe", "h100-pcie-80gb"),
        ("NVIDIA H100 NVL", "h100-nvl-94gb"),
        ("NVIDIA H200", "h200-141gb"),
        ("NVIDIA H200 NVL", "h200-nvl-141gb"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA A100 80GB PCIe", "a100-80gb"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA A10G", "a10g-24gb"),
        ("NVIDIA A10", "a10-24gb"),
        ("NVIDIA L4", "l4-24gb"),
        ("NVIDIA L40S", "l40s-48gb"),
        ("NVIDIA L40", "l40-48gb"),
        ("NVIDIA RTX A6000", "rtx-a6000-48gb"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090-24gb"),
    ],
)
def test_drivers_names_are_known(driver, name):
    assert called(driver).name == name


@pytest.mark.parametrize(
    "driver", ["NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA GeForce RTX 4090 Laptop GPU", "Tesla V100"]
)
def test_a_part_of_a_card_or_an_unknown_one_has_no_published_peak(driver):
    assert called(driver) is None


def test_names_of_the_command_line():
    assert named("H100").name == "h100-80gb" and named("rtx_4090").name == "rtx-4090-24gb"
    with pytest.raises(ValueError, match="could be several; use one of a100-80gb, a100-40gb"):
        named("a100")
    with pytest.raises(ValueError, match="'h300' is unknown; use one of b200"):
        named("h300")
    assert len({card.name for card in ACCELERATORS}) == len(ACCELERATORS)


def test_a_measured_peak_is_kept_and_touches_no_random_number(tmp_path):
    cpu = torch.device("cpu")
    state = torch.get_rng_state()
    first = peak_of(cpu, torch.float32, tmp_path)
    assert torch.equal(state, torch.get_rng_state())
    assert first.flops > 1e8 and "measured matrix product, CPU" in first.source and "float32" in first.source
    assert peak_of(cpu, torch.float32, tmp_path) == first, "a resumed training compares with the same number"
    kept = json.loads((tmp_path / PEAK_FILE).read_text())
    peak_of(cpu, torch.bfloat16, tmp_path)
    assert set(kept) < set(json.loads((tmp_path / PEAK_FILE).read_text()))


def test_the_peak_is_not_below_what_a_product_reaches():
    size = 768
    a = torch.ones(size, size)
    import time

    best = 0.0
    for _ in range(3):
        began = time.perf_counter()
        a @ a
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    # The same product under the same load, up to its noise.
    assert measured_peak(torch.device("cpu"), torch.float32) > 0.3 * best
