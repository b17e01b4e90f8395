"""What keeps a branch from its upstream, in words for who is to mend it."""

import re
from dataclasses import dataclass

from mirage_hooks.boot.bounded import TOO_LONG
from mirage_hooks.boot.errors import RepositoryError


class UpstreamError(RepositoryError):
    """The branch does not follow its upstream; `event` is how the log calls that."""

    def __init__(self, event: str, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.event = event


NOT_FETCHED = "repository.fetch-failed"
DIVERGED = "repository.diverged"
BLOCKED = "repository.blocked"


@dataclass(frozen=True)
class _Cause:
    """Why a fetch fails: how git, ssh or curl say so; in our words; what to do."""

    said: str
    words: str
    hint: str


# How the kernel and git say so.
DISK_FULL = "No space left on device|Disk quota exceeded|Out of diskspace"
_UNREACHABLE = "the next poll tries again; what runs goes on running"
_CAUSES = (
    _Cause(
        "detected dubious ownership",
        "git does not trust the owner of that repository",
        "if you do, run as this user the command that git names",
    ),
    _Cause(
        "REMOTE HOST IDENTIFICATION HAS CHANGED|Host key verification failed",
        "its host key is not the known one",
        "compare its fingerprint, then set it right in ~/.ssh/known_hosts of this user",
    ),
    _Cause(
        "terminal prompts disabled|could not read (Username|Password)|Authentication failed"
        "|Permission denied \\((?!publickey)",
        "it asks for a password, or takes none of what this user has",
        "a poll answers no prompt: give this user a key (a deploy key) or a credential helper",
    ),
    _Cause(
        "[Uu]nable to create temporary file.*Permission denied|could not create work tree dir"
        "|insufficient permission for adding an object|'.*(\\.lock|FETCH_HEAD)': Permission denied",
        "files of the repository cannot be written",
        "do they belong to another user, since git was run as that one? chown -R gives them back",
    ),
    _Cause(
        "Permission denied \\(publickey",
        "this user's key is not accepted there",
        "was it removed, or has it expired? Add a deploy key of this user's",
    ),
    _Cause(
        "[Cc]ouldn't find remote ref",
        "that branch is gone there",
        "name another: git branch --set-upstream-to, and mirage-hooks install --branch",
    ),
    _Cause(
        DISK_FULL,
        "the disk is full",
        "free some space; the next poll tries again",
    ),
    _Cause(
        "[Cc]ould not resolve|[Uu]nable to connect|Connection (refused|timed out|reset|closed)"
        "|No route to host|unreachable|Failed to connect|Couldn't connect|early EOF|hung up",
        "it cannot be reached",
        _UNREACHABLE,
    ),
    _Cause(
        "returned error: 403",
        "it does not let this user do that",
        "may its user, or its token, still use that repository? A token may have expired",
    ),
    _Cause(
        "returned error: (429|5\\d\\d)",
        "it cannot serve just now",
        _UNREACHABLE,
    ),
    _Cause(
        "info/refs not valid|unable to update url base from redirection",
        "what answers there is no git server: a page to sign in, maybe",
        "is the URL right, and need nobody sign in there? git remote -v shows it",
    ),
    _Cause(
        "certificate",
        "its certificate is not accepted",
        "mend it there, or this host's clock or certificates (Debian: ca-certificates)",
    ),
    _Cause(
        "not appear to be a git repository|[Nn]ot found|does not exist",
        "there is no such repository",
        "has it moved? git remote -v shows where it was; git remote set-url corrects that",
    ),
    _Cause(
        # Of a ref git does not say why.
        "couldn't write '.*\\.lock'",
        "the disk is full",
        "free some space; the next poll tries again",
    ),
    _Cause(
        "\\.lock'|cannot lock ref",
        "another git is at work here, or was killed at it",
        "if none is, remove the file that git names",
    ),
)
# What git says after what matters.
_BOILERPLATE = re.compile(
    r"^(Please make sure you have the correct access rights|and the repository exists\."
    r"|fatal: (Could not read from remote repository\.|the remote end hung up .*))$"
)


def not_fetched(branch: str, remote: str, code: int, said: str, seconds: int) -> UpstreamError:
    """Return, for who is to mend it, why a fetch failed: its exit code, what git said.

    It had `seconds` for it.
    """
    cause = _cause(said)
    hint = cause.hint if cause else f"try it by hand: git fetch {without_secrets(remote)}"
    if code in TOO_LONG:
        hint = f"it may take longer: timeout in [poll] of host.toml; {_UNREACHABLE}"
    return UpstreamError(
        NOT_FETCHED,
        f"{branch} could not be fetched from {without_secrets(remote)}: "
        f"{explained(code, said, seconds)}",
        hint,
    )


def explained(code: int, said: str, seconds: int) -> str:
    """Return why git could not reach a remote: in our words, if we have any, and in its own.

    What it had, but was ended after, are `seconds`.
    """
    if code in TOO_LONG:
        return f"it took more than {seconds} s"
    words = condensed(said) or f"git ended with {code}"
    cause = _cause(said)
    return f"{cause.words}: {words}" if cause else words


def _cause(said: str) -> _Cause | None:
    return next((one for one in _CAUSES if re.search(one.said, said)), None)


def condensed(said: str) -> str:
    """Return the lines that matter of what git said, as one; no secret of a URL is in it."""
    lines = [line.strip() for line in said.splitlines() if line.strip(" \t@")]
    telling = [line for line in lines if not _BOILERPLATE.match(line)] or lines
    return without_secrets("; ".join(telling))[:500]


def without_secrets(text: str) -> str:
    """Return a text without what stands before the host in its URLs: names, passwords, tokens."""
    return re.sub(r"://[^/@\s]*@", "://", text)
