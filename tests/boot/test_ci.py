"""Which CI system runs this, for what, and whether anything is published from there."""

import pytest

from mirage_hooks.boot import ci
from mirage_hooks.boot.ci import Run
from mirage_hooks.boot.errors import ConfigError

SHA = "0f" * 20

GITHUB = {
    "CI": "true",
    "GITHUB_ACTIONS": "true",
    "GITHUB_EVENT_NAME": "push",
    "GITHUB_SHA": SHA,
    "GITHUB_REF": "refs/heads/main",
    "GITHUB_REF_NAME": "main",
    "GITHUB_REF_TYPE": "branch",
    "GITHUB_HEAD_REF": "",
    "GITHUB_SERVER_URL": "https://github.com",
    "GITHUB_REPOSITORY": "me/site",
    "GITHUB_RUN_ID": "4711",
    "GITHUB_RUN_NUMBER": "3",
}
FORGEJO = {**GITHUB, "GITEA_ACTIONS": "true", "GITHUB_SERVER_URL": "https://code.example.org"}
GITLAB = {
    "CI": "true",
    "GITLAB_CI": "true",
    "CI_PIPELINE_SOURCE": "push",
    "CI_COMMIT_SHA": SHA,
    "CI_COMMIT_BRANCH": "main",
    "CI_PROJECT_URL": "https://gitlab.com/me/site",
    "CI_JOB_URL": "https://gitlab.com/me/site/-/jobs/9",
}
WOODPECKER = {
    "CI": "woodpecker",
    "CI_PIPELINE_EVENT": "push",
    "CI_COMMIT_SHA": SHA,
    "CI_COMMIT_BRANCH": "main",
    "CI_REPO_URL": "https://codeberg.org/me/site",
    "CI_PIPELINE_URL": "https://ci.codeberg.org/repos/1/pipeline/7",
}
TRAVIS = {
    "CI": "true",
    "TRAVIS": "true",
    "TRAVIS_EVENT_TYPE": "push",
    "TRAVIS_PULL_REQUEST": "false",
    "TRAVIS_COMMIT": SHA,
    "TRAVIS_BRANCH": "main",
    "TRAVIS_TAG": "",
    "TRAVIS_REPO_SLUG": "me/site",
    "TRAVIS_JOB_WEB_URL": "https://app.travis-ci.com/me/site/jobs/5",
}
SYSTEMS = {
    "GitHub Actions": GITHUB,
    "Forgejo Actions": FORGEJO,
    "GitLab CI": GITLAB,
    "Woodpecker CI": WOODPECKER,
    "Travis CI": TRAVIS,
}


def detected(variables: dict[str, str]) -> Run:
    run = ci.detect(variables)
    assert run is not None
    return run


@pytest.mark.parametrize(
    ("name", "repository", "url"),
    [
        ("GitHub Actions", "https://github.com/me/site", "actions/runs/4711"),
        ("Forgejo Actions", "https://code.example.org/me/site", "actions/runs/3"),
        ("GitLab CI", "https://gitlab.com/me/site", "-/jobs/9"),
        ("Woodpecker CI", "https://codeberg.org/me/site", "repos/1/pipeline/7"),
        ("Travis CI", "me/site", "jobs/5"),
    ],
)
def test_a_system_is_known_by_its_own_variables(name: str, repository: str, url: str) -> None:
    run = detected(SYSTEMS[name])
    assert (run.system, run.commit, run.branch) == (name, SHA, "main")
    assert (run.repository, run.url.endswith(url)) == (repository, True)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_push_to_the_branch_is_published(name: str) -> None:
    ci.admit(detected(SYSTEMS[name]), "main")


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_push_to_another_branch_is_not(name: str) -> None:
    with pytest.raises(ConfigError, match="runs this for branch main: only release is published"):
        ci.admit(detected(SYSTEMS[name]), "release")


# For several of these the branch is the one that the request is to be merged into.
REQUESTS = {
    "GitHub's pull_request": {**GITHUB, "GITHUB_EVENT_NAME": "pull_request"},
    "GitHub's pull_request_target": {
        **GITHUB,
        "GITHUB_EVENT_NAME": "pull_request_target",
        "GITHUB_HEAD_REF": "evil",
    },
    "GitHub's review": {**GITHUB, "GITHUB_EVENT_NAME": "pull_request_review"},
    "Forgejo's pull_request": {**FORGEJO, "GITHUB_EVENT_NAME": "pull_request"},
    "GitLab's merge request": {
        **GITLAB,
        "CI_PIPELINE_SOURCE": "merge_request_event",
        "CI_MERGE_REQUEST_IID": "1",
    },
    "GitLab's of GitHub": {**GITLAB, "CI_PIPELINE_SOURCE": "external_pull_request_event"},
    "Woodpecker's": {**WOODPECKER, "CI_PIPELINE_EVENT": "pull_request"},
    "Woodpecker's that was closed": {**WOODPECKER, "CI_PIPELINE_EVENT": "pull_request_closed"},
    "Travis's": {**TRAVIS, "TRAVIS_PULL_REQUEST": "17", "TRAVIS_EVENT_TYPE": "pull_request"},
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_pull_request_is_never_published(name: str) -> None:
    with pytest.raises(ConfigError, match="for a pull request: nothing is published from one"):
        ci.admit(detected(REQUESTS[name]), "main")


TAGS = {
    "GitHub": {**GITHUB, "GITHUB_REF_TYPE": "tag"},
    "Forgejo": {**FORGEJO, "GITHUB_REF_TYPE": "tag"},
    "GitLab": {**GITLAB, "CI_COMMIT_TAG": "main"},
    "Woodpecker": {**WOODPECKER, "CI_PIPELINE_EVENT": "tag"},
    "Travis": {**TRAVIS, "TRAVIS_TAG": "main"},
}


@pytest.mark.parametrize("name", TAGS)
def test_a_tag_that_is_called_like_the_branch_is_not_it(name: str) -> None:
    with pytest.raises(ConfigError, match="for a tag, or for no branch"):
        ci.admit(detected(TAGS[name]), "main")


def test_where_nobody_says_which_branch_it_is_nothing_is_published() -> None:
    with pytest.raises(ConfigError, match="for no branch"):
        ci.admit(detected({"GITLAB_CI": "true"}), "main")


@pytest.mark.parametrize("variables", [{}, {"CI": "true"}, {"GITHUB_ACTIONS": ""}])
def test_elsewhere_there_is_no_run(variables: dict[str, str]) -> None:
    assert ci.detect(variables) is None
