"""Imports go one way: model <- data_recipes <- eval <- train <- scripts."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ORDER = ("model", "data_recipes", "eval", "train", "scripts")


def imported_folders(path: Path) -> set[str]:
    """Return the medvlm folders that the Python file at ``path`` imports."""
    folders: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write medvlm.<folder>"
            names = [node.module or ""]
            if node.module == "medvlm":
                names = [f"medvlm.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "medvlm" and len(parts) > 1:
                folders.add(parts[1])
            assert parts[0] not in ORDER, f"{path}:{node.lineno}: write medvlm.{name}"
    return folders


def test_imports_go_one_way():
    broken = []
    for rank, folder in enumerate(ORDER):
        allowed = set(ORDER[: rank + 1])
        for path in sorted((ROOT / folder).rglob("*.py")):
            broken += [f"{path.relative_to(ROOT)} imports medvlm.{f}" for f in imported_folders(path) - allowed]
    assert not broken, "\n".join(broken)


def test_the_rule_sees_a_break(tmp_path):
    planted = tmp_path / "planted.py"
    planted.write_text("from medvlm.train.config import Stage\n")
    assert imported_folders(planted) == {"train"}
