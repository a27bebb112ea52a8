"""medvlm.train."""

if not __name__.startswith("medvlm."):
    raise ImportError(
        "'train' is the folder; the package is medvlm.train. Run `pip install -e .` in the repository and import that."
    )
