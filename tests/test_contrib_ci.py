"""What CI systems are given: files that they take, which build three variants and publish one.

The CI systems themselves cannot be had here: their files are checked against their published
schemas, and the commands in them are run with the variables that each system sets. What builds an
image is a recorder, which leaves one; `mirage-hooks`, git and ssh are the real ones.
"""

import base64
import getpass
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import ci_runs
from ci_runs import REQUESTS
from guests_built import Built
from publisher import Publisher
from site_copy import SITE, SiteCopy, leaving
from support import COMMAND, run, wait_for

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


# What is unprepared.


@pytest.fixture
def unprepared(copied: SiteCopy) -> SiteCopy:
    """A copy of the site on a machine where nothing is installed, as far as it can see."""
    for name, text in {"opam": OPAM, "apt-get": APT, "sudo": SUDO}.items():
        copied.put(name, text)
    return copied


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


# How it is published.


@dataclass(frozen=True)
class Publishing:
    """A site as CI has it, whose image is to be published to a deployment repository."""

    site: SiteCopy
    deployment: Publisher
    temporary: Path

    def build(self, command: str) -> None:
        """Build a variant, as a CI file has it."""
        run("sh", "-c", command, cwd=self.site.folder)

    def publish(self) -> "subprocess.CompletedProcess[str]":
        """Run what a CI file publishes with."""
        return run(*PUBLISH.split(), cwd=self.site.folder, check=False)

    def newest(self, form: str) -> str:
        """Return what the newest commit of the deployment repository says."""
        log = run("git", "log", "-1", f"--format={form}", "main", cwd=self.deployment.upstream)
        return log.stdout.strip()


