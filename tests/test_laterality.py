"""Left stays left: one phantom in nine files gives one tensor, and no augmentation turns a sample that names a side."""

import json
from dataclasses import replace

import nibabel
import numpy as np
import pydicom
import pytest
from nibabel.orientations import axcodes2ornt, ornt_transform
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from medvlm.data_recipes.laterality import Augmenter, mirrors, orientation_change, probe_like, side_word, turns
from medvlm.data_recipes.lengths import Lengths
from medvlm.data_recipes.loader import Loader
from medvlm.data_recipes.mixture import Mixture
from medvlm.data_recipes.pack_plan import PackPlan
from medvlm.data_recipes.packing import length_of
from medvlm.data_recipes.phantoms.anatomy import draw_body, place
from medvlm.data_recipes.phantoms.ct import render_ct
from medvlm.data_recipes.phantoms.patient import Finding, VirtualPatient
from medvlm.data_recipes.readers import read
from medvlm.data_recipes.rendering import Renderer
from medvlm.data_recipes.rows import Joined, ListRows
from medvlm.data_recipes.sample import VisualRef, read_jsonl
from medvlm.model.geometry import resize_image
from medvlm.model.processing import MedVLMProcessor
from medvlm.model.tokenizer import train_tokenizer
from medvlm.model.visual import Image, Video, Volume

SPACING = (9.0, 5.25, 5.125)


def left_sided_phantom() -> np.ndarray:
    """(D, H, W) int16 HU, axes to Superior, Posterior and Left; a mass in the left upper zone; no two axes alike."""
    rng = np.random.default_rng(4)
    body = draw_body(rng)
    finding = Finding(kind="mass", side="left", zone="upper", size_mm=60)
    spot = place(body, "mass", "left", "upper", None, 60, 1, rng)
    patient = VirtualPatient(
        patient_id="p", index=0, split="train", body=body, findings=(finding,), spots=(spot,), cine_findings=None
    )
    return render_ct(patient, SPACING, rng)[:, 4:60, 2:64]


HU = left_sided_phantom()


def processor() -> MedVLMProcessor:
    tokenizer = train_tokenizer(["Which side? left right"], 300)
    return MedVLMProcessor(tokenizer, patch_size=(2, 8, 8), max_patches={"volume": 512}, max_depth={"volume": 16})


def write_nifti(path, codes):
    """The phantom with its array axes running to ``codes``; nibabel turns it, not we."""
    z, y, x = SPACING
    affine = np.diag([-x, -y, z, 1.0])
    affine[:3, 3] = [100, 120, -80]
    lps = nibabel.Nifti1Image(np.ascontiguousarray(HU.transpose(2, 1, 0)), affine)
    stored = lps.as_reoriented(ornt_transform(axcodes2ornt("LPS"), axcodes2ornt(codes)))
    assert "".join(nibabel.aff2axcodes(stored.affine)) == codes
    nibabel.save(stored, path)


PLANES = {
    # plane: (axis of the slices, axis of the rows, of the columns; whether each is counted backwards)
    "axial": ((0, 1, 2), (False, False, False)),
    "axial, feet first": ((0, 1, 2), (True, False, False)),
    "axial, prone": ((0, 1, 2), (False, True, True)),
    "coronal": ((1, 0, 2), (False, True, False)),
    "sagittal": ((2, 0, 1), (False, True, False)),
    "sagittal, from the left": ((2, 0, 1), (True, True, True)),
}
UNIT = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], dtype=float)
"""DICOM direction (x to Left, y to Posterior, z to Superior) of the array axes S, P, L."""


