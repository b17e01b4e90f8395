"""What CI systems are given: files that they take, which build three variants and publish one.

The CI systems themselves cannot be had here: their files are checked against their published
schemas, and the commands in them are run, with recorders in the place of what builds an image.
"""

import sys
from pathlib import Path

import pytest

from ci_files import CI, FORGEJO, GITHUB, GITLAB, PUBLISH, SYSTEMS, TRAVIS, WOODPECKER, System, each
from site_copy import SITE, SiteCopy
from support import run

ADDRESS = "ADDR=192.0.2.10 MASK=255.255.255.0 GWS=192.0.2.1"


@each
def test_a_file_is_as_its_systems_schema_wants_it(system: System) -> None:
    checker = Path(sys.executable).with_name("check-jsonschema")
    schema = f"vendor.{system.schema}"
    run(checker, "--builtin-schema", schema, str(system.file), cwd=CI)


def test_there_is_a_file_for_each_system() -> None:
    assert {path.name for path in CI.iterdir()} == {system.file.name for system in SYSTEMS}


@each
def test_a_file_says_where_it_belongs_and_so_does_the_page(system: System) -> None:
    assert system.file.read_text().partition("\n")[0].endswith(f": copy to {system.place}.")
    assert f"(../ci/{system.file.name}) | `{system.place}` |" in (SITE / "README.md").read_text()


# What is built.


@each
def test_three_variants_are_built(system: System, unprepared: SiteCopy) -> None:
    for command in system.builds(system.read()):
        run("sh", "-c", command, cwd=unprepared.folder)
    assert unprepared.configured() == [
        "mirage configure -t unix --net=socket in mirage with ADDR= MASK= GWS=",
        "mirage configure -t unix --net=direct in mirage with ADDR= MASK= GWS=",
        f"mirage configure -t xen --net=direct --no-dhcp in mirage with {ADDRESS}",
    ]


@each
def test_a_build_that_fails_fails_the_job(system: System, unprepared: SiteCopy) -> None:
    unprepared.put("mirage", "#!/bin/sh\nexit 3\n")
    for command in system.builds(system.read()):
        assert run("sh", "-c", command, cwd=unprepared.folder, check=False).returncode != 0


def test_a_build_installs_all_that_it_needs(unprepared: SiteCopy) -> None:
    run("sh", "ci/build.sh", "socket", cwd=unprepared.folder)
    assert [" ".join(call.split()[:3]) for call in unprepared.calls()] == [
        "apt-get update -qq",
        "apt-get install -y",
        "opam init --bare",
        "opam switch set",
        "opam switch create",
        "opam install mirage.4.11.1",
        "opam exec --",
        "mirage configure -t",
        "jekyll",
    ]


# What is published, and when.


@pytest.mark.parametrize("system", [GITHUB, FORGEJO], ids=str)
def test_actions_publish_xen_for_pushes_to_main_alone(system: System) -> None:
    job = system.read()["jobs"]["build"]
    (step,) = [step for step in job["steps"] if step.get("run") == PUBLISH]
    variants = job["strategy"]["matrix"]["include"]
    assert [one["variant"] for one in variants if one.get("deployable")] == ["xen"]
    assert step["if"].split(" && ") == [
        "matrix.deployable",
        "github.event_name == 'push'",
        "github.ref == 'refs/heads/main'",
    ]


def test_woodpecker_publishes_xen_for_pushes_to_main_alone() -> None:
    (step,) = [step for step in WOODPECKER.read()["steps"] if PUBLISH in step["commands"]]
    assert step["when"] == [{"event": "push", "branch": "main", "matrix": {"VARIANT": "xen"}}]


def test_gitlab_publishes_xen_for_pushes_to_main_alone() -> None:
    jobs = GITLAB.read()
    assert [name for name in jobs if PUBLISH in str(jobs[name])] == ["publish"]
    job = jobs["publish"]
    assert job["needs"] == ["xen"]
    assert job["rules"] == [{"if": '$CI_PIPELINE_SOURCE == "push" && $CI_COMMIT_BRANCH == "main"'}]


def test_github_ends_a_run_when_the_next_push_comes() -> None:
    group = "${{ github.workflow }}-${{ github.ref }}"
    assert GITHUB.read()["concurrency"] == {"group": group, "cancel-in-progress": True}


def test_gitlab_knows_that_a_publish_is_a_deployment_of_which_one_goes_on_at_a_time() -> None:
    job = GITLAB.read()["publish"]
    assert (job["environment"], job["resource_group"]) == ("deployment", "deployment")


def test_travis_publishes_xen_from_main_alone() -> None:
    # Travis deploys nothing for pull requests.
    deploying = [job for job in TRAVIS.read()["jobs"]["include"] if "deploy" in job]
    assert [job["env"].split()[0] for job in deploying] == ["VARIANT=xen"]
    assert deploying[0]["deploy"]["script"] == PUBLISH
    assert deploying[0]["deploy"]["on"] == {"branch": "main"}


@each
def test_what_is_to_be_installed_is_handed_on_and_named(system: System) -> None:
    lines = system.file.read_text().splitlines()
    named = [line for line in lines if "mirage_hooks" in line.lower()]
    assert named[0].startswith("#")
    # GitLab and Travis hand on what their settings have.
    assert len(named) > 1 or system in (GITLAB, TRAVIS)


@pytest.mark.parametrize("system", [GITHUB, FORGEJO, WOODPECKER], ids=str)
def test_no_step_but_the_one_that_publishes_sees_the_key(system: System) -> None:
    file = system.read()
    steps = file["steps"] if system is WOODPECKER else file["jobs"]["build"]["steps"]
    (publishing,) = [step for step in steps if PUBLISH in str(step)]
    steps.remove(publishing)
    assert "DEPLOYMENT_KEY" in publishing["env" if system is not WOODPECKER else "environment"]
    assert "deployment" not in str(file).lower()
