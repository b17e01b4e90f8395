"""The post-rewrite hook: `git pull --rebase` replayed local commits (githooks(5)).

Such a pull runs no post-merge.
"""

from mirage_hooks.hooks import trigger


def main(state: str, arguments: list[str]) -> int:
    """Deploy. The argument says which command rewrote commits: rebase or amend."""
    return trigger.deploy(state, arguments[0] if arguments else "rewrite", trigger.head())
