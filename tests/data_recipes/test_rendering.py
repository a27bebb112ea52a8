"""The length that headers tell is the length that pixels have, for every kind of visual and sample."""

import pickle
import sys
import threading

import numpy as np
import pytest
from conftest import TEXTS
from PIL import Image as Picture

from medvlm.data_recipes.packing import length_of
from medvlm.data_recipes.rendering import Renderer
from medvlm.data_recipes.sample import Preference, Sample, Turn, VisualRef
from medvlm.model.processing import MedVLMProcessor
from medvlm.model.tokenizer import train_tokenizer

HU = {"unit": "HU", "modality": "CT", "spacing_mm": [8, 5, 5], "orientation": "SPL"}


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    Picture.fromarray(rng.integers(0, 255, (75, 130), dtype=np.uint8)).save(tmp_path / "a.png")
    Picture.fromarray(rng.integers(0, 255, (600, 400, 3), dtype=np.uint8)).save(tmp_path / "b.jpg")
    np.save(tmp_path / "c.npy", rng.normal(-300, 400, (12, 48, 40)).astype(np.float32))
    return tmp_path


A, B = VisualRef(kind="image", path="a.png"), VisualRef(kind="image", path="b.jpg")
C = VisualRef(kind="volume", path="c.npy", options=HU)


def sample(*visuals, preference=None):
    turns = [Turn(role="user", content=(*visuals, "Is there a pleural effusion?"))]
    answer = Turn(role="assistant", content=("no effusion",))
    return Sample(
        sample_id="s", patient_id="p", study_id="p", source="t", licence="CC0", split="train",
        turns=tuple(turns) if preference else (*turns, answer), preference=preference,
    )  # fmt: skip


def pair(*other):
    chosen, rejected = (Turn(role="assistant", content=(text,)) for text in ("yes", "no, there is none"))
    whole = (Turn(role="user", content=(*other, "Is there a pleural effusion?")), rejected)
    return Preference(chosen=(chosen,), rejected=whole if other else (rejected,), made_by="test")


SAMPLES = {
    "text": sample(), "image": sample(A), "colour": sample(B), "volume": sample(C), "several": sample(A, C, B),
    "twice the same": sample(A, A), "pair": sample(A, preference=pair()), "other image": sample(A, preference=pair(C)),
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLES)
def test_the_length_from_headers_is_the_length_of_the_rendered(folder, processor, name):
    told = Renderer(processor, folder).length(SAMPLES[name])
    assert told == length_of(Renderer(processor, folder).sides(SAMPLES[name]))
    # A header alone was read: no patches are kept.
    renderer = Renderer(processor, folder)
    renderer.length(SAMPLES[name])
    assert not renderer._memory


def test_a_length_that_depends_on_the_content_is_measured_by_it(folder):
    processor = MedVLMProcessor(
        train_tokenizer(TEXTS, 400), patch_size=(2, 8, 8), max_patches={"image": 64, "volume": 144},
        max_depth={"volume": 8}, reduction={"background": True},
    )  # fmt: skip
    np.save(
        folder / "c.npy",
        np.pad(np.zeros((12, 24, 20), np.float32), ((0, 0), (12, 12), (10, 10)), constant_values=-1000),
    )
    renderer = Renderer(processor, folder)
    assert renderer.length(SAMPLES["volume"]) == length_of(renderer.sides(SAMPLES["volume"]))
    assert renderer.length(SAMPLES["volume"]).visual_tokens < renderer.length(SAMPLES["volume"]).visual_tokens_made


def test_a_visual_of_a_pack_is_one_object_whatever_memory_lets_go(folder, processor):
    renderer = Renderer(processor, folder, memory_bytes=1)
    shown = {}
    first, other, again = (renderer.sides(SAMPLES[name], shown)[0] for name in ("image", "volume", "image"))
    assert first.visuals[0] is again.visuals[0] and first.visuals[0] is not other.visuals[0]
    assert len(renderer._memory) == 1


def test_a_thread_that_measures_and_one_that_reads_share_the_memory(folder, processor):
    rng = np.random.default_rng(1)
    refs = [VisualRef(kind="image", path=f"{n}.png") for n in range(12)]
    for ref in refs:
        Picture.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8)).save(folder / ref.path)
    renderer, failed = Renderer(processor, folder), []
    renderer.memory_bytes = 6 * renderer.visual(refs[0]).patches.nbytes

    def read(seed):
        try:
            for n in np.random.default_rng(seed).integers(0, len(refs), 1500):
                renderer.visual(refs[n])
        except KeyError as error:
            failed.append(error)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(2)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not failed
    assert renderer._held == sum(visual.patches.nbytes for visual in renderer._memory.values()) <= renderer.memory_bytes


def test_a_renderer_goes_to_another_process_without_its_memory(folder, processor):
    renderer = Renderer(processor, folder)
    renderer.sides(SAMPLES["volume"])
    again = pickle.loads(pickle.dumps(renderer))
    assert renderer._memory and not again._memory
    one, other = renderer.sides(SAMPLES["several"])[0], again.sides(SAMPLES["several"])[0]
    assert np.array_equal(one.tokens, other.tokens)
    assert all(np.array_equal(a.patches, b.patches) for a, b in zip(one.visuals, other.visuals, strict=True))
