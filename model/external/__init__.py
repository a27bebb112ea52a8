"""medvlm.model.external: vision-language models of transformers behind the interface of our own."""

if not __name__.startswith("medvlm."):
    raise ImportError("import medvlm.model.external; run `pip install -e .` in the repository first")