def write_dicom(folder, plane, slope=1.0):
    """One file a slice in ``plane``, named and numbered in a shuffled order."""
    folder.mkdir()
    axes, backwards = PLANES[plane]
    signs = [-1.0 if back else 1.0 for back in backwards]
    stack = HU.transpose(axes)[tuple(slice(None, None, -1 if back else 1) for back in backwards)]
    down, right = signs[1] * UNIT[axes[1]], signs[2] * UNIT[axes[2]]
    corner = np.array([-100.0, -120.0, -80.0])
    for axis, back in zip(axes, backwards, strict=True):
        corner += UNIT[axis] * SPACING[axis] * ((HU.shape[axis] - 1) if back else 0)
    series = generate_uid()
    names = np.random.default_rng(7).permutation(len(stack))
    for k, pixels in enumerate(stack):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.SeriesInstanceUID = CTImageStorage, generate_uid(), series
        dataset.Modality, dataset.InstanceNumber = "CT", int(names[k]) + 1
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.PixelSpacing = [SPACING[axes[1]], SPACING[axes[2]]]
        dataset.ImageOrientationPatient = [*right, *down]
        dataset.ImagePositionPatient = [*(corner + k * signs[0] * SPACING[axes[0]] * UNIT[axes[0]])]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, -1024
        dataset.PixelData = np.rint((pixels.astype(float) + 1024) / slope).astype("<u2").tobytes()
        pydicom.dcmwrite(folder / f"{names[k]:03d}.dcm", dataset, enforce_file_format=True)


def load(path) -> Volume:
    options = {} if path.is_dir() else {"unit": "HU", "modality": "CT"}
    volume = read(VisualRef(kind="volume", path=path.name, options=options), path.parent)
    assert isinstance(volume, Volume)
    return volume


def test_the_phantom_itself_has_its_mass_on_the_left():
    solid = (HU[22:25, 26:32] > -100).mean(axis=(0, 1))  # of each column, right to left
    assert solid[41:46].mean() > 0.7 and solid[62 - 46 : 62 - 41].mean() < 0.1


@pytest.mark.parametrize("codes", ["LAS", "RAS", "LPS", "RPI", "PIR", "SAL"])
def test_nifti_of_any_orientation_is_one_tensor(codes, tmp_path):
    write_nifti(tmp_path / "x.nii.gz", codes)
    volume = load(tmp_path / "x.nii.gz")
    assert volume.orientation == "SPL"
    np.testing.assert_array_equal(volume.voxels, HU)
    np.testing.assert_allclose(volume.spacing_mm, SPACING, rtol=1e-6)
    assert_same_patches(volume)


@pytest.mark.parametrize("plane", PLANES)
def test_dicom_series_of_any_plane_and_file_order_is_one_tensor(plane, tmp_path):
    write_dicom(tmp_path / "series", plane)
    volume = load(tmp_path / "series")
    assert volume.orientation == "SPL" and volume.unit == "HU"
    np.testing.assert_array_equal(volume.voxels, HU)
    np.testing.assert_allclose(volume.spacing_mm, SPACING, rtol=1e-6)
    assert_same_patches(volume)


def test_a_rescale_slope_costs_half_a_step_and_no_side(tmp_path):
    write_dicom(tmp_path / "series", "coronal", slope=0.75)
    np.testing.assert_allclose(load(tmp_path / "series").voxels, HU, atol=0.375 + 1e-3)


def assert_same_patches(volume):
    """Bit for bit what the phantom itself gives: permutations and flips compute nothing."""
    truth = Volume(
        voxels=HU.astype(np.float32), modality="CT", unit="HU", spacing_mm=SPACING, orientation="SPL",
    )  # fmt: skip
    expected, found = processor().patch(truth), processor().patch(volume)
    assert found.grid == expected.grid
    np.testing.assert_array_equal(found.patches, expected.patches)
    np.testing.assert_allclose(found.spacing, expected.spacing, rtol=1e-6)


def test_a_file_whose_header_lies_about_its_side_is_seen_as_another(tmp_path):
    # So that the tests above could fail: the voxels are flipped and the affine is not.
    write_nifti(tmp_path / "x.nii.gz", "LAS")
    image = nibabel.load(tmp_path / "x.nii.gz")
    lie = np.ascontiguousarray(np.asanyarray(image.dataobj)[::-1])
    nibabel.save(nibabel.Nifti1Image(lie, image.affine), tmp_path / "y.nii.gz")
    assert not np.array_equal(load(tmp_path / "y.nii.gz").voxels, HU)


