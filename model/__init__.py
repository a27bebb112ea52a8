"""medvlm.model."""

if not __name__.startswith("medvlm."):
    raise ImportError(
        "'model' is the folder; the package is medvlm.model. "
        "Run `pip install -e .` in the repository and import that."
    )
