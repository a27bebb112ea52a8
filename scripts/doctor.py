"""What this machine has and lacks for medvlm: `python -m medvlm.scripts.doctor`."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

State = Literal["ok", "absent", "broken"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing looked at.

    Attributes:
        name: package, device or tool.
        state: ok, absent (not there) or broken (there, but it does not work).
        found: version, or what went wrong.
        core: medvlm does not run without it.
        enables: what it is for.
        mend: the exact command to get it; empty when ok.
    """

    name: str
    state: State
    found: str
    core: bool
    enables: str
    mend: str = ""


CORE = {
    "torch": "every computation",
    "transformers": "language models, processors, generation",
    "tokenizers": "text to tokens",
    "peft": "LoRA",
    "accelerate": "training on one device, DDP and FSDP",
    "safetensors": "weights on disk",
    "numpy": "arrays",
    "PIL": "PNG, JPEG, TIFF, WebP",
    "pydicom": "DICOM",
    "nibabel": "NIfTI, MGH, MINC, PAR/REC",
    "av": "video clips",
    "sacrebleu": "BLEU of reports",
    "rouge_score": "ROUGE of reports",
    "matplotlib": "plots of the report",
    "yaml": "configuration files",
    "jinja2": "the HTML report",
    "rich": "progress bars and tables",
}
"""Import name -> what it is for; the distribution's name where it differs stands in DISTRIBUTIONS."""

DISTRIBUTIONS = {"PIL": "pillow", "rouge_score": "rouge-score", "yaml": "PyYAML", "open_clip": "open_clip_torch"}

OPTIONAL = {
    "deepspeed": ("ZeRO 0-3 training over several devices", "pip install 'medvlm[deepspeed]'"),
    "flash_attn": (
        "faster attention on NVIDIA devices (sdpa is used without it)",
        "pip install flash-attn --no-build-isolation  # needs a CUDA toolkit and a C++ compiler",
    ),
    "timm": ("pretrained vision encoders of timm (needs a working torchvision)", "pip install timm"),
    "open_clip": ("pretrained CLIP encoders (needs a working torchvision)", "pip install open_clip_torch"),
}


def _version(module: str) -> str:
    name = DISTRIBUTIONS.get(module, module)
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown version"


def check_import(module: str, *, core: bool, enables: str, mend: str) -> Check:
    """Import ``module``: found is not enough, a package that is found may still fail to import."""
    if importlib.util.find_spec(module) is None:
        return Check(name=module, state="absent", found="not installed", core=core, enables=enables, mend=mend)
    try:
        importlib.import_module(module)
    except Exception as error:  # noqa: BLE001 - a broken package may raise anything, and saying so is the job here
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        found = f"{_version(module)} does not import ({said})"
        return Check(name=module, state="broken", found=found, core=core, enables=enables, mend=mend)
    return Check(name=module, state="ok", found=_version(module), core=core, enables=enables)


def check_torchvision() -> Check:
    """A torchvision that does not fit the installed torch breaks transformers: worse than none at all.

    Seen with torchvision 0.28.0 (a CUDA build) beside a CPU torch 2.13.0: "operator torchvision::nms does not
    exist", after which language models of transformers do not import either.
    """
    enables = "timm and open_clip encoders; medvlm itself does not need it"
    check = check_import("torchvision", core=False, enables=enables, mend="pip uninstall -y torchvision")
    if check.state == "absent":
        mend = "pip install torchvision  # on a CUDA torch only; leave it out on a CPU torch"
        return Check(name="torchvision", state="absent", found=check.found, core=False, enables=enables, mend=mend)
    # A broken one stops transformers from importing its models: then it is a core fault.
    core = check.state == "broken"
    return Check(name="torchvision", state=check.state, found=check.found, core=core, enables=enables, mend=check.mend)


