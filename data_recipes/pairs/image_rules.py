"""The same text about another image: noise, a crop that loses the finding, another patient's image.

The rejected side is a whole conversation that shows the other image, as ``rejected_noised`` of MMed-RAG (Xia et al.
2024); the chosen answer is the text of both sides.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medvlm.data_recipes.box_text import read_box
from medvlm.data_recipes.grounding import Box
from medvlm.data_recipes.pairs.case import Case, generator_for, plain_prompt
from medvlm.data_recipes.pairs.corrupt import CENTRE, cropped, noised
from medvlm.data_recipes.pairs.english import sentences
from medvlm.data_recipes.pairs.finding_words import mentioned
from medvlm.data_recipes.pairs.other_report import differ
from medvlm.data_recipes.pairs.pool import Entry, Pool
from medvlm.data_recipes.pairs.rules import pair_sample
from medvlm.data_recipes.pairs.visual_files import visual_key, write_visual
from medvlm.data_recipes.readers import read
from medvlm.data_recipes.sample import Part, Preference, Sample, Turn, VisualRef
from medvlm.model.visual import Visual

IMAGE_RULES: dict[str, str] = {
    "noise": "Gaussian noise in place of the image; noise:STD adds noise of STD standard deviations of the image",
    "crop": "the image without its finding: the box of the answer, or the middle, blacked out",
    "other_patient": "an image of another patient of which the text is not true",
}


@dataclass(frozen=True, kw_only=True)
class ImageRule:
    """One of IMAGE_RULES with its strength.

    Attributes:
        std: of added noise, in standard deviations of the image; None is noise alone.
    """

    kind: str
    std: float | None = None

    @property
    def name(self) -> str:
        """As ``made_by`` gives it: image_noise, image_noise_0.5, image_crop, image_other_patient."""
        return f"image_{self.kind}" + (f"_{self.std:g}" if self.std is not None else "")


def parse_image_rule(text: str) -> ImageRule:
    """ "noise", "noise:0.5", "crop" or "other_patient".

    Raises:
        ValueError: another word, or a strength that is no positive number.
    """
    kind, _, strength = text.partition(":")
    if kind not in IMAGE_RULES or (strength and kind != "noise"):
        raise ValueError(f"no image corruption {text!r}; use {', '.join(IMAGE_RULES)}, or noise:STD")
    if not strength:
        return ImageRule(kind=kind)
    if not re.fullmatch(r"\d+(?:\.\d+)?", strength) or float(strength) <= 0:
        raise ValueError(f"noise:{strength} needs a positive number of standard deviations, such as noise:1")
    return ImageRule(kind=kind, std=float(strength))


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where visuals come from and go to.

    Attributes:
        root: what relative paths of the manifest start from.
        out: folder of the pairs; new visuals are written into ``folder``, below it.
    """

    root: Path
    out: Path
    folder: Path


def image_pair(case: Case, rule: ImageRule, pool: Pool, places: Places, seed: int = 0) -> Sample | None:
    """The pair of one image rule; None where the text would be as true of the other image.

    Raises:
        BadSample: a visual of the sample cannot be read.
    """
    refs = tuple(ref for turn in case.turns for ref in turn.visuals)
    if not refs or case.sample.metadata.get("needs_knowledge") is True:
        return None
    how: dict[str, Any]
    if rule.kind == "other_patient":
        other = _other_patient(case, pool, seed)
        if other is None:
            return None
        new, how = other.visuals, {"from_sample": other.sample_id}
    elif rule.kind == "crop":
        if not claims_finding(case):
            return None
        box = _known_box(case, refs)
        how = {"blacked_out": "box of the answer" if box is not None else f"middle {CENTRE:g} of rows and columns"}
        new = tuple(_changed(ref, rule, places, seed, lambda visual: cropped(visual, box), str(box)) for ref in refs)
    else:
        how = {"noise_std": 1.0 if rule.std is None else rule.std, "noise": "alone" if rule.std is None else "added"}
        new = tuple(_noised(ref, rule, places, seed) for ref in refs)
    how["visuals"] = [{"old": a.path, "new": b.path} for a, b in zip(refs, new, strict=True)]
    answer = Turn(role="assistant", content=(case.answer,))
    preference = Preference(chosen=(answer,), rejected=(*_showing(case.turns, new), answer), made_by=rule.name)
    return pair_sample(case, rule.name, preference, how)


def _showing(turns: tuple[Turn, ...], visuals: tuple[VisualRef, ...]) -> tuple[Turn, ...]:
    """``turns`` with other visuals in the places of theirs."""
    rest = iter(visuals)
    shown: list[Turn] = []
    for turn in turns:
        content: tuple[Part, ...] = tuple(part if isinstance(part, str) else next(rest) for part in turn.content)
        shown.append(replace(turn, content=content))
    return tuple(shown)


def _noised(ref: VisualRef, rule: ImageRule, places: Places, seed: int) -> VisualRef:
    rng = generator_for(seed, visual_key(ref), rule.name)
    return _changed(ref, rule, places, seed, lambda visual: noised(visual, rng, rule.std))


def _changed(
    ref: VisualRef, rule: ImageRule, places: Places, seed: int, change: Callable[[Visual], Visual], words: str = ""
) -> VisualRef:
    """Read, change and write one visual; the name tells what it is made from, so that questions share it."""
    name = f"{rule.name}-{visual_key(ref, seed, words)}"
    return write_visual(change(read(ref, places.root)), places.folder, name, places.out)


def claims_finding(case: Case) -> bool:
    """Whether the text says that something is there, which a blacked-out middle no longer shows."""
    if "<box>" in case.answer.lower():
        return True
    if not case.english:
        return False
    if case.is_report:
        return bool(case.positives)
    if re.fullmatch(r"\s*yes\W*", case.answer, re.I):
        # "Are the lungs free of consolidation?" asks for what is not there.
        return any(s.asserted == len(s.text) and mentioned(s.text) for s in sentences(case.prompt))
    return bool(mentioned(case.answer)) and all(s.asserted for s in case.sentences)


def _known_box(case: Case, refs: tuple[VisualRef, ...]) -> Box | None:
    """The box of the answer or of the question, when one visual is shown."""
    found = re.findall(r"<box>[^<]*</box>", f"{case.answer}\n{case.prompt}", re.I)
    if len(refs) != 1 or len(found) != 1:
        return None
    return read_box(found[0], axes=3 if found[0].count(",") == 5 else 2).box


def _other_patient(case: Case, pool: Pool, seed: int) -> Entry | None:
    """Another patient's sample of the same group of whose image the text is not true.

    Between reports a salient finding must be asserted in one only; between short answers the question must be the same
    and the answers may share no word: "x-ray" and "chest x-ray" are both true.
    """
    rng = generator_for(seed, case.sample.sample_id, "image_other_patient")
    own = {ref.path for turn in case.turns for ref in turn.visuals}
    for other in pool.others(case.group, case.sample.patient_id, rng):
        if len(other.visuals) != sum(len(turn.visuals) for turn in case.turns) or own & {r.path for r in other.visuals}:
            continue
        if case.is_report:
            if case.english and other.report and differ(case.positives, other.positives):
                return other
        elif plain_prompt(case.prompt) == other.prompt and not _words(case.answer) & _words(other.answer):
            return other
    return None


def _words(text: str) -> set[str]:
    return set(re.findall(r"[^\W_]+", text.lower())) - {"the", "a", "an", "of", "in", "on", "and", "side"}
