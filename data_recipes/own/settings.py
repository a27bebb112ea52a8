"""OwnRecipe: the YAML file that says how your own files become samples; refused where it leaves something open."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from medvlm.data_recipes.sample import QuestionKind, Split
from medvlm.data_recipes.typed_yaml import BadConfig, Document, parse
from medvlm.model.visual import Kind

Format = Literal["llava", "messages", "preferences", "table", "dicom"]
AskKind = Literal["open", "closed", "choice", "report", "vqa"]
KEYS_OF_VISUALS = ("image", "images", "video", "videos", "volume", "volumes")
ALIASES: dict[str, Split] = {
    "train": "train", "training": "train", "validation": "validation", "val": "validation", "valid": "validation",
    "dev": "validation", "test": "test", "testing": "test",
}  # fmt: skip
LICENCE_MEND = "write licence: followed by what the holder of the files allows; 'own' if they are yours"
PATIENT_MEND = (
    "write patient: {column: NAME}, or {path: 'REGULAR (EXPRESSION)'}, {folder: true}, {dicom: true}, or {row: true} "
    "where no two rows are of one patient; patients must not lie in two splits"
)


def _one_of(owner: str, given: dict[str, bool], mend: str) -> None:
    named = [name for name, there in given.items() if there]
    if len(named) != 1:
        found = " and ".join(named) if named else "nothing"
        raise BadConfig(f"{owner} says {found}; exactly one of {', '.join(given)} is expected", where="", mend=mend)


@dataclass(frozen=True, kw_only=True)
class Patient:
    """What tells patients apart; exactly one of these. Manifests hold a hash of it, never the value.

    Attributes:
        column: key of the row that holds an id of the patient.
        path: regular expression with one group, sought in the path of the first visual.
        folder: the folder in which the first visual lies.
        dicom: PatientID of the first visual, which is DICOM.
        row: every row is a patient of its own.
    """

    column: str | None = None
    path: str | None = None
    folder: bool = False
    dicom: bool = False
    row: bool = False

    def __post_init__(self) -> None:
        given = {"column": bool(self.column), "path": bool(self.path), "folder": self.folder, "dicom": self.dicom}
        _one_of("patient", {**given, "row": self.row}, PATIENT_MEND)
        if self.path:
            try:
                groups = re.compile(self.path).groups
            except re.error as error:
                raise BadConfig(
                    f"patient.path is no regular expression: {error}", where="", mend="correct it"
                ) from None
            if groups != 1:
                raise BadConfig(
                    f"patient.path has {groups} groups, expected one",
                    where="",
                    mend="put brackets around the part of the path that is the patient, as in 'images/(p[0-9]+)/'",
                )


@dataclass(frozen=True, kw_only=True)
class SplitBy:
    """Which patient belongs to which split; exactly one of column, files, lists, shares, all.

    Attributes:
        column: key of the row that names the split.
        names: what that column writes -> train, validation or test.
        files: name of a file in ``paths`` -> split of its rows.
        lists: split -> text file with one patient id per line, as it stands in patient.column.
        shares: split -> share of the patients; a hash of the patient decides, so that new patients move no old one.
        seed: of that hash.
        all: every row belongs to this split.
    """

    column: str | None = None
    names: dict[str, Split] = field(default_factory=lambda: dict(ALIASES))
    files: dict[str, Split] = field(default_factory=dict)
    lists: dict[str, str] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    all: Split | None = None

    def __post_init__(self) -> None:
        mend = "write for example split: {shares: {train: 0.8, validation: 0.1, test: 0.1}}"
        given = {name: bool(getattr(self, name)) for name in ("column", "files", "lists", "shares", "all")}
        _one_of("split", given, mend)
        for name in (*self.lists, *self.shares):
            if name not in get_args(Split):
                raise BadConfig(f"{name!r} is no split", where="", mend="use train, validation and test")
        if self.shares and (min(self.shares.values()) < 0 or abs(sum(self.shares.values()) - 1) > 1e-6):
            raise BadConfig(
                f"split.shares sum to {sum(self.shares.values()):g}, expected shares that sum to 1", where="", mend=mend
            )


@dataclass(frozen=True, kw_only=True)
class Fields:
    """Which key of a row (column of a table) holds what.

    Attributes:
        visuals: keys that name files, or templates such as "{folder}/{file}"; empty: image, images, video, videos,
            volume and volumes, where the row has them.
        turns: key of the conversation; None: ``conversations`` in llava, ``messages`` in messages.
        prompt, completion, chosen, rejected, rejected_visuals: keys of prompts, completions and pairs.
        study: key that tells the studies of a patient apart; hashed.
        metadata: keys that are kept as they are written; not for identifiers.
    """

    visuals: tuple[str, ...] = ()
    turns: str | None = None
    prompt: str = "prompt"
    completion: str = "completion"
    chosen: str = "chosen"
    rejected: str = "rejected"
    rejected_visuals: str = "rejected_images"
    made_by: str = "made_by"
    study: str | None = None
    metadata: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One question that a row of a table (or the report of a study) answers.

    Attributes:
        answer: column of the answer. In format dicom: ``report``, or a section such as ``findings``.
        prompt: the question; ``{column}`` is replaced by what the row says there.
        kind: open, closed, choice, report; vqa is closed where the answer is yes or no, else open.
        choices: closed: the answers; choice: the options.
        choice_columns: choice: columns that hold the options of each row instead.
        values: what the column writes -> the answer, such as {"1": "yes", "0": "no"}; anything else is refused.
        topic: what subgroup tables group by.
        optional: an empty cell means that this is not asked; otherwise it is refused.
    """

    answer: str
    prompt: str
    kind: AskKind = "open"
    choices: tuple[str, ...] = ()
    choice_columns: tuple[str, ...] = ()
    values: dict[str, str] = field(default_factory=dict)
    topic: str = "other"
    optional: bool = False

    def __post_init__(self) -> None:
        options = len(self.choices or self.choice_columns)
        if self.kind in ("closed", "choice") and options < 2:
            raise BadConfig(
                f"a {self.kind} question about {self.answer!r} needs at least two choices",
                where="",
                mend="list them in choices",
            )


