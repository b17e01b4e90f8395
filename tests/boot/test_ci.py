"""Which CI system runs this, for what, and whether anything is published from there."""

import pytest

from ci_runs import FORGEJO, GITHUB, GITLAB, REQUESTS, SHA, SYSTEMS, TRAVIS, WOODPECKER
from mirage_hooks.boot import ci
from mirage_hooks.boot.ci import Run
from mirage_hooks.boot.errors import ConfigError


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


@pytest.mark.parametrize("event", ["workflow_dispatch", "schedule", "repository_dispatch"])
def test_so_is_what_somebody_who_may_push_has_started(event: str) -> None:
    ci.admit(detected({**GITHUB, "GITHUB_EVENT_NAME": event}), "main")


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_push_to_another_branch_is_not(name: str) -> None:
    with pytest.raises(ConfigError, match="runs this for branch main: only release is published"):
        ci.admit(detected(SYSTEMS[name]), "release")


@pytest.mark.parametrize("name", REQUESTS)
def test_a_pull_request_is_never_published(name: str) -> None:
    with pytest.raises(ConfigError, match=r"for a pull request, or .* nothing is published"):
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
