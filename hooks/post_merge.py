"""The post-merge hook: `git pull` or `git merge` moved the branch (githooks(5))."""

from mirage_hooks.hooks import trigger


def main(state: str, arguments: list[str]) -> int:
    """Deploy. The argument, whether it was a squash merge, says nothing about what should run."""
    del arguments
    return trigger.deploy(state, "pull", trigger.head())