@dataclass(frozen=True, kw_only=True)
class Reports:
    """Where the reports of DICOM studies are.

    Attributes:
        path: folder of .txt files named by the key, or a CSV file.
        by: what tells which study a report belongs to: study_uid, accession, patient, or folder (the name of a folder
            in which the DICOM files lie, at any depth).
        column, text: of a CSV: the column with that key, and the column with the report.
    """

    path: str
    by: Literal["study_uid", "accession", "patient", "folder"]
    column: str | None = None
    text: str | None = None


@dataclass(frozen=True, kw_only=True)
class OwnRecipe:
    """How a folder of your own becomes samples.

    Attributes:
        name: ``Sample.source``, and the beginning of all ids.
        format: shape of a row: llava (conversations), messages (TRL and OpenAI messages, prompt and completion),
            preferences (chosen and rejected), table (columns), dicom (studies with reports).
        paths: files or folders with the rows, relative to the recipe: JSON list, JSON lines, CSV, Parquet, a folder
            of ``datasets``; in format dicom the folders that hold DICOM files.
        hub: id of a dataset on the Hugging Face hub instead of ``paths``.
        hub_config, hub_split: which part of it; all splits when None.
        licence, patient: what the data allow, and whose a row is. Nothing is built before both are written.
        split: which patient is trained on.
        images: folder against which the paths in rows stand; relative to the recipe.
        suffix: added to the paths in rows, such as ".png".
        unplaced: visuals without a placeholder in the text: refused, or shown first. None: first in messages and
            preferences (the rule of TRL), refused in llava.
        ask: table and dicom: the questions.
        question: kind of the last question of a conversation in validation and test.
        choices: of a closed question or choice in conversations.
        encoding, delimiter: of CSV files.
        reader: options of the readers for image, volume and video, such as {volume: {unit: HU, modality: CT}}.
        reports: dicom: where the reports are.
        kinds: dicom: which visuals of a study are shown; the others are left out.
        one_sample_per: dicom: study (all its images and series in one sample) or series.
        most_visuals: dicom: a study with more is refused.
    """

    name: str
    format: Format
    split: SplitBy
    licence: str | None = None
    patient: Patient | None = None
    paths: tuple[str, ...] = ()
    hub: str | None = None
    hub_config: str | None = None
    hub_split: str | None = None
    images: str = "."
    suffix: str = ""
    fields: Fields = field(default_factory=Fields)
    unplaced: Literal["refuse", "first"] | None = None
    ask: tuple[Ask, ...] = ()
    question: AskKind = "open"
    choices: tuple[str, ...] = ()
    encoding: str = "utf-8"
    delimiter: str = ","
    reader: dict[str, dict[str, Any]] = field(default_factory=dict)
    reports: Reports | None = None
    kinds: tuple[Kind, ...] = ("image", "volume", "video")
    one_sample_per: Literal["study", "series"] = "study"
    most_visuals: int = 8

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise BadConfig(
                f"'name' is {self.name!r}", where="", mend="use letters, digits, dots, hyphens and underscores"
            )
        if bool(self.paths) == bool(self.hub):
            raise BadConfig("exactly one of 'paths' and 'hub' is expected", where="", mend="name your files in paths")
        if self.format in ("table", "dicom") and not self.ask:
            raise BadConfig(
                f"format {self.format} needs 'ask'",
                where="",
                mend="write ask: [{answer: COLUMN, prompt: 'THE QUESTION'}]",
            )
        if self.format == "dicom" and (self.reports is None or self.hub):
            raise BadConfig(
                "format dicom needs 'reports'", where="", mend="write reports: {path: reports, by: accession}"
            )
        if self.reports is not None and bool(self.reports.column) != bool(self.reports.text):
            raise BadConfig(
                "reports.column and reports.text belong together",
                where="",
                mend="name both columns of the CSV file, or neither for a folder of .txt files",
            )
        if self.question in ("closed", "choice") and len(self.choices) < 2:
            raise BadConfig(
                f"question: {self.question} needs at least two 'choices'", where="", mend="list the choices"
            )
        unknown = sorted(set(self.reader) - {"image", "volume", "video"})
        if unknown:
            raise BadConfig(f"'reader' names {unknown[0]!r}", where="", mend="use image, volume or video")
        if len(self.delimiter) != 1:
            raise BadConfig(
                f"'delimiter' is {self.delimiter!r}", where="", mend=r'write one character, such as ";" or "\t"'
            )


