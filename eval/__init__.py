"""medvlm.eval."""

if not __name__.startswith("medvlm."):
    raise ImportError(
        "'eval' is the folder; the package is medvlm.eval. Run `pip install -e .` in the repository and import that."
    )
