"""What the documents say is true: links resolve, commands exist, examples run, every field and recipe is described."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from medvlm.data_recipes.readers import clip, dicom, nifti, numpy_archive, numpy_array, picture
from medvlm.data_recipes.sample import from_json
from medvlm.scripts.cli import COMMANDS
from medvlm.scripts.dataset_pages import MADE, pages
from medvlm.scripts.marked_page import with_block
from medvlm.scripts.recipe_table import BEGIN, END, recipe_table, with_table
from medvlm.scripts.recipe_table import main as recipe_table_main
from medvlm.scripts.task_table import BEGIN as TASKS_BEGIN
from medvlm.scripts.task_table import END as TASKS_END
from medvlm.scripts.task_table import task_table
from medvlm.train import config
from medvlm.train.config import load_curriculum

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "datasets").glob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(?:^|`|\s)medvlm ((?:data|eval)(?: [a-z]+)?|[a-z][\w-]*)")
MODULE = re.compile(r"(?:python|python3|torchrun [^\n]*?) -m (medvlm[\w.]+)")


def blocks(page: Path, language: str) -> list[str]:
    return [text for name, text in FENCE.findall(page.read_text(encoding="utf-8")) if name == language]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    broken = []
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = page.parent / path if path else page
        if not place.exists() or (anchor and anchor not in anchors(place)):
            broken.append(f"{page.name}: {target}")
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page):
    assert broken_links(page) == []


def test_a_broken_link_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A b\n[x](missing.md) [y](#a-b) [z](#nowhere) [w](https://example.org)\n")
    assert broken_links(page) == ["page.md: missing.md", "page.md: #nowhere"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page):
    text = page.read_text(encoding="utf-8")
    known = {" ".join(words) for words in COMMANDS}
    code = "\n".join(body for _, body in FENCE.findall(text)) + "\n" + "\n".join(re.findall(r"`([^`\n]+)`", text))
    for name in COMMAND.findall(code):
        assert name in known, f"{page.name} names the command medvlm {name}"
    for module in MODULE.findall(code):
        spec = importlib.util.find_spec(module)
        assert spec is not None, f"{page.name} names the module {module}"
        assert callable(importlib.import_module(module).main)
    for script in re.findall(r"(?:bash|sbatch)(?: --[\w=-]+)* ([\w/]+\.sh)", code):
        assert (ROOT / script).is_file(), f"{page.name} names the script {script}"
    for file in re.findall(r"(?<![\w/])(configs/[\w-]+\.yaml)", code):
        assert (ROOT / file).is_file(), f"{page.name} names the file {file}"


def test_every_command_is_described():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [" ".join(words) for words in COMMANDS if f"`medvlm {' '.join(words)}" not in readme] == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("add-*.md")), ids=lambda page: page.name)
def test_worked_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = blocks(page, "python")
    assert examples, f"{page.name} has no example"
    space: dict[str, object] = {"__name__": f"example_{page.stem.replace('-', '_')}"}
    for number, example in enumerate(examples, start=1):
        exec(compile(example, f"{page.name}, example {number}", "exec"), space)


def test_curricula_of_the_documents_parse(tmp_path):
    found = 0
    for page in PAGES:
        for number, text in enumerate(blocks(page, "yaml")):
            path = tmp_path / f"{page.stem}-{number}.yaml"
            if re.search(r"^stages:", text, re.MULTILINE) and re.search(r"^model:", text, re.MULTILINE):
                path.write_text(text)
                load_curriculum(path)
                found += 1
    assert found >= 1


def test_samples_of_the_documents_are_accepted():
    found = 0
    for text in blocks(ROOT / "docs" / "data.md", "json"):
        row = json.loads(text)
        if "sample_id" in row:
            from_json(row, where="docs/data.md")
            found += 1
    assert found >= 3


def test_options_of_the_readers_are_described():
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    readers = (
        picture.read,
        dicom.read_file,
        dicom.read_series,
        dicom.read_cine,
        nifti.read,
        numpy_array.read,
        numpy_archive.read,
        clip.read,
    )
    table = page[page.index("## Readers") : page.index("- **Units.**")]
    rows = [row.split("|")[3] for row in table.splitlines() if row.startswith("|")][2:]
    for reader, row in zip(readers, rows, strict=True):
        names = {name for name in inspect.signature(reader).parameters if name not in ("path", "source", "at_least")}
        assert set(re.findall(r"`(\w+)`", row)) == names, reader.__module__


def test_every_field_of_a_curriculum_is_described():
    text = (ROOT / "docs" / "curriculum.md").read_text(encoding="utf-8")
    kinds = [
        k for k in vars(config).values() if dataclasses.is_dataclass(k) and k.__module__.startswith("medvlm.train")
    ]
    assert len(kinds) >= 10
    missing = [f"{k.__name__}.{f.name}" for k in kinds for f in dataclasses.fields(k) if f"`{f.name}`" not in text]
    assert missing == []


def test_the_table_of_datasets_is_that_of_the_recipes():
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    assert with_table(page, recipe_table()) == page, "run python -m medvlm.scripts.recipe_table --write docs/data.md"


def test_the_table_of_tasks_is_that_of_the_tasks():
    page = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    assert with_block(page, TASKS_BEGIN, TASKS_END, task_table()) == page, (
        "run python -m medvlm.scripts.task_table --write docs/tasks.md"
    )


def test_the_pages_of_datasets_are_those_of_the_recipes():
    folder = ROOT / "docs" / "datasets"
    committed = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    assert committed == pages(), "run python -m medvlm.scripts.recipe_table --pages docs/datasets"


def test_pages_are_written_whole_and_stale_ones_go(tmp_path):
    (tmp_path / "gone.md").write_text(f"# gone\n\n{MADE}\n")
    (tmp_path / "mine.md").write_text("# written by hand\n")
    assert recipe_table_main(["--pages", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"mine.md", *pages()}
    page = (tmp_path / "ct-rate.md").read_text()
    for part in ("CC BY-NC-SA 4.0", "huggingface.co", "arXiv:2403.17834", "train_fixed", "medvlm data walk FOLDER"):
        assert part in page


def test_a_stale_table_is_seen():
    page = f"a\n{BEGIN}\n| old |\n{END}\nb\n"
    assert with_table(page, recipe_table()) != page
    with pytest.raises(ValueError, match="recipes:begin"):
        with_table("no markers", recipe_table())


def test_launch_scripts_refuse_to_start_without_a_configuration():
    for name in ("torchrun.sh", "slurm.sh"):
        script = ROOT / "scripts" / "launch" / name
        assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
        done = subprocess.run(["bash", script], capture_output=True, text=True, check=False)
        assert done.returncode == 2 and "CONFIG" in done.stderr


def test_slurm_starts_one_launcher_per_machine_with_a_common_rendezvous(tmp_path):
    programs = {"scontrol": "echo node-a; echo node-b", "srun": 'printf "%s\\n" "$@"'}
    for name, body in programs.items():
        path = tmp_path / name
        path.write_text(f"#!/usr/bin/env bash\n{body}\n")
        path.chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "77", "SLURM_NNODES": "2",
        "SLURM_JOB_NODELIST": "node-[a-b]", "SLURM_GPUS_ON_NODE": "4", "SLURM_CPUS_PER_TASK": "16", "PYTHON": "python",
    }  # fmt: skip
    script = ROOT / "scripts" / "launch" / "slurm.sh"
    done = subprocess.run(
        ["bash", script, "a.yaml", "seed=1"], env=environment, capture_output=True, text=True, check=True
    )
    words = done.stdout.splitlines()
    for word in ("--ntasks=2", "--ntasks-per-node=1", "--cpus-per-task=16", "--nnodes=2", "--nproc_per_node=4"):
        assert word in words
    assert "--rdzv_endpoint=node-a:20077" in words and "--rdzv_id=77" in words
    assert words[-4:] == ["-m", "medvlm.train.run", "a.yaml", "seed=1"]