@dataclass(frozen=True, kw_only=True)
class Filled:
    """A recipe of which nothing is left open, and the folder against which its paths stand."""

    recipe: OwnRecipe
    folder: Path
    licence: str
    patient: Patient

    def path(self, written: str) -> Path:
        return (self.folder / written).resolve()


def load_recipe(path: Path) -> OwnRecipe:
    """Read a recipe that may still have lines to fill in.

    Raises:
        BadConfig: unknown key, wrong type, contradiction.
    """
    return parse(OwnRecipe, Document(path))


def load_filled(path: Path) -> Filled:
    """Read a recipe that is ready to be built.

    Raises:
        BadConfig: as load_recipe, or the licence is empty or nobody knows whose a row is.
    """
    document = Document(path)
    recipe = parse(OwnRecipe, document)
    if not (recipe.licence or "").strip():
        raise BadConfig("the licence is empty", where=document.where("licence"), mend=LICENCE_MEND)
    if recipe.patient is None:
        raise BadConfig("nothing says which patient a row is of", where=document.where("patient"), mend=PATIENT_MEND)
    assert recipe.licence is not None
    return Filled(recipe=recipe, folder=path.resolve().parent, licence=recipe.licence.strip(), patient=recipe.patient)


def question_kind(kind: AskKind, answer: str) -> QuestionKind:
    """The kind that is asked: vqa is closed where the whole answer is yes or no."""
    if kind != "vqa":
        return kind
    return "closed" if answer.strip().strip(".").lower() in ("yes", "no") else "open"
