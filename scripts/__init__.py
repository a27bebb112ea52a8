"""medvlm.scripts."""

if not __name__.startswith("medvlm."):
    raise ImportError(
        "'scripts' is the folder; the package is medvlm.scripts. "
        "Run `pip install -e .` in the repository and import that."
    )
