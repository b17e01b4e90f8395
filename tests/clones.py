"""Where a person, or a poll, works with a repository on this host, by its kind."""

from pathlib import Path

from support import Site, link_worktree, make_bare


def in_a_clone(site: Site, folder: Path) -> None:
    """A clone's own work tree: what a site is made with."""
    del site, folder


def in_a_linked_worktree(site: Site, folder: Path) -> None:
    link_worktree(site, folder)


def in_a_worktree_of_a_bare_repository(site: Site, folder: Path) -> None:
    make_bare(site, folder)
    link_worktree(site, folder)