def check_device() -> Check:
    """CUDA device, its memory and bfloat16."""
    enables = "training at a useful size; without it medvlm runs on the CPU"
    mend = "install a CUDA build of torch: see https://pytorch.org/get-started/locally/"
    if importlib.util.find_spec("torch") is None:
        return Check(name="CUDA", state="absent", found="no torch", core=False, enables=enables, mend=mend)
    import torch

    if not torch.cuda.is_available():
        built = f"torch built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is a CPU build"
        return Check(name="CUDA", state="absent", found=built, core=False, enables=enables, mend=mend)
    devices = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())]
    listed = ", ".join(f"{device.name} {device.total_memory / 2**30:.0f} GiB" for device in devices)
    bf16 = "with" if torch.cuda.is_bf16_supported() else "without"
    return Check(name="CUDA", state="ok", found=f"{listed}; {bf16} bfloat16", core=False, enables=enables)


def check_tool(name: str, programs: tuple[str, ...], enables: str, mend: str) -> Check:
    """The first of ``programs`` that is on PATH (or beside this Python, where pip puts scripts)."""
    path = os.pathsep.join((os.environ.get("PATH", ""), str(Path(sys.executable).parent)))
    found = next((place for program in programs if (place := shutil.which(program, path=path))), None)
    if found is None:
        return Check(name=name, state="absent", found="not on PATH", core=False, enables=enables, mend=mend)
    return Check(name=name, state="ok", found=found, core=False, enables=enables)


