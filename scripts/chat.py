"""Ask a checkpoint about a picture, a volume or a clip; without --question, in a conversation.

medvlm chat --model runs/quickstart/stages/05-lora-dpo/checkpoint scan.nii.gz --question "Write the report."
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

from transformers import TextIteratorStreamer

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers import read, sniff
from medvlm.data_recipes.sample import VisualRef
from medvlm.data_recipes.scaled_reading import read_for
from medvlm.model.loading import Model, Processor, load_checkpoint
from medvlm.model.visual import Visual, kind_of


def ref_of(path: Path, options: dict[str, Any]) -> VisualRef:
    """What names a file, or a folder of one DICOM series, to a reader.

    Raises:
        BadSample: it is no visual.
    """
    kind = sniff(path)
    if kind is None:
        raise BadSample(
            "not a picture, volume or clip",
            where=str(path),
            mend="give a PNG, JPEG, TIFF, DICOM, NIfTI, NPY or MP4 file, or a folder of one DICOM series",
        )
    return VisualRef(kind=kind, path=str(path.resolve()), options=options)


def load_visual(path: Path, options: dict[str, Any], processor: Processor | None = None) -> Visual:
    """Read a file or a folder of one DICOM series, whatever it is.

    Args:
        processor: whoever will see it: large JPEG pictures are then decoded as they were in training.

    Raises:
        BadSample: it is no visual, or cannot be read.
    """
    ref = ref_of(path, options)
    return read(ref, Path.cwd()) if processor is None else read_for(ref, Path.cwd(), processor)


def answer(
    model: Model,
    processor: Processor,
    messages: list[dict[str, Any]],
    visuals: list[Visual],
    max_new_tokens: int,
) -> Iterator[str]:
    """The pieces of the answer as they are generated, greedily."""
    inputs = processor(messages=[messages], visuals=[visuals]).to(model.device)
    streamer = TextIteratorStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=600)
    options = {**inputs, "streamer": streamer, "max_new_tokens": max_new_tokens, "do_sample": False}
    thread = Thread(target=model.generate, kwargs=options)  # type: ignore[misc]
    thread.start()
    yield from streamer
    thread.join()


def converse(
    model: Model,
    processor: Processor,
    visuals: list[Visual],
    questions: Iterator[str],
    max_new_tokens: int,
) -> None:
    """Answer each question with all that was said before; the visuals stand in the first."""
    messages: list[dict[str, Any]] = []
    for question in questions:
        shown = [] if messages else [{"type": kind_of(visual)} for visual in visuals]
        messages.append({"role": "user", "content": [*shown, {"type": "text", "text": question}]})
        said = ""
        for piece in answer(model, processor, messages, visuals, max_new_tokens):
            print(piece, end="", flush=True)
            said += piece
        print()
        messages.append({"role": "assistant", "content": [{"type": "text", "text": said.strip() or "-"}]})


def typed_questions() -> Iterator[str]:
    """What the user types, until an empty line or the end of input."""
    while True:
        try:
            question = input("> ").strip()
        except EOFError:
            return
        if not question:
            return
        yield question


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="medvlm chat", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("visuals", nargs="*", type=Path, help="files, or folders of one DICOM series")
    parser.add_argument("--model", required=True, help="checkpoint folder or hub id")
    parser.add_argument("--question", help="ask this and stop")
    parser.add_argument("--options", default="{}", help='reader options as JSON: {"time_index": 0, "unit": "HU"}')
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_intermixed_args(arguments)
    try:
        refs = [ref_of(path, json.loads(options.options)) for path in options.visuals]
        model, processor = load_checkpoint(options.model, device=options.device)
        visuals = [read_for(ref, Path.cwd(), processor) for ref in refs]
    except (BadSample, ValueError, OSError, ModuleNotFoundError) as error:
        print(f"medvlm chat: {error}", file=sys.stderr)
        return 2
    questions = iter([options.question]) if options.question else typed_questions()
    converse(model, processor, visuals, questions, options.max_new_tokens)
    return 0


if __name__ == "__main__":
    sys.exit(main())
