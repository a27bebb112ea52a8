"""What stands in a folder of reports: ``python -m medvlm.data_recipes.reports.survey FOLDER``.

Counts only, never words of a report: sections, marks of de-identification, texts that speak of a prior, and how many
reports each policy keeps. Reads .txt files as they are and the XML reports of Open-i by their labels.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import get_args

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.progress import tracking
from medvlm.data_recipes.reports.cleaning import Policy, blanks
from medvlm.data_recipes.reports.priors import speaks_of_prior
from medvlm.data_recipes.reports.sections import Report, from_parts, sections
from medvlm.data_recipes.reports.written import ANSWER, CONTEXT, answer_of
from medvlm.data_recipes.tables import read_text, read_xml

ASKED = (*ANSWER, *CONTEXT, "comparison", "technique")
POLICIES: tuple[Policy, ...] = get_args(Policy)


def read_report(path: Path) -> Report:
    """The report of a .txt file, or of an .xml file of Open-i.

    Raises:
        BadSample: it cannot be read, or holds no text.
    """
    if path.suffix == ".xml":
        labels = ((part.get("Label") or "", "".join(part.itertext())) for part in read_xml(path).iter("AbstractText"))
        report = from_parts(labels)
    else:
        report = sections(read_text(path))
    if not report.text.strip():
        raise BadSample("the report is empty", where=str(path), mend="leave the file out")
    return report


def count(report: Report) -> Counter[str]:
    """What one report adds to the survey."""
    found: Counter[str] = Counter({"reports": 1})
    texts = {name: report.text_of(name) for name in ASKED}
    found.update(f"section {name}" for name, text in texts.items() if text)
    found["last paragraph without a header"] += report.last_paragraph is not None
    found["sections repeated in other words"] += bool(report.repeated)
    marks = blanks("\n".join(text for text in texts.values() if text))
    found["marks of de-identification"] += len(marks)
    found.update(f"marks: {mark.kind}" for mark in marks)
    found["reports with marks"] += bool(marks)
    answer = "\n".join(text for name in ANSWER if (text := texts[name]))
    found["answers with marks"] += bool(blanks(answer))
    found["answers that speak of a prior"] += bool(speaks_of_prior(answer))
    for marks_policy, prior_policy in product(POLICIES, POLICIES):
        try:
            answer_of(report, where="", marks=marks_policy, unseen_prior=prior_policy)
        except BadSample:
            continue
        found[f"kept with marks {marks_policy}, unseen prior {prior_policy}"] += 1
    return found


def survey(paths: Iterable[Path], *, show: bool = False) -> tuple[Counter[str], list[BadSample]]:
    """Counts over all ``paths``, and the files that cannot be read."""
    total, refused = Counter[str](), []
    paths = list(paths)
    with tracking("reading reports", len(paths), show=show) as track:
        for path in paths:
            try:
                total.update(count(read_report(path)))
            except BadSample as bad:
                refused.append(bad)
            track.advance()
    return total, refused


def main(arguments: list[str] | None = None) -> int:
    """Print the counts; the exit code is 1 when a file cannot be read, 2 when there is no report."""
    parser = argparse.ArgumentParser(description="count sections, marks and priors in a folder of reports")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    settings = parser.parse_args(arguments)
    paths = sorted(path for path in settings.folder.rglob("*") if path.suffix in (".txt", ".xml") and path.is_file())
    if not paths:
        print(f"no .txt or .xml report lies under {settings.folder}", file=sys.stderr)
        return 2
    total, refused = survey(paths, show=True)
    counts = {**{key: total[key] for key in sorted(total) if total[key]}, "unreadable files": len(refused)}
    print(json.dumps(counts) if settings.json else "\n".join(f"{value:>8}  {key}" for key, value in counts.items()))
    for bad in refused:
        print(bad, file=sys.stderr)
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
