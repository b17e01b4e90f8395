"""The files that CI systems are given: what each would run, and what each system tells its jobs."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import ci_runs
from ci_runs import REQUESTS
from site_copy import SITE

CI = SITE.parent / "ci"
PUBLISH = "sh ci/publish.sh"


@dataclass(frozen=True)
class System:
    """A CI system: its file here and in a repository, its schema, and what it would run."""

    name: str
    place: str
    schema: str
    builds: Callable[[Any], list[str]]
    variables: Mapping[str, str]
    request: Mapping[str, str]

    def __str__(self) -> str:
        return self.name

    @property
    def file(self) -> Path:
        """Its file here."""
        return CI / f"{self.name}.yml"

    def read(self) -> Any:
        """Return what its file says."""
        return YAML(typ="safe").load(self.file.read_text())


# The shell's commands that build, with the variables that the system would replace.


def filled(command: str, form: str, variables: dict[str, str]) -> str:
    return re.sub(form, lambda name: variables.get(name[1], ""), command)


def actions(file: Any) -> list[str]:
    job = file["jobs"]["build"]
    command = next(step["run"] for step in job["steps"] if "build.sh" in step.get("run", ""))
    variants = job["strategy"]["matrix"]["include"]
    return [filled(command, r"\$\{\{ matrix\.(\w+) \}\}", one) for one in variants]


def woodpecker(file: Any) -> list[str]:
    (command,) = file["steps"][0]["commands"]
    return [filled(command, r"\$\{(\w+)\}", one) for one in file["matrix"]["include"]]


def gitlab(file: Any) -> list[str]:
    (command,) = file[".build"]["script"]
    jobs = [job for job in file.values() if isinstance(job, dict) and "extends" in job]
    return [
        "".join(f"{name}='{value}'\n" for name, value in job["variables"].items()) + command
        for job in jobs
    ]


def travis(file: Any) -> list[str]:
    (command,) = file["script"]
    return [f"{job['env']}\n{command}" for job in file["jobs"]["include"]]


GITHUB = System(
    "github-actions",
    ".github/workflows/unikernel.yml",
    "github-workflows",
    actions,
    ci_runs.GITHUB,
    REQUESTS["GitHub's pull_request"],
)
# Forgejo has no schema of its own that can be installed; its syntax follows GitHub's.
FORGEJO = System(
    "forgejo-actions",
    ".forgejo/workflows/unikernel.yml",
    "github-workflows",
    actions,
    ci_runs.FORGEJO,
    REQUESTS["Forgejo's pull_request"],
)
WOODPECKER = System(
    "woodpecker",
    ".woodpecker/unikernel.yml",
    "woodpecker-ci",
    woodpecker,
    ci_runs.WOODPECKER,
    REQUESTS["Woodpecker's"],
)
GITLAB = System(
    "gitlab-ci",
    ".gitlab-ci.yml",
    "gitlab-ci",
    gitlab,
    ci_runs.GITLAB,
    REQUESTS["GitLab's merge request"],
)
TRAVIS = System("travis", ".travis.yml", "travis", travis, ci_runs.TRAVIS, REQUESTS["Travis's"])
SYSTEMS = (GITHUB, FORGEJO, WOODPECKER, GITLAB, TRAVIS)

each = pytest.mark.parametrize("system", SYSTEMS, ids=str)
