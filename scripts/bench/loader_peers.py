"""What others make of the same files: each is one function that goes over a group once and returns how many it saw.

Pictures become float32 patches of the size that ours resamples to: 16 x 16, three channels, one slice (ours writes each
twice, because a patch is two slices thick). Volumes become three windows, resampled to the same size by
torch.nn.functional.interpolate, and patches of 2 x 16 x 16. What a library does itself (containers, decoding, image
processor) is left to it.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from medvlm.model.intensity import HU_WINDOWS
from medvlm.scripts.bench.loader_files import Group

Pass = Callable[[], int]
Size3 = tuple[int, int, int]
PATCH, DEPTH = 16, 2


def picture_patches(picture: PIL.Image.Image, size: Size3) -> np.ndarray:
    """(P, 768) in [-1, 1]; resized by Pillow, bilinear with antialiasing."""
    pixels = np.asarray(picture.convert("RGB").resize((size[2], size[1]), PIL.Image.Resampling.BILINEAR))
    blocks = pixels.reshape(size[1] // PATCH, PATCH, size[2] // PATCH, PATCH, 3).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(blocks, dtype=np.float32).reshape(-1, 3 * PATCH * PATCH) / 127.5 - 1.0


def volume_patches(voxels: np.ndarray, size: Size3) -> torch.Tensor:
    """(P, 1536) in [-1, 1]: windows, then interpolation, as MONAI's and torch's users do."""
    hu = torch.from_numpy(np.ascontiguousarray(voxels)).float()
    windows = [HU_WINDOWS[name] for name in ("lung", "soft_tissue", "bone")]
    channels = torch.stack([((hu - low) / (high - low)).clamp_(0, 1) for low, high in windows])
    resized = torch.nn.functional.interpolate(channels[None], size, mode="trilinear")[0] * 2 - 1
    d, h, w = size
    blocks = resized.view(3, d // DEPTH, DEPTH, h // PATCH, PATCH, w // PATCH, PATCH).permute(1, 3, 5, 0, 2, 4, 6)
    return blocks.reshape(-1, 3 * DEPTH * PATCH * PATCH)


def _seen(items: Iterable[Any]) -> int:
    return sum(1 for _ in items)


def web_dataset(group: Group, size: Size3, folder: Path) -> Pass:
    """A tar of the files; WebDataset's own iteration and decoding."""
    import webdataset

    tar = folder / f"{group.name.replace(' ', '_')}.tar"
    with webdataset.TarWriter(str(tar)) as sink:
        for number, path in enumerate(group.paths):
            sink.write({"__key__": f"{number:06d}", path.suffix[1:]: path.read_bytes()})
    end = group.paths[0].suffix[1:]

    def one_pass() -> int:
        decoder = "pil" if end == "jpg" else None
        data = webdataset.WebDataset(str(tar), shardshuffle=False, nodesplitter=None)
        data = data.decode(decoder) if decoder else data.decode()
        if end == "jpg":
            return _seen(picture_patches(row["jpg"], size) for row in data)
        return _seen(volume_patches(row["npy"], size) for row in data)

    return one_pass


def mosaic(group: Group, size: Size3, folder: Path) -> Pass:
    """MDS shards; MosaicML streaming's own iteration and decoding."""
    import streaming

    out = folder / f"mds_{group.name.replace(' ', '_')}"
    shutil.rmtree(out, ignore_errors=True)
    picture = group.paths[0].suffix == ".jpg"
    with streaming.MDSWriter(out=str(out), columns={"x": "jpeg" if picture else "ndarray"}) as sink:
        for path in group.paths:
            # The writer takes a picture that was opened from a JPEG as its bytes.
            sink.write({"x": PIL.Image.open(path) if picture else np.load(path)})
    with contextlib.redirect_stderr(io.StringIO()):
        data = streaming.StreamingDataset(local=str(out), shuffle=False, batch_size=1)
    make: Callable[[Any, Size3], Any] = picture_patches if picture else volume_patches
    return lambda: _seen(make(data[index]["x"], size) for index in range(len(group.paths)))


def hf_siglip(group: Group, size: Size3, folder: Path) -> Pass:
    """HF datasets with its Image feature, and SigLIP's image processor (Pillow): resized pixels, no patches."""
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    return _hugging_face(group, SiglipImageProcessorPil(size={"height": size[1], "width": size[2]}), folder)


def hf_siglip2(group: Group, size: Size3, folder: Path) -> Pass:
    """HF datasets with its Image feature, and SigLIP 2's image processor (Pillow): as many patches as ours."""
    from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

    patches = size[1] * size[2] // PATCH**2
    return _hugging_face(group, Siglip2ImageProcessorPil(patch_size=PATCH, max_num_patches=patches), folder)


def _hugging_face(group: Group, made: Any, folder: Path) -> Pass:
    import datasets
    from transformers import AutoImageProcessor

    settings = folder / type(made).__name__
    made.save_pretrained(settings)
    processor = AutoImageProcessor.from_pretrained(settings, backend="pil")
    data = datasets.Dataset.from_dict({"image": [str(path) for path in group.paths]})
    data = data.cast_column("image", datasets.Image())
    return lambda: _seen(processor(images=row["image"].convert("RGB"), return_tensors="np") for row in data)


def hf_nifti(group: Group, size: Size3, folder: Path) -> Pass:
    """HF datasets with its Nifti feature (nibabel)."""
    import datasets

    data = datasets.Dataset.from_dict({"ct": [str(path) for path in group.paths]})
    data = data.cast_column("ct", datasets.Nifti())
    return lambda: _seen(volume_patches(row["ct"].get_fdata(dtype=np.float32).transpose(2, 1, 0), size) for row in data)


PICTURE_PEERS: dict[str, tuple[Callable[[Group, Size3, Path], Pass], str]] = {
    "WebDataset": (web_dataset, "webdataset"),
    "MosaicML streaming": (mosaic, "mosaicml-streaming"),
    "HF datasets + SigLIP processor": (hf_siglip, "datasets"),
    "HF datasets + SigLIP 2 processor": (hf_siglip2, "datasets"),
}
VOLUME_PEERS: dict[str, dict[str, tuple[Callable[[Group, Size3, Path], Pass], str]]] = {
    "nii.gz": {"HF datasets (Nifti)": (hf_nifti, "datasets")},
    "npy": {"WebDataset": (web_dataset, "webdataset"), "MosaicML streaming": (mosaic, "mosaicml-streaming")},
}
"""Per group: the peer and the package that it needs."""
