"""Existing vision-language families: the same logits as the library, alone and in a pack, forward and gradients."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from conftest import a_chat, a_video, a_volume, an_image
from external_families import FAMILY_NAMES, image_processor_of, make_checkpoint
from transformers import AutoModelForImageTextToText

from medvlm.data_recipes.packing import collate
from medvlm.model import Image, Video, Volume, load_checkpoint
from medvlm.model.external.pictures import pictures_of
from medvlm.model.external.processing import ExternalProcessor
from medvlm.model.external.settings import ExternalSettings
from medvlm.model.external.shell import ExternalVLM
from medvlm.model.loading import checkpoint_config, empty_model, load_processor, save_checkpoint
from medvlm.model.packed_attention import NAME as PACKED

BUDGET = {"volume": 4, "video": 4}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {family: make_checkpoint(family, root / family) for family in FAMILY_NAMES}


def processor_at(folder: Path, **settings: Any) -> ExternalProcessor:
    return ExternalProcessor.from_pretrained(folder, max_depth=BUDGET, **settings)


def five_chats() -> list[tuple[list[dict], list]]:
    return [
        (a_chat(["image"], "Is there a nodule?", "yes"), [an_image(1)]),
        (a_chat(["volume"], "On which side is the mass?", "left"), [a_volume(2)]),
        (a_chat(["video"], "Is there an effusion?", "no"), [a_video(3)]),
        (a_chat([], "Is there a pleural effusion?", "moderate"), []),
        (a_chat(["image", "volume"], "Which zone?", "right lower zone"), [an_image(4, 90, 40), a_volume(5, 20)]),
    ]


def rendered_chats(processor: ExternalProcessor) -> list:
    return [processor.render(chat, [processor.patch(v) for v in visuals]) for chat, visuals in five_chats()]


def logits_of(model: ExternalVLM, rendered: list) -> torch.Tensor:
    pack = collate([(str(number), [one]) for number, one in enumerate(rendered)])
    return model(**pack.model_inputs()).logits[0]


# --- the oracle: the library's own processor and model, called plainly ----------------------------------------------


def library_processor(family: str, processor: ExternalProcessor) -> Any:
    """The family's processor class. Those with a clip processor cannot be made without torchvision: theirs is left
    out, and everything else runs as it is."""
    kind = getattr(transformers, {
        "qwen2_5_vl": "Qwen2_5_VLProcessor", "qwen3_vl": "Qwen3VLProcessor", "internvl": "InternVLProcessor",
        "llava_onevision": "LlavaOnevisionProcessor", "gemma3": "Gemma3Processor",
    }[family])  # fmt: skip
    made = kind.__new__(kind)
    made.image_processor, made.tokenizer, made.video_processor = processor.image_processor, processor.tokenizer, None
    made.chat_template = processor.tokenizer.chat_template
    tokenizer = processor.tokenizer
    config = processor.config
    made.image_token = tokenizer.convert_ids_to_tokens(config.image_token_id)
    made.image_token_id = config.image_token_id
    made.video_token = None
    if family == "gemma3":
        return kind(processor.image_processor, tokenizer, tokenizer.chat_template, image_seq_length=4)
    if family == "internvl":
        made.start_image_token, made.end_image_token, made.image_seq_length = "<img>", "</img>", 4
    if family == "llava_onevision":
        made.num_image_tokens, made.vision_feature_select_strategy = 16, "full"
        made.vision_aspect_ratio = "anyres_max_9"
    return made


def library_logits(
    family: str, folder: Path, processor: ExternalProcessor, chat: list[dict], pictures: list[np.ndarray], **images: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and logits by the library alone: template, expansion of placeholders, pixels, positions, model."""
    library = library_processor(family, processor)
    text = processor.tokenizer.apply_chat_template(chat, tokenize=False)
    if family == "llava_onevision":
        images["do_pad"] = True
        pictures = [pictures]  # type: ignore[list-item]
    pixels = processor.image_processor(images=pictures, return_tensors="pt", **images)
    count = len(pictures[0]) if family == "llava_onevision" else len(pictures)
    mark = "<start_of_image>" if family == "gemma3" else library.image_token
    pieces = text.split(mark)
    assert len(pieces) == count + 1
    for number in range(count):
        pieces[number] += library.replace_image_token(pixels, image_idx=number)
    ids = processor.tokenizer("".join(pieces), add_special_tokens=False, return_tensors="pt")["input_ids"]
    inputs: dict[str, Any] = {
        key: pixels[key]
        for key in ("pixel_values", "image_grid_thw", "image_sizes", "batch_num_images")
        if key in pixels
    }
    is_image = (ids == processor.config.image_token_id).long()
    if family.startswith("qwen"):
        inputs["mm_token_type_ids"] = is_image
    if family == "gemma3":
        inputs["token_type_ids"] = is_image
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return ids[0], model(input_ids=ids, attention_mask=torch.ones_like(ids), **inputs).logits[0]


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_one_image_gives_the_ids_and_logits_of_the_library(family, folders):
    processor, model = processor_at(folders[family]), load_checkpoint(folders[family])[0]
    image = an_image(7, 50, 90)
    picture = np.repeat((image.pixels * 255).round().astype(np.uint8).transpose(1, 2, 0), 3, axis=2)
    chat = a_chat(["image"], "Is there a nodule?", "yes")
    options = {"crop_to_patches": True} if family == "internvl" else {}
    ids, logits = library_logits(family, folders[family], processor, chat, [picture], **options)
    rendered = processor.render(chat, [processor.patch(image)])
    assert rendered.tokens.tolist() == ids.tolist()
    with torch.no_grad():
        ours = logits_of(model, [rendered])
    assert logits.abs().max() > 0.5
    torch.testing.assert_close(ours, logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_the_slices_of_a_volume_are_the_librarys_images(family, folders):
    """The caller of the library windows the slices and writes where they lie; we do it from the volume."""
    processor, model = processor_at(folders[family]), load_checkpoint(folders[family])[0]
    voxels = np.random.default_rng(3).normal(-200, 500, (8, 40, 40)).astype(np.float32)
    volume = Volume(voxels=voxels, modality="CT", unit="HU", spacing_mm=(5.0, 2.0, 2.0), orientation="SPL")
    chosen = [1, 3, 5, 7]
    windows = processor.settings.rule.windows
    pictures = [
        np.stack([((voxels[k] - low) / (high - low)).clip(0, 1) * 255 for low, high in windows], -1).round()
        for k in chosen
    ]
    parts = [p for z in (5, 15, 25, 35) for p in ({"type": "text", "text": f"z = {z}.0 mm"}, {"type": "image"})]
    chat = [{"role": "user", "content": [*parts, {"type": "text", "text": "left or right?"}]}]
    options: dict[str, Any] = {"crop_to_patches": False} if family == "internvl" else {}
    ids, logits = library_logits(
        family, folders[family], processor, chat, [p.astype(np.uint8) for p in pictures], **options
    )
    rendered = processor.render(a_chat(["volume"], "left or right?"), [processor.patch(volume)])
    assert rendered.tokens.tolist() == ids.tolist()
    with torch.no_grad():
        torch.testing.assert_close(logits_of(model, [rendered]), logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_a_clip_is_cut_as_the_library_cuts_it(family):
    """Rows against the library's own rule for clips, written with one reshape; its processor needs torchvision."""
    from medvlm.model.external.families import FAMILIES

    config = SimpleNamespace(
        vision_config=SimpleNamespace(
            temporal_patch_size=2, patch_size=image_processor_of(family).patch_size, in_channels=3, spatial_merge_size=2
        )
    )
    kind, processor = FAMILIES[family](config), image_processor_of(family)  # type: ignore[arg-type]
    side = processor.patch_size * 2
    frames = np.random.default_rng(0).integers(0, 255, (3, side, 2 * side, 3), dtype=np.uint8)
    settings = ExternalSettings(max_depth={"video": 3})
    pictures = SimpleNamespace(rgb=frames, shown="clip", spacing=(0.5, np.nan, np.nan))
    cut = kind.cut(pictures, processor, 100 * side * side)  # type: ignore[arg-type]
    assert settings.max_depth["video"] == 3 and cut.grid == (2, 2, 4)
    scaled = (frames / 255 - np.asarray(processor.image_mean)) / np.asarray(processor.image_std)
    clip = np.concatenate([scaled, scaled[-1:]]).transpose(0, 3, 1, 2)  # (4, 3, H, W)
    p = processor.patch_size
    rows = clip.reshape(2, 2, 3, 1, 2, p, 2, 2, p).transpose(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(-1, 6 * p * p)
    np.testing.assert_allclose(cut.patches, rows, atol=1e-5)


# --- packs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("volumes", ["slices", "video"])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_packed_equals_alone_forward(family, volumes, folders):
    if family == "gemma3" and volumes == "video":
        pytest.skip("Gemma 3 has no path for clips")
    processor, model = processor_at(folders[family], volumes=volumes), load_checkpoint(folders[family])[0]
    rendered = rendered_chats(processor)
    with torch.no_grad():
        together = logits_of(model, rendered).split([len(one.tokens) for one in rendered])
        for one, part in zip(rendered, together, strict=True):
            torch.testing.assert_close(part, logits_of(model, [one]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("implementation", ["sdpa_packed", "eager"])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_packed_equals_alone_gradient(family, implementation, folders):
    processor, model = processor_at(folders[family]), load_checkpoint(folders[family])[0]
    decoder = model.model.model.language_model
    assert decoder.config._attn_implementation == (PACKED if family != "gemma3" else "sdpa")
    if implementation == "eager":
        model.model.set_attn_implementation("eager")
    rendered = rendered_chats(processor)
    logits_of(model, rendered).square().sum().backward()
    packed = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for one in rendered:
        logits_of(model, [one]).square().sum().backward()
    alone = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert packed.keys() == alone.keys() and any("vis" in name for name in packed)
    largest = max(gradient.abs().max() for gradient in alone.values())
    for name, gradient in alone.items():
        # The gradient of a key's bias is zero but for rounding: it is measured by the others.
        scale = torch.maximum(gradient.abs().max(), 1e-4 * largest)
        assert ((packed[name] - gradient).abs().max() / scale) < 1e-4, name


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_planted_leak_is_seen(family, folders):
    """Two samples joined into one segment attend to each other: the comparison above would fail."""
    processor, model = processor_at(folders[family]), load_checkpoint(folders[family])[0]
    rendered = rendered_chats(processor)[:2]
    pack = collate([(str(number), [one]) for number, one in enumerate(rendered)])
    inputs = pack.model_inputs()
    with torch.no_grad():
        right = model(**inputs).logits
        leaking = {**inputs, "cu_seqlens": pack.cu_seqlens[[0, -1]], "position_ids": None}
        wrong = model(**leaking).logits
    assert (right - wrong).abs().max() > 1e-2


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_text_only_pack_reaches_every_vision_parameter_in_training_only(family, folders):
    processor, model = processor_at(folders[family]), load_checkpoint(folders[family])[0]
    rendered = [rendered_chats(processor)[3]]
    quiet = logits_of(model, rendered)
    model.train()
    noisy = logits_of(model, rendered)
    torch.testing.assert_close(noisy, quiet)
    noisy.sum().backward()
    reached = {model.component_of(name) for name, p in model.named_parameters() if p.grad is not None}
    assert reached == {"vision", "projector", "text"}
    vision = [p.grad for name, p in model.named_parameters() if model.component_of(name) == "vision"]
    assert all(g is None or (g == 0).all() for g in vision)


def test_a_shared_visual_is_encoded_once(folders):
    """Chosen and rejected show the same object; the second run of placeholders gets the same features."""
    processor, model = processor_at(folders["llava_onevision"]), load_checkpoint(folders["llava_onevision"])[0]
    visual = processor.patch(an_image(2))
    sides = [processor.render(a_chat(["image"], "Which side?", answer), [visual]) for answer in ("left", "right")]
    pack = collate([("pair", sides)])
    assert len(pack.grids) == 1 and pack.placements.tolist() == [0, 0]
    with torch.no_grad():
        parts = model(**pack.model_inputs()).logits[0].split([len(side.tokens) for side in sides])
        for side, part in zip(sides, parts, strict=True):
            torch.testing.assert_close(part, logits_of(model, [side]), atol=1e-5, rtol=1e-5)


# --- loss mask, generation, saving ---------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_only_the_answer_and_its_end_carry_loss(family, folders):
    processor = processor_at(folders[family])
    rendered = processor.render(a_chat(["image"], "Is it <|im_end|> left?", "yes"), [processor.patch(an_image(1))])
    learned = processor.tokenizer.decode(rendered.tokens[rendered.supervised])
    end = "<end_of_turn>" if family == "gemma3" else "<|im_end|>"
    assert learned.strip() == f"yes{end}"
    # What a report says is text: it ends no turn.
    ends = [processor.tokenizer.convert_tokens_to_ids(end), processor.tokenizer.convert_tokens_to_ids("<|im_end|>")]
    assert sum(int((rendered.tokens == token).sum()) for token in set(ends)) == 2


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_an_answer_does_not_depend_on_its_batch(family, folders):
    processor, model = processor_at(folders[family]), load_checkpoint(folders[family])[0]
    chats = five_chats()

    def answers(which: list[int]) -> list[list[int]]:
        batch = processor(messages=[chats[i][0][:1] for i in which], visuals=[chats[i][1] for i in which])
        ids = model.generate(**batch, max_new_tokens=6, do_sample=False, eos_token_id=0, pad_token_id=0)
        return ids[:, batch["input_ids"].shape[1] :].tolist()

    together = answers([0, 1, 3])
    assert together == [answers([i])[0] for i in (0, 1, 3)]
    assert len({tuple(row) for row in together}) > 1


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_clips_of_unlike_length_share_a_batch(family, folders):
    processor, model = processor_at(folders[family]), load_checkpoint(folders[family])[0]
    long = a_video(3)
    short = Video(frames=long.frames[:2], times_s=long.times_s[:2], modality="US")
    chat = a_chat(["video"], "Is there an effusion?")

    def answers(clips: list) -> list[list[int]]:
        batch = processor(messages=[chat] * len(clips), visuals=[[clip] for clip in clips])
        ids = model.generate(**batch, max_new_tokens=5, do_sample=False, eos_token_id=0, pad_token_id=0)
        return ids[:, batch["input_ids"].shape[1] :].tolist()

    assert answers([long, short]) == [answers([long])[0], answers([short])[0]]


def test_a_saved_gemma_loads_with_auto_processor(folders, tmp_path):
    """The other families' joint processors need torchvision: test_external_processors.py."""
    model, processor = load_checkpoint(folders["gemma3"])
    whole = library_processor("gemma3", processor)
    model.save_pretrained(tmp_path / "whole")
    whole.save_pretrained(tmp_path / "whole")
    save_checkpoint(tmp_path / "again", *load_checkpoint(tmp_path / "whole"))
    loaded = transformers.AutoProcessor.from_pretrained(tmp_path / "again")
    picture = np.zeros((40, 40, 3), np.uint8)
    messages = [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "left?"}]}]
    ids = loaded.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
    image = Image(pixels=np.zeros((1, 40, 40), np.float32), modality="XC", unit="display")
    ours = load_processor(tmp_path / "again").render(
        a_chat(["image"], "left?"), [processor.patch(image)]
    )  # fmt: skip
    assert ours.tokens.tolist() == np.ravel(ids).tolist()


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_saved_folder_is_one_of_the_family_and_gives_equal_logits(family, folders, tmp_path):
    model, _ = load_checkpoint(folders[family])
    processor = load_processor(folders[family], {"max_depth": BUDGET, "intensity": {"hu_windows": ["wide"] * 3}})
    rendered = rendered_chats(processor)  # type: ignore[arg-type]
    with torch.no_grad():
        before = logits_of(model, rendered)  # type: ignore[arg-type]
        save_checkpoint(tmp_path / "again", model, processor)
        model, processor = load_checkpoint(tmp_path / "again")
        assert torch.equal(logits_of(model, rendered_chats(processor)), before)  # type: ignore[arg-type]
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path / "again")
    assert type(plain).__module__.startswith("transformers.")
    stored = (tmp_path / "again" / "config.json").read_text()
    assert "medvlm" not in stored and PACKED not in stored
    for name in ("tokenizer.json", "preprocessor_config.json", "chat_template.jinja"):
        assert (tmp_path / "again" / name).read_bytes() == (folders[family] / name).read_bytes()


# --- pictures, budget, messages ------------------------------------------------------------------------------------


def test_slices_are_chosen_by_equal_distance_and_none_twice():
    voxels = np.arange(10, dtype=np.float32)[:, None, None] * np.ones((1, 4, 4), np.float32)
    volume = Volume(voxels=voxels, modality="MR", unit="display", spacing_mm=(3.0, 1.0, 1.0), window=(0.0, 255.0))
    shown = pictures_of(volume, ExternalSettings(max_depth={"volume": 5}), has_clips=True, frames_multiple=1)
    assert len(shown.rgb) == 5 and shown.spacing[0] == 6.0 and shown.shown == "slices"
    assert len(np.unique(shown.rgb[:, 0, 0, 0])) == 5
    few = pictures_of(volume, ExternalSettings(max_depth={"volume": 99}), has_clips=True, frames_multiple=1)
    assert len(few.rgb) == 10


def test_pixels_are_made_square_and_a_slice_alone_is_an_image():
    volume = Volume(
        voxels=np.zeros((1, 20, 10), np.float32), modality="CT", unit="HU", spacing_mm=(5.0, 1.0, 2.0)
    )  # fmt: skip
    shown = pictures_of(volume, ExternalSettings(), has_clips=True, frames_multiple=2)
    assert shown.rgb.shape == (1, 20, 20, 3) and shown.shown == "image" and shown.spacing[1:] == (1.0, 1.0)


def test_unknown_spacing_is_said_by_number(folders):
    processor = processor_at(folders["qwen2_5_vl"])
    volume = Volume(voxels=np.zeros((3, 30, 30), np.float32), modality="CT", unit="HU")
    text = processor.tokenizer.decode(processor.render(a_chat(["volume"], "?"), [processor.patch(volume)]).tokens)
    assert "slice 1 of 3" in text and "mm" not in text


def test_several_images_are_one_tile_each_in_llava_onevision(folders):
    processor = processor_at(folders["llava_onevision"])
    visual = processor.patch(an_image(0, 64, 64))
    one = processor.render(a_chat(["image"], "?"), [visual]).visuals[0]
    two = processor.render(a_chat(["image", "image"], "?"), [visual, processor.patch(an_image(1))]).visuals
    assert len(one.patches) == 5 and [len(v.patches) for v in two] == [1, 1]


def test_wrong_use_says_what_to_do(folders, tmp_path):
    with pytest.raises(ValueError, match="no path for clips; set volumes: slices"):
        processor_at(folders["gemma3"], volumes="video")
    with pytest.raises(ValueError, match="fixed size; remove max_pixels"):
        processor_at(folders["internvl"], max_pixels={"volume": 4096})
    with pytest.raises(ValueError, match=r"no processor settings \['patch_size'\]; it knows volumes"):
        processor_at(folders["qwen3_vl"], patch_size=[2, 16, 16])
    with pytest.raises(ValueError, match="unknown kinds"):
        ExternalSettings(max_depth={"scan": 3})
    with pytest.raises(ValueError, match="'hu_window'"):
        ExternalSettings(intensity={"hu_window": "chest"})
    with pytest.raises(ValueError, match="intensity is None; write fields of IntensityRule"):
        ExternalSettings(intensity=None)
    transformers.ViTConfig().save_pretrained(tmp_path / "vit")
    with pytest.raises(ValueError, match=r"'vit' checkpoint.*Qwen2\.5-VL \(qwen2_5_vl\).*model\.text\.pretrained"):
        checkpoint_config(tmp_path / "vit")
    bare = make_checkpoint("qwen2_5_vl", tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match=r"no chat template; put the family's chat_template\.jinja"):
        processor_at(bare)
    processor = processor_at(folders["qwen2_5_vl"])
    with pytest.raises(ValueError, match="2 visuals were given, but the messages show fewer"):
        processor.render(a_chat(["image"], "?"), [processor.patch(an_image(1)), processor.patch(an_image(2))])
    processor.tokenizer.chat_template = "{% for m in messages %}{{ m['content'][-1]['text'] }}{% endfor %}"
    with pytest.raises(ValueError, match="does not show 1 pictures"):
        processor.render(a_chat(["image"], "?"), [processor.patch(an_image(1))])


def test_a_plan_needs_no_weights(folders):
    for family in FAMILY_NAMES:
        model = empty_model(checkpoint_config(folders[family]))
        assert all(p.is_meta for p in model.parameters()) and model.sizes()["text"] == (64, 2)


def test_a_hu_image_is_windowed(folders):
    image = Image(pixels=np.full((1, 28, 28), -1000, np.float32), modality="CT", unit="HU")
    processor = processor_at(folders["qwen2_5_vl"], intensity={"hu_windows": [[-1000, 0], [0, 1], [-2000, 0]]})
    shown = pictures_of(image, processor.settings, has_clips=True, frames_multiple=2)
    assert shown.rgb[0, 0, 0].tolist() == [0, 0, 128]
