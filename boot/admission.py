"""What this host allows of what a guest, or a recorded boot, asks."""

import os
import pwd

from mirage_hooks.boot import binding, host
from mirage_hooks.boot.errors import ConfigError
from mirage_hooks.boot.guest import Boot, Domain, Guest
from mirage_hooks.boot.host import Host, Limits


def admit(asked: Guest | Boot, bound: Host) -> None:
    """Raise ConfigError where this host does not allow what a guest, or a recorded boot, asks."""
    if asked.memory > bound.limits.memory:
        raise ConfigError(
            f"memory {asked.memory} MiB is more than this host allows ({bound.limits.memory})",
            f"raise `memory` in [limits] of {host.NAME}",
        )
    if asked.target not in bound.limits.targets:
        raise ConfigError(
            f"target {asked.target} is not allowed on this host",
            f"`targets` in [limits] of {host.NAME} has: {', '.join(bound.limits.targets)}",
        )
    if asked.target == "xen":
        _admit_domain(asked.domain, bound.limits)
    if asked.user is not None or asked.target == "unix":
        check_user(asked.user)
    if isinstance(asked, Boot):
        binding.admit(asked, bound)


def _admit_domain(asked: Domain, limits: Limits) -> None:
    if asked.vcpus > limits.vcpus:
        raise ConfigError(
            f"vcpus {asked.vcpus} is more than this host allows ({limits.vcpus})",
            f"raise `vcpus` in [limits] of {host.NAME}",
        )
    if asked.type is not None and asked.type not in limits.domains:
        raise ConfigError(
            f"a domain of type {asked.type} is not allowed on this host",
            f"`domains` in [limits] of {host.NAME} has: {', '.join(limits.domains)}",
        )


def check_user(user: str | None) -> None:
    """Raise ConfigError where guests cannot be run as a user; None is who runs this."""
    if user is None:
        if os.geteuid() == 0:
            raise ConfigError(
                "a unix guest is native code, and root does not run it as root",
                f'name a user: mirage-hooks install --user USER, or user = "..." in {host.NAME}',
            )
        return
    try:
        account = pwd.getpwnam(user)
    except (KeyError, ValueError):
        raise ConfigError(f"user {user!r} does not exist on this host") from None
    if account.pw_uid == 0:
        raise ConfigError(f"user {user!r} is root, who runs no guest")
    if os.geteuid() not in {0, account.pw_uid}:
        raise ConfigError(f"user {user!r} can be given only where root runs the guests")
