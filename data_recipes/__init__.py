"""medvlm.data_recipes."""

if not __name__.startswith("medvlm."):
    raise ImportError(
        "'data_recipes' is the folder; the package is medvlm.data_recipes. "
        "Run `pip install -e .` in the repository and import that."
    )