# --- augmentations --------------------------------------------------------------------------------------------

LIKE = {
    "volume": Volume(
        voxels=np.linspace(-1000, 1000, 7 * 20 * 24, dtype=np.float32).reshape(7, 20, 24), modality="CT", unit="HU"
    ),
    "image": Image(
        pixels=np.linspace(0, 1, 3 * 20 * 24, dtype=np.float32).reshape(3, 20, 24), modality="CR", unit="display"
    ),
    "video": Video(
        frames=np.linspace(0, 1, 5 * 20 * 24, dtype=np.float32).reshape(5, 1, 20, 24),
        times_s=np.arange(5.0), modality="US",
    ),
}  # fmt: skip
FIELD = {Volume: "voxels", Image: "pixels", Video: "frames"}


def on_array(change):
    """An augmentation out of a function of (array, generator)."""

    def transform(visual, rng):
        name = FIELD[type(visual)]
        return replace(visual, **{name: np.ascontiguousarray(change(getattr(visual, name), rng), dtype=np.float32)})

    return transform


def zoomed(array, rng):
    inner = array[..., 1:-1, 2:-2]
    return resize_image(inner, array.shape[-2:])


HARMLESS = {
    "nothing": on_array(lambda a, rng: a),
    "noise": on_array(lambda a, rng: a + 0.1 * a.std() * rng.standard_normal(a.shape)),
    "contrast": on_array(lambda a, rng: a * rng.uniform(0.7, 1.3) + 0.1 * a.std()),
    "negative": on_array(lambda a, rng: a.max() + a.min() - a),
    "shift": on_array(lambda a, rng: np.roll(a, int(rng.integers(-1, 2)), axis=-1)),
    "zoom": on_array(zoomed),
}
TURNING = {
    "left and right": on_array(lambda a, rng: a[..., ::-1]),
    "up and down": on_array(lambda a, rng: a[..., ::-1, :]),
    "half a turn": on_array(lambda a, rng: a[..., ::-1, ::-1]),
    "half of the time": on_array(lambda a, rng: a[..., ::-1] if rng.random() < 0.5 else a),
    "with a negative": on_array(lambda a, rng: a.max() + a.min() - a[..., ::-1]),
    "with noise": on_array(lambda a, rng: a[..., ::-1] + 0.1 * a.std() * rng.standard_normal(a.shape)),
    "blank": on_array(lambda a, rng: np.zeros_like(a)),
    "only noise": on_array(lambda a, rng: rng.standard_normal(a.shape)),
}


@pytest.mark.parametrize("kind", LIKE)
def test_every_turn_of_the_probe_is_told_from_every_other(kind):
    probe = probe_like(LIKE[kind])
    values = getattr(probe, FIELD[type(probe)])
    straight = orientation_change(probe, probe)
    assert straight is not None and not any(straight[1]) and list(straight[0]) == sorted(straight[0])
    for flipped in ((-1,), (-2,), (-1, -2)):
        turned = replace(probe, **{FIELD[type(probe)]: np.ascontiguousarray(np.flip(values, flipped))})
        order, flips = orientation_change(probe, turned)
        assert list(order) == sorted(order)
        assert [axis - len(flips) for axis, flip in enumerate(flips) if flip] == sorted(flipped)


@pytest.mark.parametrize("kind", LIKE)
def test_mirrors_are_found_and_harmless_changes_are_let_through(kind):
    assert {name for name, change in HARMLESS.items() if mirrors(change, LIKE[kind], draws=8)} == set()
    assert {name for name, change in TURNING.items() if not mirrors(change, LIKE[kind], draws=8)} == set()


