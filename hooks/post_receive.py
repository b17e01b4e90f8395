"""The post-receive hook: a push moved the branch that deploys (githooks(5)).

The dropped hook has seen to it that it was this branch, and no deletion. What is deployed is the
branch as it is once the lock is held, not what was pushed. What is printed goes to the pusher.
"""

from mirage_hooks.hooks import trigger


def main(state: str, arguments: list[str]) -> int:
    """Deploy."""
    del arguments
    return trigger.deploy(state, "push")