def _round_trip(encode_uid: str, decode_with: str) -> None:
    """Encode a small 16-bit picture with pydicom, decode it, and compare.

    Raises:
        ValueError: the pixels came back different.
    """
    import numpy as np
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.pixels import pixel_array
    from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

    picture = (np.arange(64 * 48, dtype=np.uint16).reshape(64, 48) * 37) % 4096
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = UID("1.2.840.10008.5.1.4.1.1.7"), generate_uid()
    data.Rows, data.Columns, data.SamplesPerPixel = 64, 48, 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.PixelData = picture.tobytes()
    data.compress(encode_uid, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    if not np.array_equal(pixel_array(data, decoding_plugin=decode_with), picture):
        raise ValueError("decoded pixels differ from the encoded ones")


CODECS = {
    "openjpeg": ("1.2.840.10008.1.2.4.90", "JPEG 2000 DICOM", "pylibjpeg-openjpeg"),
    "rle": ("1.2.840.10008.1.2.5", "RLE DICOM", "pylibjpeg-rle"),
}
"""Module -> transfer syntax that pydicom can also encode, so that a real round trip is possible."""


def check_codec(module: str) -> Check:
    """Round trip through pylibjpeg's ``module``."""
    syntax, enables, distribution = CODECS[module]
    return _tried(distribution, enables, lambda: _round_trip(syntax, "pylibjpeg"))


def _decode_jpeg() -> None:
    """pylibjpeg-libjpeg only decodes: a JPEG made by Pillow must come back nearly as it was."""
    import numpy as np
    from libjpeg import decode
    from PIL import Image

    ramp = np.tile(np.arange(64, dtype=np.uint8) * 3, (64, 1))
    packed = BytesIO()
    Image.fromarray(ramp).save(packed, "JPEG", quality=95)
    found = decode(packed.getvalue())
    if np.abs(found.astype(int) - ramp).max() > 4:
        raise ValueError("decoded pixels differ from the encoded ones by more than 4 of 255")


def _clip_round_trip() -> None:
    """Encode eight frames with FFmpeg's own MPEG-4 encoder and decode them."""
    import av
    import numpy as np

    packed = BytesIO()
    with av.open(packed, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for step in range(8):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), step * 30, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    packed.seek(0)
    with av.open(packed, "r") as clip:
        count = len(list(clip.decode(video=0)))
    if count != 8:
        raise ValueError(f"{count} of 8 frames came back")


def _tried(distribution: str, enables: str, attempt: Callable[[], None], *, name: str = "") -> Check:
    name = name or distribution
    mend = f"pip install --force-reinstall {distribution}"
    try:
        attempt()
    except ImportError as error:
        return Check(name=name, state="absent", found=str(error)[:160], core=True, enables=enables, mend=mend)
    except Exception as error:  # noqa: BLE001 - codecs raise anything; the round trip is the question asked
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        return Check(name=name, state="broken", found=said, core=True, enables=enables, mend=mend)
    return Check(name=name, state="ok", found=f"{_version(distribution)}, tried and right", core=True, enables=enables)


def check_film_codecs() -> Check:
    """Decoders that ultrasound and endoscopy clips need."""
    name, enables = "FFmpeg decoders", "clips as hospitals export them"
    if importlib.util.find_spec("av") is None:
        return Check(
            name=name, state="absent", found="no av", core=False, enables=enables, mend="pip install --upgrade av"
        )
    import av

    wanted = ("h264", "hevc", "mpeg4", "mpeg2video", "mjpeg", "vp9")
    missing = [codec for codec in wanted if codec not in av.codecs_available]
    if missing:
        found = f"lacks {', '.join(missing)}"
        return Check(
            name=name, state="absent", found=found, core=False, enables=enables, mend="pip install --upgrade av"
        )
    return Check(name=name, state="ok", found=", ".join(wanted), core=False, enables=enables)


def check_machine() -> list[Check]:
    """Cores, memory, shared memory and disk; never absent, but worth reading."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    checks = [Check(name="cores", state="ok", found=str(cores), core=False, enables="reading visuals in parallel")]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        checks.append(
            Check(name="memory", state="ok", found=f"{memory:.0f} GiB", core=False, enables="volumes, offload")
        )
    for name, place, enables in (
        ("disk here", Path.cwd(), "checkpoints and runs"),
        ("shared memory", Path("/dev/shm"), "data loading between processes"),
    ):
        if place.is_dir():
            free = shutil.disk_usage(place).free / 2**30
            checks.append(Check(name=name, state="ok", found=f"{free:.1f} GiB free", core=False, enables=enables))
    return checks


def report() -> list[Check]:
    """Look at everything; order: Python, core packages, codecs, optional packages, tools, machine.

    torchvision comes before transformers, because a broken one explains why transformers does not import.
    """
    version = ".".join(str(part) for part in sys.version_info[:3])
    modern = sys.version_info >= (3, 11)
    checks = [
        Check(
            name="Python", state="ok" if modern else "broken", found=version, core=True, enables="everything",
            mend="" if modern else "install Python 3.11 or newer",
        ),
        check_torchvision(),
    ]  # fmt: skip
    for module, enables in CORE.items():
        mend = f"pip install {DISTRIBUTIONS.get(module, module)}"
        checks.append(check_import(module, core=True, enables=enables, mend=mend))
    checks += [check_codec(module) for module in CODECS]
    checks.append(_tried("pylibjpeg-libjpeg", "JPEG and JPEG-LS DICOM", _decode_jpeg))
    checks.append(_tried("av", "clips: one written and read back", _clip_round_trip, name="FFmpeg (av)"))
    checks.append(check_film_codecs())
    checks.append(check_device())
    for module, (enables, mend) in OPTIONAL.items():
        checks.append(check_import(module, core=False, enables=enables, mend=mend))
    compilers = ("c++", "g++", "clang++")
    ops = "DeepSpeed operators built at their first use"
    checks.append(check_tool("C++ compiler", compilers, ops, "apt-get install g++  # or your system's compiler"))
    checks.append(check_tool("ninja", ("ninja",), ops, "pip install ninja"))
    return checks + check_machine()


COLOURS = {"ok": "green", "absent": "yellow", "broken": "red"}


def main(arguments: list[str] | None = None) -> int:
    """Print the table and the commands for what is missing; 1 when a core piece is absent or broken, else 0."""
    argparse.ArgumentParser(prog="medvlm doctor", description=__doc__).parse_args(arguments)
    checks = report()
    table = Table("", "state", "found", "for", title="medvlm doctor")
    for check in checks:
        faulty = check.core and check.state != "ok"
        name = f"[bold red]{escape(check.name)}[/]" if faulty else escape(check.name)
        table.add_row(name, f"[{COLOURS[check.state]}]{check.state}[/]", escape(check.found), escape(check.enables))
    console = Console()
    console.print(table)
    for check in checks:
        if check.mend:
            # One line each and never wrapped: these are to be copied.
            console.print(f"to mend {check.name}: {check.mend}", markup=False, soft_wrap=True)
    faults = [check.name for check in checks if check.core and check.state != "ok"]
    console.print(f"[red]core pieces at fault: {', '.join(faults)}[/]" if faults else "core: complete")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