def test_the_door_refuses_a_turn_only_where_a_side_is_named():
    flip = TURNING["left and right"]
    rng = np.random.default_rng(0)
    for visual in LIKE.values():
        with pytest.raises(ValueError, match=r"turns or mirrors a \w+ whose text says 'left'.*leave it out"):
            Augmenter(transforms=[flip])(visual, "A nodule in the left lung.", rng)
        seen = Augmenter(transforms=[flip])(visual, "Cells with large nuclei.", rng)
        name = FIELD[type(visual)]
        np.testing.assert_array_equal(getattr(seen, name), getattr(visual, name)[..., ::-1])


def test_a_rare_mirror_is_caught_the_first_time_that_it_happens():
    rare = on_array(lambda a, rng: a[..., ::-1] if rng.random() < 0.02 else a)
    visual, seen, refused = LIKE["image"], 0, 0
    for number in range(300):
        try:
            after = Augmenter(transforms=[rare])(visual, "left", np.random.default_rng(number))
        except ValueError:
            refused += 1
            continue
        seen += 1
        np.testing.assert_array_equal(after.pixels, visual.pixels)
    assert refused >= 1 and seen > 250


def test_an_augmentation_that_changes_the_size_is_refused():
    crop = on_array(lambda a, rng: a[..., 2:-2])
    with pytest.raises(ValueError, match=r"changes kind or size of a volume.*within its grid"):
        Augmenter(transforms=[crop])(LIKE["volume"], "no side here", np.random.default_rng(0))


@pytest.mark.parametrize(
    "text",
    [
        "Nodule in the LEFT lung", "right-sided effusion", "bilateral opacities", "RLL consolidation", "laterally",
        "左肺结节", "右侧胸腔积液", "双侧", "双肺纹理增多", "nódulo en el pulmón izquierdo", "derrame pleural derecho",
        "Rundherd links", "linksseitiger Erguss", "im rechten Oberlappen", "beidseits", "poumon gauche", "à droite",
        "épanchement du côté droit", "bilatéral", "derrame à esquerda", "pulmão direito", "polmone sinistro",
        "leftward shift", "leftsided", "left_lung", "counterclockwise", "levoscoliosis", "L lung", "OD", "Rt. base",
        '"bbox_2d": [1, 2, 3, 4]', "<|box_start|>(1,2),(3,4)<|box_end|>",
        "a destra", "bilaterale", "в левом лёгком", "правосторонний", "справа", "двусторонние изменения",
    ],
)  # fmt: skip
def test_words_of_a_side_are_known_in_eight_languages(text):
    assert side_word(text) is not None


@pytest.mark.parametrize(
    "text", ["The heart is enlarged.", "brightness", "无异常", "Herz vergrößert", "no finding", ""]
)
def test_other_words_name_no_side(text):
    assert side_word(text) is None


# --- what a training is given ---------------------------------------------------------------------------------


def sided_manifest(folder):
    """A volume and a picture that look different from every side, and text that names one."""
    volume, image = probe_like(LIKE["volume"]), probe_like(LIKE["image"])
    np.save(folder / "v.npy", np.kron(volume.voxels, np.ones((1, 2, 2), dtype=np.float32)))
    np.save(folder / "i.npy", np.kron(image.pixels[0], np.ones((2, 2), dtype=np.float32)))
    rows = []
    for number in range(6):
        kind, path = (("volume", "v.npy"), ("image", "i.npy"))[number % 2]
        options = {"unit": "HU", "modality": "CT"} if kind == "volume" else {"unit": "arbitrary", "modality": "CR"}
        part = {"type": kind, "path": path, "options": options}
        rows.append(
            {
                "sample_id": f"s{number}", "patient_id": f"p{number}", "study_id": "x", "source": "t", "licence": "CC0",
                "split": "train",
                "messages": [
                    {"role": "user", "content": [part, {"type": "text", "text": "Where is the nodule?"}]},
                    {"role": "assistant", "content": "In the left lung."},
                ],
            }
        )  # fmt: skip
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read_jsonl(folder / "train.jsonl"))


