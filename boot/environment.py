"""The environment that git gives a hook, and how to be rid of it."""

import os

from mirage_hooks.boot.errors import HostError

# `git rev-parse --local-env-vars`, and what else a hook finds set: they would point every git
# command at the repository, quarantine or transport of the operation that ran the hook.
LEAKING = frozenset(
    f"GIT_{name}"
    for name in (
        *("ALTERNATE_OBJECT_DIRECTORIES", "CONFIG", "CONFIG_PARAMETERS", "CONFIG_COUNT"),
        *("OBJECT_DIRECTORY", "DIR", "WORK_TREE", "IMPLICIT_WORK_TREE", "GRAFT_FILE", "INDEX_FILE"),
        *("NO_REPLACE_OBJECTS", "REPLACE_REF_BASE", "PREFIX", "SHALLOW_FILE", "COMMON_DIR"),
        *("INTERNAL_SUPER_PREFIX", "QUARANTINE_PATH", "EXEC_PATH", "REFLOG_ACTION"),
    )
)


def not_found(program: str) -> HostError:
    """Return the error for a program that is not on the PATH."""
    return HostError(
        f"{program} is not found: PATH is {os.environ.get('PATH', 'not set')}",
        "install it, or have whatever runs this (cron, a unit) set PATH",
    )


# Configuration in the environment (git-config(1)) is not git's doing, but that of who ran it. CI
# gives credentials and a name by it.
GIVEN = frozenset({"GIT_CONFIG_COUNT"})


def leave_operation(keep: frozenset[str] = frozenset()) -> None:
    """Make the environment of this process a clean one, whatever git operation it is run from."""
    for name in (LEAKING - keep) & set(os.environ):
        del os.environ[name]