def tell(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def publishing(
    unprepared: SiteCopy,
    job: Publisher,
    built: Built,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Publishing:
    """A job whose site is at a commit, on no branch."""
    made = Publishing(unprepared, job, tmp_path / "a temporary folder")
    made.temporary.mkdir()
    unprepared.put("mirage", leaving(built.image("xen-pvh")))
    (unprepared.programs / "mirage-hooks").symlink_to(COMMAND)
    run("git", "checkout", "-q", "--detach", cwd=unprepared.folder)
    tell(
        monkeypatch,
        {
            "DEPLOYMENT_URL": f"file://{job.upstream}",
            "DEPLOYMENT_HOST": "example.org ssh-ed25519 AAAA",
            "DEPLOYMENT_KEY": "bm8ga2V5Cg==",
            "TMPDIR": str(made.temporary),
        },
    )
    return made


@pytest.fixture
def over_ssh(
    publishing: Publishing, sshd: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Publishing:
    """A job that built its image, and is to push it with a key."""
    run("make", "configure.xen", "build", cwd=publishing.site.folder)
    keys = tmp_path / "ssh"
    url = f"ssh://{getpass.getuser()}@127.0.0.1:{sshd}{publishing.deployment.upstream}"
    tell(
        monkeypatch,
        {
            "DEPLOYMENT_URL": url,
            "DEPLOYMENT_HOST": f"[127.0.0.1]:{sshd} {(keys / 'host.pub').read_text()}",
            "DEPLOYMENT_KEY": base64.b64encode((keys / "client").read_bytes()).decode(),
        },
    )
    monkeypatch.delenv("GIT_SSH_COMMAND")
    return publishing


@each
def test_a_push_to_main_publishes_what_was_built(
    system: System, publishing: Publishing, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(monkeypatch, system.variables)
    publishing.build(system.builds(system.read())[-1])
    done = publishing.publish()
    assert done.returncode == 0, done.stderr
    commit = run("git", "rev-parse", "HEAD", cwd=publishing.site.folder).stdout.strip()
    deployment = publishing.deployment
    assert deployment.text("xen/latest") == f"{commit}\n"
    image = f"xen/{commit}/www.xen.bz2"
    assert deployment.paths() == [
        f"xen/{commit}/config.ml",
        image,
        f"{image}.sha256",
        "xen/latest",
    ]
    assert publishing.newest("%(trailers:key=CI-Run,valueonly)").startswith("https://")


def refused(publishing: Publishing) -> str:
    """Publish, which is refused and leaves nothing; return what is said."""
    run("make", "configure.xen", "build", cwd=publishing.site.folder)
    done = publishing.publish()
    # That is make's; the command itself ended with 3.
    assert (done.returncode, "Error 3" in done.stderr) == (2, True), done.stderr
    assert (publishing.deployment.count(), list(publishing.temporary.iterdir())) == (0, [])
    return done.stderr


@each
def test_a_request_to_merge_publishes_nothing_even_if_its_file_has_it(
    system: System, publishing: Publishing, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(monkeypatch, system.request)
    assert "runs this for a pull request: nothing is published from one" in refused(publishing)


@each
def test_nor_does_another_branch(
    system: System, publishing: Publishing, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(monkeypatch, system.variables)
    for name in {"GITHUB_REF_NAME", "CI_COMMIT_BRANCH", "TRAVIS_BRANCH"} & set(os.environ):
        monkeypatch.setenv(name, "topic")
    assert "runs this for branch topic: only main is published" in refused(publishing)


def test_the_key_of_the_environment_opens_the_way(over_ssh: Publishing) -> None:
    done = over_ssh.publish()
    assert (done.returncode, over_ssh.deployment.count()) == (0, 1), done.stderr


def test_the_next_push_publishes_beside_what_is_there(publishing: Publishing, built: Built) -> None:
    deployment, site = publishing.deployment, publishing.site
    run("git", "config", "uploadpack.allowFilter", "true", cwd=deployment.upstream)
    for page in ("one", "two"):
        site.put("mirage", leaving(built.image("xen-pvh", page)))
        run("git", "commit", "-q", "--allow-empty", "-m", page, cwd=site.folder)
        run("make", "configure.xen", "build", cwd=site.folder)
        done = publishing.publish()
        assert done.returncode == 0, done.stderr
        folder = f"xen/{deployment.text('xen/latest').strip()}"
        if page == "one":
            deployment.bring({f"{folder}/api.xen": os.urandom(1 << 20)})
    assert {f"{folder}/www.xen.bz2", f"{folder}/api.xen"} < set(deployment.paths())


def test_a_publish_leaves_no_key_behind(over_ssh: Publishing) -> None:
    over_ssh.publish()
    assert list(over_ssh.temporary.iterdir()) == []


def forget() -> None:
    """Have a git that knows nobody by name, and has its own defaults."""
    (Path(os.environ["HOME"]) / ".gitconfig").write_text("[user]\nuseConfigOnly = true\n")


def test_the_author_is_the_source_commits_and_the_committer_is_ci(over_ssh: Publishing) -> None:
    forget()
    over_ssh.publish()
    assert over_ssh.newest("%an <%ae>, %cn <%ce>") == (
        "Tester <tester@example.org>, CI <ci@localhost>"
    )


def test_the_first_image_of_all_makes_the_branch_main(over_ssh: Publishing) -> None:
    forget()
    over_ssh.publish()
    branches = run("git", "branch", "--format=%(refname)", cwd=over_ssh.deployment.upstream).stdout
    assert branches == "refs/heads/main\n"


def test_who_commits_can_be_said(over_ssh: Publishing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_COMMITTER_NAME", "Builder")
    monkeypatch.setenv("GIT_COMMITTER_EMAIL", "builder@example.org")
    over_ssh.publish()
    assert over_ssh.newest("%cn <%ce>") == "Builder <builder@example.org>"


def test_the_images_that_are_there_are_not_fetched(publishing: Publishing) -> None:
    deployment = publishing.deployment
    run("git", "config", "uploadpack.allowFilter", "true", cwd=deployment.upstream)
    deployment.bring({f"hvt/{number:040x}/www.hvt": os.urandom(1 << 20) for number in range(4)})
    publishing.site.put("mirage-hooks", '#!/bin/sh\ndu -sk "$2" >>CALLS\n')
    run("make", "configure.xen", "build", cwd=publishing.site.folder)
    publishing.publish()
    assert int(publishing.site.calls()[-1].split()[0]) < 1024


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("DEPLOYMENT_KEY", "bm8ga2V5Cg==", "Permission denied"),
        ("DEPLOYMENT_KEY", "no base64!", "DEPLOYMENT_KEY is not one line as base64 -w 0 makes it"),
        ("DEPLOYMENT_KEY", "", "DEPLOYMENT_KEY: parameter not set"),
        ("DEPLOYMENT_HOST", "example.org ssh-ed25519 AAAA", "Host key verification failed"),
        ("DEPLOYMENT_URL", "ssh://127.0.0.1:1/deployment.git", "Connection refused"),
    ],
)
def test_what_gets_ci_nowhere_fails_the_job_and_leaves_nothing(
    over_ssh: Publishing,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    said: str,
) -> None:
    monkeypatch.setenv(name, value)
    done = over_ssh.publish()
    assert said in done.stderr
    assert (done.returncode != 0, over_ssh.deployment.count()) == (True, 0)
    assert list(over_ssh.temporary.iterdir()) == []


def test_a_job_that_is_cancelled_leaves_no_key_behind(over_ssh: Publishing) -> None:
    over_ssh.site.put("mirage-hooks", "#!/bin/sh\necho reached >>CALLS\nexec sleep 60\n")
    going_on = subprocess.Popen(PUBLISH.split(), cwd=over_ssh.site.folder, start_new_session=True)
    wait_for(lambda: "reached" in over_ssh.site.calls(), 30)
    (work,) = over_ssh.temporary.iterdir()
    assert stat.S_IMODE((work / "key").stat().st_mode) == 0o600
    os.killpg(going_on.pid, signal.SIGTERM)
    assert going_on.wait(10) != 0
    assert list(over_ssh.temporary.iterdir()) == []


@pytest.mark.parametrize("shell", ["sh -x", "bash -xv"])
@pytest.mark.parametrize("host", [None, "example.org ssh-ed25519 AAAA"], ids=["works", "fails"])
def test_no_log_has_the_key_even_if_it_is_traced(
    over_ssh: Publishing, monkeypatch: pytest.MonkeyPatch, shell: str, host: str | None
) -> None:
    if host is not None:
        monkeypatch.setenv("DEPLOYMENT_HOST", host)
    done = run(*shell.split(), "ci/publish.sh", cwd=over_ssh.site.folder, check=False)
    key = base64.b64decode(os.environ["DEPLOYMENT_KEY"]).decode()
    said = done.stdout + done.stderr
    assert (os.environ["DEPLOYMENT_KEY"] in said, key.splitlines()[1] in said) == (False, False)
    assert (done.returncode == 0) == (host is None)


def test_neither_the_environment_nor_the_arguments_of_what_it_runs_have_the_key(
    over_ssh: Publishing,
) -> None:
    listing = "{ env; cat /proc/[0-9]*/cmdline 2>/dev/null; } >>CALLS"
    over_ssh.site.put("mirage-hooks", f"#!/bin/sh\n{listing}\n:\n")
    assert over_ssh.publish().returncode == 0
    listed = over_ssh.site.log.read_bytes().decode(errors="replace")
    assert ("DEPLOYMENT_HOST" in listed, os.environ["DEPLOYMENT_KEY"] in listed) == (True, False)
