"""What CI systems are given: files that they take, which build three variants and publish one.

The CI systems themselves cannot be had here: their files are checked against their published
schemas, and the commands in them are run, with recorders in the place of what builds an image.
"""

import base64
import getpass
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from site_copy import SITE, SiteCopy
from support import run

CI = SITE.parent / "ci"
PUBLISH = "sh ci/publish.sh"
ADDRESS = "ADDR=192.0.2.10 MASK=255.255.255.0 GWS=192.0.2.1"

# Opam and Debian's packages are not installed: how they are called is recorded.
OPAM = """\
#!/bin/sh
echo "opam $*" >>CALLS
case $* in
"exec -- "*) shift 2 && exec "$@" ;;
"switch set "*) exit 5 ;;
esac
"""
APT = '#!/bin/sh\necho "apt-get $*" >>CALLS\n'
SUDO = '#!/bin/sh\nexec "$@"\n'


@dataclass(frozen=True)
class System:
    """A CI system: its file here and in a repository, its schema, and what it would run."""

    name: str
    place: str
    schema: str
    builds: Callable[[Any], list[str]]

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


GITHUB = System("github-actions", ".github/workflows/unikernel.yml", "github-workflows", actions)
# Forgejo has no schema of its own that can be installed; its syntax follows GitHub's.
FORGEJO = System("forgejo-actions", ".forgejo/workflows/unikernel.yml", "github-workflows", actions)
WOODPECKER = System("woodpecker", ".woodpecker/unikernel.yml", "woodpecker-ci", woodpecker)
GITLAB = System("gitlab-ci", ".gitlab-ci.yml", "gitlab-ci", gitlab)
TRAVIS = System("travis", ".travis.yml", "travis", travis)
SYSTEMS = (GITHUB, FORGEJO, WOODPECKER, GITLAB, TRAVIS)

each = pytest.mark.parametrize("system", SYSTEMS, ids=str)


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


@pytest.fixture
def built(copied: SiteCopy) -> SiteCopy:
    """A copy of the site on a machine where nothing is installed, as far as it can see."""
    for name, text in {"opam": OPAM, "apt-get": APT, "sudo": SUDO}.items():
        copied.put(name, text)
    return copied


@each
def test_three_variants_are_built(system: System, built: SiteCopy) -> None:
    for command in system.builds(system.read()):
        run("sh", "-c", command, cwd=built.folder)
    assert built.configured() == [
        "mirage configure -t unix --net=socket in mirage with ADDR= MASK= GWS=",
        "mirage configure -t unix --net=direct in mirage with ADDR= MASK= GWS=",
        f"mirage configure -t xen --net=direct --no-dhcp in mirage with {ADDRESS}",
    ]


@each
def test_a_build_that_fails_fails_the_job(system: System, built: SiteCopy) -> None:
    built.put("mirage", "#!/bin/sh\nexit 3\n")
    for command in system.builds(system.read()):
        assert run("sh", "-c", command, cwd=built.folder, check=False).returncode != 0


