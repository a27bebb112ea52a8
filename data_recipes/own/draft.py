"""Turns and an owner -> a Sample as its split demands, checked as a row of a manifest is."""

from __future__ import annotations

from typing import Any

from medvlm.data_recipes.asking import DIMENSIONS
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.own.identity import Owner, Owners
from medvlm.data_recipes.own.rows import SourceRow
from medvlm.data_recipes.own.settings import Filled, question_kind
from medvlm.data_recipes.own.visuals import Visuals, written_text
from medvlm.data_recipes.sample import Preference, Question, Sample, Turn, VisualRef, from_json, to_json, visuals_of


class Workshop:
    """What every format needs of a recipe: its visuals, its owners, its licence."""

    def __init__(self, filled: Filled, visuals: Visuals, owners: Owners) -> None:
        self.filled, self.recipe, self.visuals, self.owners = filled, filled.recipe, visuals, owners

    def metadata(self, row_values: SourceRow, refs: tuple[VisualRef, ...]) -> dict[str, Any]:
        """The dimension, and the columns that the recipe keeps."""
        kinds = sorted({DIMENSIONS[ref.kind] for ref in refs})
        dimension = kinds[0] if len(kinds) == 1 else ("mixed" if kinds else "text")
        kept = {name: written_text(row_values.row, name) for name in self.recipe.fields.metadata}
        return {"dimension": dimension, **{name: value for name, value in kept.items() if value}}

    def conversation(self, source: SourceRow, turns: tuple[Turn, ...]) -> Sample:
        """A conversation to learn from; in validation and test its last answer is what is asked.

        Raises:
            BadSample: no answer at the end, turns out of order, an answer outside the choices.
        """
        where = source.row.where
        refs = visuals_of(turns)
        owner = self.owners.of(source, refs)
        question = None
        if owner.split != "train":
            if turns[-1].role != "assistant" or len(turns) < 2:
                raise BadSample(
                    "the conversation ends without an answer", where=where, mend="add the answer or drop the row"
                )
            question = self._question(turns[-1].text, where)
            turns = turns[:-1]
        return self._sample(source, owner, refs, turns, question=question)

    def pair(self, source: SourceRow, turns: tuple[Turn, ...], preference: Preference) -> Sample:
        """A preference pair.

        Raises:
            BadSample: turns out of order, or two sides that do not differ.
        """
        refs = visuals_of(turns) or visuals_of(preference.chosen)
        owner = self.owners.of(source, refs)
        return self._sample(source, owner, refs, turns, preference=preference)

    def _sample(
        self,
        source: SourceRow,
        owner: Owner,
        refs: tuple[VisualRef, ...],
        turns: tuple[Turn, ...],
        *,
        question: Question | None = None,
        preference: Preference | None = None,
    ) -> Sample:
        sample = Sample(
            sample_id=f"{self.recipe.name}/{source.key}",
            patient_id=owner.patient_id,
            study_id=owner.study_id,
            source=self.recipe.name,
            licence=self.filled.licence,
            split=owner.split,
            turns=turns,
            question=question,
            preference=preference,
            metadata=self.metadata(source, refs),
        )
        return checked(sample, source.row.where)

    def _question(self, answer: str, where: str) -> Question:
        kind = question_kind(self.recipe.question, answer)
        choices = self.recipe.choices
        if kind == "closed" and self.recipe.question == "vqa":
            choices, answer = ("yes", "no"), answer.strip().strip(".").lower()
        if kind in ("closed", "choice"):
            letters = [chr(ord("A") + place) for place in range(len(choices))]
            if answer not in choices and not (kind == "choice" and answer in letters):
                raise BadSample(
                    f"the answer {answer!r} is not one of {', '.join(choices)}",
                    where=where,
                    mend="correct the answer, or choices in the recipe",
                )
            return Question(kind=kind, answers=(answer,), choices=choices)
        return Question(kind=kind, answers=(answer,))


def checked(sample: Sample, where: str) -> Sample:
    """The same sample after every check that a manifest row gets.

    Raises:
        BadSample: turns out of order, empty texts, ...: in the words of ``sample.from_json``.
    """
    return from_json(to_json(sample), where=where)
