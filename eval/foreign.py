"""Any vision-language model of transformers: `--model transformers:ID_OR_FOLDER`.

Families that model.external serves are loaded by it, with their packs; this is the way for all others, through the
library's own processor and chat template. Pictures stand in the places that the question gives them; volumes and clips
are slice sets (slice_sets.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from PIL import Image as Pil
from torch import Tensor

from medvlm.data_recipes.errors import BadSample
from medvlm.eval import choice_likelihood as likelihood
from medvlm.eval.choose_model import ModelOptions
from medvlm.eval.loaded_model import CheckpointModel, Chosen, LoadedModel, dtype_named
from medvlm.eval.models import Answerer, Request
from medvlm.eval.slice_sets import Part, Picture, SlicePolicy, show, spread
from medvlm.model.visual import Visual

PICTURE_TOKENS = 256
"""What a picture is taken to cost where requests are sorted by size; a guess changes nothing but the speed."""


def transformers_model(name: str, options: ModelOptions) -> Answerer:
    """The model in a folder or on the hub.

    Raises:
        ValueError: there is none, it is no vision-language model, its processor cannot be loaded, or its weights do not
            fit it.
    """
    from transformers import AutoConfig

    from medvlm.model.config import MedVLMConfig
    from medvlm.model.external.families import is_served

    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=options.trust_remote_code)
    except OSError as error:
        raise ValueError(f"there is no model of transformers at {name}: {error}") from error
    arguments = options.of_local()
    if isinstance(config, MedVLMConfig):
        return CheckpointModel(name, **arguments)
    arguments["slices"] = options.slices or SlicePolicy()
    if is_served(config):
        return CheckpointModel(name, **arguments)
    return ForeignModel(name, trust_remote_code=options.trust_remote_code, **arguments)


class ForeignProcessor:
    """A processor of transformers, told what it does not tell by itself.

    Args:
        processor: with a tokenizer and a chat template.

    Raises:
        ValueError: it has none.
    """

    def __init__(self, processor: Any, source: str) -> None:
        self.processor = processor
        self.tokenizer: Any = getattr(processor, "tokenizer", None)
        if self.tokenizer is None or not (getattr(processor, "chat_template", None) or self.tokenizer.chat_template):
            missing = "tokenizer" if self.tokenizer is None else "chat template"
            raise ValueError(
                f"the processor of {source} has no {missing}; name a vision-language model that was made for "
                "conversation (its instruct checkpoint)"
            )
        # A prompt must end where the answer begins.
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        added = self.tokenizer.added_tokens_decoder.values()
        self.special = sorted({str(token) for token in added if token.special} | set(self.tokenizer.all_special_tokens))
        self.end_ids = self._end_ids()

    def _end_ids(self) -> frozenset[int]:
        """What the template writes after an answer, up to its first special token, and the end of text."""
        marker = "\u2042"
        turns = [("user", ["-"]), ("assistant", [marker])]
        after = self.prompt(turns, answer_follows=False).partition(marker)[2]
        special = {token for token, added in self.tokenizer.added_tokens_decoder.items() if added.special}
        ids = self.tokenizer(after, add_special_tokens=False)["input_ids"] if after else []
        first = next((token for token in ids if token in special), None)
        return frozenset(int(token) for token in (first, self.tokenizer.eos_token_id) if token is not None)

    def prompt(self, turns: Sequence[tuple[str, Sequence[Part]]], *, answer_follows: bool = True) -> str:
        """The conversation by the model's own template, with its picture tokens in the places of the pictures.

        Raises:
            BadSample: a text holds a special token, which the library would take for a turn or a picture.
        """
        messages: list[dict[str, Any]] = []
        for role, parts in turns:
            content: list[dict[str, Any]] = []
            for part in parts:
                if isinstance(part, Picture):
                    content.append({"type": "image"})
                    continue
                found = next((token for token in self.special if token in part), None)
                if found is not None:
                    raise BadSample(
                        f"the text holds {found!r}, a special token of this model",
                        where="the question",
                        mend="write it otherwise, or leave the sample out for this model",
                    )
                content.append({"type": "text", "text": part})
            messages.append({"role": role, "content": content})
        return str(self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer_follows))

    def inputs(self, prompts: Sequence[str], pictures: Sequence[Sequence[Picture]]) -> Mapping[str, Tensor]:
        """A left-padded batch; every row shows as many pictures as the others."""
        more: dict[str, Any] = {}
        if any(pictures):
            more["images"] = [[Pil.fromarray(picture.rgb) for picture in row] for row in pictures]
        bos = self.tokenizer.bos_token
        if bos and prompts[0].startswith(bos):
            more["add_special_tokens"] = False  # the template has written it
        return self.processor(text=list(prompts), padding=True, return_tensors="pt", **more)


class ForeignModel(LoadedModel):
    """A vision-language model of transformers that is not served by model.external.

    Args:
        source: folder or hub id.
        device: "cuda", "cpu", ...; the GPU when there is one by default.
        dtype: of the weights.
        slices: how volumes and clips become pictures.
        trust_remote_code: run code that comes with the weights.
        more: other arguments of LoadedModel.

    Raises:
        ValueError: the processor cannot be loaded here, or the weights do not fit the config.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        device: str | None = None,
        dtype: str = "float32",
        slices: SlicePolicy | None = None,
        trust_remote_code: bool = False,
        **more: Any,
    ) -> None:
        from transformers import AutoModelForImageTextToText

        processor = _processor(source, trust_remote_code)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            source, dtype=dtype_named(dtype), trust_remote_code=trust_remote_code, output_loading_info=True
        )
        model, report = loaded
        wrong = {key: sorted(map(str, report[key])) for key in ("missing_keys", "mismatched_keys") if report.get(key)}
        if wrong:
            raise ValueError(f"the weights of {source} do not fit its config: {wrong}; the checkpoint is damaged")
        chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
        super().__init__(
            model.to(chosen).eval(),
            ForeignProcessor(processor, str(source)),
            name=f"transformers:{source}",
            slices=slices or SlicePolicy(),
            **more,
        )

    @property
    def settings(self) -> dict[str, Any]:
        shower = getattr(self.processor.processor, "image_processor", None)
        return super().settings | {"image_processor": type(shower).__name__}

    def read(self, ref: Any, root: Path) -> Visual:
        from medvlm.data_recipes.readers import read

        return read(ref, root)

    def prepare(self, visual: Visual) -> Any:
        assert self.slices is not None, "set when made"
        return show(visual, self.slices)

    def size(self, request: Request) -> tuple[int, ...]:
        parts = [part for shown in self._prepared(request).visuals for part in shown]
        written = sum(len(turn.text) for turn in request.turns) + sum(len(p) for p in parts if isinstance(p, str))
        return PICTURE_TOKENS * sum(isinstance(part, Picture) for part in parts), written // 4

    def _batches(self, requests: Sequence[Request], places: Sequence[int]) -> Iterator[list[int]]:
        """Rows of a batch show as many pictures as each other: processors disagree about all else."""

        def count(place: int) -> int:
            return len(self._pictures(requests[place]))

        for _, group in groupby(sorted(places, key=lambda place: -count(place)), key=count):
            yield from super()._batches(requests, list(group))

    def _pictures(self, request: Request) -> list[Picture]:
        return [part for shown in request.visuals for part in shown if isinstance(part, Picture)]

    def _inputs(self, requests: Sequence[Request], pad: int) -> Mapping[str, Tensor]:
        requests = [self._prepared(request) for request in requests]
        prompts = [self.processor.prompt(spread(request.turns, request.visuals)) for request in requests]
        inputs = self.processor.inputs(prompts, [self._pictures(request) for request in requests])
        return {name: self._moved(value) for name, value in inputs.items()}

    def _moved(self, value: Tensor) -> Tensor:
        return value.to(self.device, self.model.dtype if value.is_floating_point() else value.dtype)

    def _choose(self, requests: Sequence[Request]) -> dict[int, Chosen]:
        """As of a checkpoint, but one question a pass: nothing is known of how such a model could take a pack."""
        found: dict[int, Chosen] = {}
        for place, request in enumerate(requests):
            if not likelihood.has_choices(request.question):
                continue
            started = perf_counter()
            try:
                texts = likelihood.choice_texts(request.question, request.turns[-1].text)
            except BadSample:
                if self.answer_by == "likelihood":
                    raise
                continue
            values = self._log_probabilities(request, texts)
            found[place] = Chosen(
                question=request.question,
                prompt=request.turns[-1].text,
                texts=texts,
                shares=likelihood.shares(values),
                seconds=perf_counter() - started,
            )
        return found

    def _log_probabilities(self, request: Request, texts: Sequence[str]) -> list[float]:
        """Of each text as the answer, by one pass over the prompt with each beginning that differs."""
        inputs = self._inputs([request], 0)
        answers = [self.processor.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        if any(a is not b and b[: len(a)] == a for a in answers for b in answers):
            answers = [[*answer, min(self.processor.end_ids)] for answer in answers]
        rows = _longest([answer[:-1] for answer in answers])
        extended = _with_answers(inputs, rows)
        with torch.no_grad():
            logits = self.model(**extended).logits.float().log_softmax(dim=-1)  # (rows, L + longest, vocabulary)
        last = inputs["input_ids"].shape[1] - 1
        values = []
        for answer in answers:
            row = next(place for place, seen in enumerate(rows) if seen[: len(answer) - 1] == answer[:-1])
            values.append(sum(float(logits[row, last + step, token]) for step, token in enumerate(answer)))
        return values


def _longest(beginnings: Sequence[list[int]]) -> list[list[int]]:
    """Those of which none begins another."""
    kept: list[list[int]] = []
    for one in sorted(beginnings, key=len, reverse=True):
        if not any(other[: len(one)] == one for other in kept):
            kept.append(one)
    return kept


def _with_answers(inputs: Mapping[str, Tensor], rows: Sequence[list[int]]) -> dict[str, Tensor]:
    """One prompt, once for each of ``rows``, with its tokens after it; shorter ones are padded on the right, unseen."""
    longest = max(map(len, rows))
    shape = inputs["input_ids"].shape
    made: dict[str, Tensor] = {}
    for name, value in inputs.items():
        repeated = torch.cat([value] * len(rows))
        if value.shape == shape:  # something of each token
            added = value.new_zeros(len(rows), longest)
            for place, row in enumerate(rows):
                if name == "input_ids":
                    added[place, : len(row)] = value.new_tensor(row)
                elif name == "attention_mask":
                    added[place, : len(row)] = 1
            repeated = torch.cat([repeated, added], dim=1)
        made[name] = repeated
    return made


def _processor(source: str | Path, trust_remote_code: bool) -> Any:
    """The library's processor, cutting pictures with Pillow where the family can: the same pixels on every machine.

    Raises:
        ValueError: it cannot be loaded here.
    """
    from transformers import AutoImageProcessor, AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(source, trust_remote_code=trust_remote_code)
    except (ImportError, OSError, ValueError) as error:
        raise ValueError(
            f"the processor of {source} cannot be loaded: {_first_line(error)}; processors that can show clips need "
            "torchvision: pip install 'medvlm[encoders]'"
        ) from error
    with suppress(ImportError, OSError, ValueError):  # the family has none on Pillow: run.json says which it is
        processor.image_processor = AutoImageProcessor.from_pretrained(
            source, backend="pil", trust_remote_code=trust_remote_code
        )
    return processor


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
