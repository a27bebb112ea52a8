"""``medvlm plan``: a configuration and its files are checked before torch is imported; then ``medvlm.train.plan``."""

from __future__ import annotations

import sys

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.typed_yaml import BadConfig
from medvlm.train.early import load_checked


def main(arguments: list[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    # Options and their values are left to the parser of the command, which imports what takes seconds.
    configs = [word for word in given if word.endswith((".yaml", ".yml")) and not word.startswith("-")]
    overrides = [word for word in given if "=" in word and not word.startswith("-")]
    if configs:
        try:
            load_checked(configs[0], overrides)
        except (BadConfig, BadSample) as error:
            print(f"medvlm plan: {error}", file=sys.stderr)
            return 2

    from medvlm.train import plan

    return plan.main(given)


if __name__ == "__main__":
    sys.exit(main())
