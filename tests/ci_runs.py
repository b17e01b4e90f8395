"""What CI systems tell their jobs: the variables of a push to main, and of requests to merge."""

import os

import pytest

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

# For several of these the branch is the one that the request is to be merged into.
REQUESTS = {
    "GitHub's pull_request": {**GITHUB, "GITHUB_EVENT_NAME": "pull_request"},
    "GitHub's pull_request_target": {
        **GITHUB,
        "GITHUB_EVENT_NAME": "pull_request_target",
        "GITHUB_HEAD_REF": "evil",
    },
    "GitHub's review": {**GITHUB, "GITHUB_EVENT_NAME": "pull_request_review"},
    "GitHub's workflow_run": {**GITHUB, "GITHUB_EVENT_NAME": "workflow_run"},
    "GitHub's comment": {**GITHUB, "GITHUB_EVENT_NAME": "issue_comment"},
    "GitHub's without a name": {**GITHUB, "GITHUB_EVENT_NAME": ""},
    "Forgejo's comment": {**FORGEJO, "GITHUB_EVENT_NAME": "issue_comment"},
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


def leave_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a test be no job of the CI system that runs it."""
    own = ("CI_", "GITHUB_", "GITEA_", "FORGEJO_", "GITLAB_", "TRAVIS")
    for name in [name for name in os.environ if name == "CI" or name.startswith(own)]:
        monkeypatch.delenv(name)