def assemble(patches, grid, rule) -> np.ndarray:
    """(P, patch_dim) -> (D, H, W) of the first channel: ``patches.cut`` backwards."""
    (t, h, w), (mt, mh, mw), (gt, gh, gw) = rule.patch, rule.merge, grid
    blocks = patches.reshape(gt // mt, gh // mh, gw // mw, mt, mh, mw, 3, t, h, w).transpose(
        6, 0, 3, 7, 1, 4, 8, 2, 5, 9
    )
    return blocks.reshape(3, gt * t, gh * h, gw * w)[0]


def turned_in_training(renderer, samples, rounds) -> list[str]:
    """Samples that a Loader, the only source of training packs, shows turned or mirrored."""
    lengths = tuple(length_of(renderer.sides(sample)) for sample in samples)
    rows = Joined([ListRows(samples)])
    plan = PackPlan(
        mixture=Mixture(sizes=(len(samples),), weights=(1.0,), seed=0), lengths=Lengths(rows, renderer.length),
        tokens_per_pack=max(n.tokens for n in lengths), patches_per_pack=max(n.patches for n in lengths),
    )  # fmt: skip
    loader, found = Loader(rows, plan, renderer, packs_per_step=1), []
    steps = loader.steps()
    by_id = {sample.sample_id: sample for sample in samples}
    for _ in range(rounds * len(list(plan.round(0)))):
        (pack,) = next(steps)
        pieces = pack.patches.split(pack.grids.prod(dim=1).tolist())
        for name, grid, patches in zip(pack.sample_ids, pack.grids.tolist(), pieces, strict=True):
            # From the file, past the renderer: what trains is under test.
            whole = renderer.processor.patch(read(by_id[name].visuals()[0], renderer.root))
            arrays = [assemble(p, grid, renderer.processor.rule) for p in (whole.patches, patches.numpy())]
            one, other = (Volume(voxels=values, modality="CT", unit="arbitrary") for values in arrays)
            change = orientation_change(one, other)
            if change is None or any(change[1]) or list(change[0]) != sorted(change[0]):
                found.append(name)
    steps.close()
    return found


def test_no_sample_that_names_a_side_is_turned_in_training(tmp_path):
    samples = sided_manifest(tmp_path)
    renderer = Renderer(processor(), tmp_path)
    assert turned_in_training(renderer, samples, rounds=5) == []


def test_a_planted_mirror_is_seen_by_that_test(tmp_path):
    class Mirroring(Renderer):
        def _visual(self, key, ref):
            visual = super()._visual(key, ref)
            rule = self.processor.rule
            values = assemble(visual.patches, visual.grid, rule)[:, :, ::-1]
            return (
                self.processor.patch(Volume(voxels=np.ascontiguousarray(values), modality="CT", unit="arbitrary"))
                if ref.kind == "volume"
                else visual
            )

    samples = sided_manifest(tmp_path)
    found = turned_in_training(Mirroring(processor(), tmp_path), samples, rounds=1)
    assert sorted(found) == ["s0", "s2", "s4"]


def test_a_mirror_where_files_are_read_is_seen_by_that_test(tmp_path, monkeypatch):
    def mirrored(ref, root, processor):
        visual = read(ref, root)
        if not isinstance(visual, Volume):
            return visual
        return replace(visual, voxels=np.ascontiguousarray(visual.voxels[:, :, ::-1]))

    monkeypatch.setattr("medvlm.data_recipes.rendering.read_for", mirrored)
    samples = sided_manifest(tmp_path)
    assert sorted(turned_in_training(Renderer(processor(), tmp_path), samples, rounds=1)) == ["s0", "s2", "s4"]


def test_the_seed_decides_and_the_draw_of_the_probe_is_the_draw_of_the_visual():
    half = TURNING["half of the time"]
    seeds = [seed for seed in range(20) if turns(half, LIKE["volume"], seed)]
    assert seeds == [seed for seed in range(20) if np.random.default_rng(seed).random() < 0.5] and 0 < len(seeds) < 20
