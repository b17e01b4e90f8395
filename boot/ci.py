"""Which run of which CI system this is, by the variables that the system itself sets.

Pure: a table. Each system documents its variables: GitHub ("Variables reference"), Forgejo and
Gitea (the same names, since their runners take over GitHub's), GitLab ("Predefined CI/CD variables
reference"), Woodpecker ("Environment variables") and Travis ("Environment Variables").
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from mirage_hooks.boot.errors import ConfigError

_SET = ".+"


@dataclass(frozen=True)
class Run:
    """One run of a CI system. `branch` is None where it is about a tag, or nobody says."""

    system: str
    commit: str
    branch: str | None
    pull_request: bool
    repository: str
    url: str


@dataclass(frozen=True)
class _System:
    """How a CI system tells of its runs.

    `marks`, `requests` and `tags` are patterns of variables: one that matches wholly makes it a run
    of this system, of what is or may stand for a pull request, of a tag. `repository` and `url` are
    made of variables.
    """

    name: str
    marks: Mapping[str, str]
    commit: str
    branch: str
    repository: str
    url: str
    requests: Mapping[str, str]
    tags: Mapping[str, str] = field(default_factory=dict)


# A request's own branch is in GITHUB_HEAD_REF alone: for pull_request_target GITHUB_REF is that of
# the branch it is to be merged into.
_AS_GITHUB = {
    "commit": "GITHUB_SHA",
    "branch": "GITHUB_REF_NAME",
    "repository": "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}",
}
# For a comment on a request, and for what runs after one's run (issue_comment, workflow_run), it is
# the default branch. So the events are told that are no one's but of who may push.
_GITHUB_OWN = "push|workflow_dispatch|schedule|repository_dispatch"
_GITHUB_REQUESTS = {"GITHUB_EVENT_NAME": f"(?!({_GITHUB_OWN})$).*", "GITHUB_HEAD_REF": _SET}
_GITHUB_TAGS = {"GITHUB_REF_TYPE": "tag"}
_GITHUB_RUNS = "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}/actions/runs/"

# Forgejo and Gitea say that they are GitHub, too: they come first.
_SYSTEMS = (
    _System(
        "Forgejo Actions",
        {"FORGEJO_ACTIONS": "true", "GITEA_ACTIONS": "true"},
        **_AS_GITHUB,
        url=_GITHUB_RUNS + "{GITHUB_RUN_NUMBER}",
        requests=_GITHUB_REQUESTS,
        tags=_GITHUB_TAGS,
    ),
    _System(
        "GitHub Actions",
        {"GITHUB_ACTIONS": "true"},
        **_AS_GITHUB,
        url=_GITHUB_RUNS + "{GITHUB_RUN_ID}",
        requests=_GITHUB_REQUESTS,
        tags=_GITHUB_TAGS,
    ),
    _System(
        "GitLab CI",
        {"GITLAB_CI": "true"},
        commit="CI_COMMIT_SHA",
        branch="CI_COMMIT_BRANCH",
        repository="{CI_PROJECT_URL}",
        url="{CI_JOB_URL}",
        requests={
            "CI_PIPELINE_SOURCE": "(merge|external_pull)_request_event",
            "CI_MERGE_REQUEST_IID": _SET,
            "CI_EXTERNAL_PULL_REQUEST_IID": _SET,
        },
        tags={"CI_COMMIT_TAG": _SET},
    ),
    _System(
        "Woodpecker CI",
        {"CI": "woodpecker"},
        commit="CI_COMMIT_SHA",
        branch="CI_COMMIT_BRANCH",
        repository="{CI_REPO_URL}",
        url="{CI_PIPELINE_URL}",
        requests={"CI_PIPELINE_EVENT": "pull_request.*", "CI_COMMIT_PULL_REQUEST": _SET},
        tags={"CI_PIPELINE_EVENT": "tag|release", "CI_COMMIT_TAG": _SET},
    ),
    _System(
        "Travis CI",
        {"TRAVIS": "true"},
        commit="TRAVIS_COMMIT",
        branch="TRAVIS_BRANCH",
        repository="{TRAVIS_REPO_SLUG}",
        url="{TRAVIS_JOB_WEB_URL}",
        requests={"TRAVIS_PULL_REQUEST": "(?!false$).+", "TRAVIS_EVENT_TYPE": "pull_request"},
        tags={"TRAVIS_TAG": _SET},
    ),
)


def detect(variables: Mapping[str, str]) -> Run | None:
    """Return the run that an environment is of, None outside of the CI systems known here."""
    for system in _SYSTEMS:
        if _any(system.marks, variables):
            there = defaultdict(str, variables)
            branch = None if _any(system.tags, variables) else there[system.branch]
            return Run(
                system.name,
                there[system.commit],
                branch or None,
                _any(system.requests, variables),
                system.repository.format_map(there).strip("/"),
                system.url.format_map(there).strip("/"),
            )
    return None


def admit(run: Run, branch: str) -> None:
    """Raise ConfigError for a run from which nothing is published: not of that branch alone."""
    if run.pull_request:
        raise ConfigError(
            f"{run.system} runs this for a pull request, or an event that may stand for one: "
            "nothing is published",
            f"have the job run for pushes to {branch} only",
        )
    if run.branch != branch:
        what = f"branch {run.branch}" if run.branch is not None else "a tag, or for no branch"
        raise ConfigError(
            f"{run.system} runs this for {what}: only {branch} is published",
            "--source-branch names another",
        )


def _any(patterns: Mapping[str, str], variables: Mapping[str, str]) -> bool:
    return any(re.fullmatch(one, variables.get(name, "")) for name, one in patterns.items())
