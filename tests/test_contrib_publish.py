"""What CI publishes with: contrib/site's scripts, run with what each CI system tells its jobs.

What builds an image is a recorder, which leaves one; `mirage-hooks`, git and ssh are the real ones.
"""

import base64
import getpass
import os
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from ci_files import PUBLISH, System, each
from guests_built import Built
from mirage_hooks.boot import artifact
from publisher import Publisher
from site_copy import RECORDER, SiteCopy, leaving, page_manifest
from support import COMMAND, run, wait_for


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


# When.


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
    assert "runs this for a pull request, or an event that may stand for one" in refused(publishing)


@each
def test_nor_does_another_branch(
    system: System, publishing: Publishing, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(monkeypatch, system.variables)
    for name in {"GITHUB_REF_NAME", "CI_COMMIT_BRANCH", "TRAVIS_BRANCH"} & set(os.environ):
        monkeypatch.setenv(name, "topic")
    assert "runs this for branch topic: only main is published" in refused(publishing)


# What, and by whom.


def test_it_is_what_the_manifest_of_the_sites_page_has(publishing: Publishing) -> None:
    publishing.deployment.bring({"mirage-hooks.toml": page_manifest()})
    run("make", "configure.xen", "build", cwd=publishing.site.folder)
    done = publishing.publish()
    assert done.returncode == 0, done.stderr
    assert artifact.locate(publishing.deployment.tip, "xen/{latest}/www.xen.bz2")


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


# With which key.


def test_the_key_of_the_environment_opens_the_way(over_ssh: Publishing) -> None:
    done = over_ssh.publish()
    assert (done.returncode, over_ssh.deployment.count()) == (0, 1), done.stderr


def test_a_publish_leaves_no_key_behind(over_ssh: Publishing) -> None:
    over_ssh.publish()
    assert list(over_ssh.temporary.iterdir()) == []


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


def test_what_is_to_be_installed_has_to_be_said(
    over_ssh: Publishing, monkeypatch: pytest.MonkeyPatch
) -> None:
    (over_ssh.site.programs / "mirage-hooks").unlink()
    over_ssh.site.put("python3", RECORDER)
    monkeypatch.setenv("PATH", f"{over_ssh.site.programs}:/usr/bin:/bin")
    done = over_ssh.publish()
    assert "MIRAGE_HOOKS: says what to install" in done.stderr
    assert (done.returncode != 0, over_ssh.site.calls()[-1].startswith("python3")) == (True, False)


def test_a_server_that_never_answers_ends_the_job_in_time_which_is_shortened_here(
    over_ssh: Publishing, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.which("timeout")
    over_ssh.site.put("timeout", f'#!/bin/sh\necho "$2" >>CALLS\nshift 2\nexec {real} 1 "$@"\n')
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/deployment.git"
        monkeypatch.setenv("DEPLOYMENT_URL", url)
        done = over_ssh.publish()
    assert (done.returncode, over_ssh.site.calls()[-1]) == (124, "300")
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