def test_a_build_installs_all_that_it_needs(built: SiteCopy) -> None:
    run("sh", "ci/build.sh", "socket", cwd=built.folder)
    assert [" ".join(call.split()[:3]) for call in built.calls()] == [
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


def test_travis_publishes_xen_from_main_alone() -> None:
    # Travis deploys nothing for pull requests.
    deploying = [job for job in TRAVIS.read()["jobs"]["include"] if "deploy" in job]
    assert [job["env"].split()[0] for job in deploying] == ["VARIANT=xen"]
    assert deploying[0]["deploy"]["script"] == PUBLISH
    assert deploying[0]["deploy"]["on"] == {"branch": "main"}


@pytest.mark.parametrize("system", [GITHUB, FORGEJO, WOODPECKER], ids=str)
def test_no_step_but_the_one_that_publishes_sees_the_key(system: System) -> None:
    file = system.read()
    steps = file["steps"] if system is WOODPECKER else file["jobs"]["build"]["steps"]
    (publishing,) = [step for step in steps if PUBLISH in str(step)]
    steps.remove(publishing)
    assert "DEPLOYMENT_KEY" in publishing["env" if system is not WOODPECKER else "environment"]
    assert "deployment" not in str(file).lower()


# How it is pushed.

# What `mirage-hooks publish` does with the clone that it is given is tested with it.
PUBLISHER = """\
#!/bin/sh
echo "publish of $(basename "$4") with DEPLOYMENT_KEY=${DEPLOYMENT_KEY-}" >>CALLS
git -C "$2" commit -q --allow-empty -m published && git -C "$2" push -q origin HEAD
"""


@dataclass(frozen=True)
class Publishing:
    """A site whose image was built, and a deployment repository behind an sshd."""

    site: SiteCopy
    deployment: Path
    temporary: Path

    def publish(self) -> "subprocess.CompletedProcess[str]":
        """Run what CI runs."""
        return run("sh", "ci/publish.sh", cwd=self.site.folder, check=False)

    def newest(self) -> str:
        """Return what the newest commit of the deployment repository says."""
        return run("git", "log", "-1", "--format=%s %an", "main", cwd=self.deployment).stdout


@pytest.fixture
def publishing(
    copied: SiteCopy, sshd: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Publishing:
    """A site whose image was built, and an environment as CI systems make it."""
    made = Publishing(copied, tmp_path / "deployment.git", tmp_path / "temporary")
    made.temporary.mkdir()
    run("git", "clone", "-q", "--bare", str(copied.folder), str(made.deployment), cwd=tmp_path)
    copied.put("mirage-hooks", PUBLISHER)
    run("make", "configure.xen", "build", cwd=copied.folder)
    keys = tmp_path / "ssh"
    host = (keys / "host.pub").read_text()
    url = f"ssh://{getpass.getuser()}@127.0.0.1:{sshd}{made.deployment}"
    monkeypatch.setenv("DEPLOYMENT_URL", url)
    monkeypatch.setenv("DEPLOYMENT_HOST", f"[127.0.0.1]:{sshd} {host}")
    monkeypatch.setenv("DEPLOYMENT_KEY", base64.b64encode((keys / "client").read_bytes()).decode())
    monkeypatch.setenv("TMPDIR", str(made.temporary))
    monkeypatch.delenv("GIT_SSH_COMMAND")
    return made


def test_what_was_built_is_published_with_the_key_of_the_environment(
    publishing: Publishing,
) -> None:
    done = publishing.publish()
    assert (done.returncode, publishing.newest()) == (0, "published CI\n"), done.stderr
    assert publishing.site.calls()[-1] == "publish of www.xen with DEPLOYMENT_KEY="


def test_a_publish_leaves_no_key_behind(publishing: Publishing) -> None:
    publishing.publish()
    assert list(publishing.temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("DEPLOYMENT_KEY", "bm8ga2V5Cg==", "Permission denied"),
        ("DEPLOYMENT_KEY", "no base64!", "invalid input"),
        ("DEPLOYMENT_KEY", "", "DEPLOYMENT_KEY: parameter not set"),
        ("DEPLOYMENT_HOST", "example.org ssh-ed25519 AAAA", "Host key verification failed"),
        ("DEPLOYMENT_URL", "ssh://127.0.0.1:1/deployment.git", "Connection refused"),
    ],
)
def test_what_gets_ci_nowhere_fails_the_job_and_leaves_nothing(
    publishing: Publishing,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    said: str,
) -> None:
    monkeypatch.setenv(name, value)
    done = publishing.publish()
    assert said in done.stderr
    assert (done.returncode != 0, publishing.newest()) == (True, "a site Tester\n")
    assert list(publishing.temporary.iterdir()) == []


def test_no_output_has_the_key(publishing: Publishing, monkeypatch: pytest.MonkeyPatch) -> None:
    key = os.environ["DEPLOYMENT_KEY"]
    monkeypatch.setenv("DEPLOYMENT_HOST", "example.org ssh-ed25519 AAAA")
    done = publishing.publish()
    assert key not in done.stdout + done.stderr
