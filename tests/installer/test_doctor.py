"""`mirage-hooks doctor`: what breaks silently is found, and mended by doing what it says."""

import json
import os
import shutil
import subprocess
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mirage_hooks.boot import control
from mirage_hooks.installer import hookfile
from support import COMMAND, USER, Site, make_site, monitors_of, run

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")

# A cgroup hierarchy that systemd, or a test, may make a session's scope in.
HIERARCHIES = [Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup")]

HOOKS = tuple(hookfile.HOOKS)


def examine(site: Site) -> dict[str, dict[str, str]]:
    """Return what the doctor finds, by subject."""
    findings = json.loads(site.command("doctor", "--json", check=False).stdout)
    return {finding["subject"]: finding for finding in findings}


def broken(site: Site) -> dict[str, str]:
    """Return what is not right, and how bad it is."""
    findings = examine(site).values()
    return {one["subject"]: one["level"] for one in findings if one["level"] != "ok"}


def hook_of(site: Site, hook: str = "post-merge") -> Path:
    return site.clone / ".git" / "hooks" / hook


def do(site: Site, command: str) -> None:
    """Do what a finding says, as its reader would: paste it into a shell."""
    path = f"{COMMAND.parent}:{os.environ['PATH']}"
    command = command.removeprefix("run: ")
    subprocess.run(
        ["sh", "-ec", command], cwd=site.clone, env={**os.environ, "PATH": path}, check=True
    )


# When all is well.


def test_all_is_well_after_an_install(installed: Site) -> None:
    assert broken(installed) == {}


def test_the_doctor_ends_with_0_where_all_is_well(installed: Site) -> None:
    assert installed.command("doctor").returncode == 0


def test_everything_that_is_looked_at_is_listed(installed: Site) -> None:
    subjects = {
        "state folder",
        "core.hooksPath",
        *HOOKS,
        "poll script",
        "host.toml",
        "guests",
        "disk",
        "poll",
    }
    targets = {f"target {name}" for name in ("unix", "hvt", "spt", "virtio", "xen")}
    assert set(examine(installed)) == subjects | targets


def test_a_running_guest_is_looked_at_too(deployed: Site) -> None:
    pid = deployed.monitor().monitor.pid
    assert f"pid {pid}" in examine(deployed)["monitor of www"]["finding"]


def test_what_is_found_is_a_table(installed: Site) -> None:
    first = installed.command("doctor").stdout.splitlines()[0]
    assert first.split() == ["LEVEL", "SUBJECT", "FINDING", "MEND"]


def test_a_clone_without_an_installation_is_found(site: Site) -> None:
    found = broken(site)
    assert found == dict.fromkeys(["state folder", *HOOKS, "poll script", "host.toml"], "failed")


def test_a_warning_alone_does_not_end_with_an_error(installed: Site) -> None:
    installed.git("checkout", "-q", "-b", "other")
    assert installed.command("doctor", check=False).returncode == 0


def test_the_doctor_changes_nothing(installed: Site) -> None:
    hook_of(installed).chmod(0o644)
    before = sorted(installed.state.folder.rglob("*"))
    installed.command("doctor", check=False)
    assert (sorted(installed.state.folder.rglob("*")), os.access(hook_of(installed), os.X_OK)) == (
        before,
        False,
    )


# Hooks that git passes over without a word. Each is broken by one function; `install` mends it.


def delete(path: Path) -> None:
    path.unlink()


def leave_a_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere/post-merge")


def take_the_executable_bit(path: Path) -> None:
    path.chmod(0o644)


def put_a_foreign_one(path: Path) -> None:
    path.write_text("#!/bin/sh\nexit 0\n")


def name_a_vanished_interpreter(path: Path) -> None:
    path.write_bytes(hookfile.render(path.name, "/opt/gone/bin/python"))


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


Break = Callable[[Path], None]

BREAKAGES: dict[Break, str] = {
    delete: "is missing",
    leave_a_dangling_link: "is a dangling link",
    take_the_executable_bit: "is not executable",
    put_a_foreign_one: "is somebody else's",
    name_a_vanished_interpreter: "its interpreter /opt/gone/bin/python is gone",
    damage: "names no interpreter",
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_broken_hook_is_found(installed: Site, breakage: Break) -> None:
    breakage(hook_of(installed))
    assert BREAKAGES[breakage] in examine(installed)["post-merge"]["finding"]


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_looked_at(installed: Site, hook: str) -> None:
    delete(hook_of(installed, hook))
    assert broken(installed) == {hook: "failed"}


def test_a_broken_hook_ends_the_doctor_with_an_error(installed: Site) -> None:
    delete(hook_of(installed))
    assert installed.command("doctor", check=False).returncode == 1


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_broken_hook_is_the_only_thing_found(installed: Site, breakage: Break) -> None:
    breakage(hook_of(installed))
    assert broken(installed) == {"post-merge": "failed"}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_broken_hook_is_mended_by_an_install(installed: Site, breakage: Break) -> None:
    breakage(hook_of(installed))
    installed.command("install")
    assert broken(installed) == {}


@pytest.mark.parametrize(
    "breakage", [one for one in BREAKAGES if one is not take_the_executable_bit]
)
def test_a_broken_hook_says_that_an_install_mends_it(installed: Site, breakage: Break) -> None:
    breakage(hook_of(installed))
    assert "run: mirage-hooks install" in examine(installed)["post-merge"]["mend"]


def test_a_hook_that_is_not_executable_is_mended_as_it_says(installed: Site) -> None:
    hook_of(installed).chmod(0o644)
    do(installed, examine(installed)["post-merge"]["mend"])
    assert broken(installed) == {}


def test_a_bare_repository_with_an_installation_is_well(site: Site, tmp_path: Path) -> None:
    run("git", "clone", "-q", "--bare", str(site.upstream), "bare.git", cwd=tmp_path)
    site.clone = tmp_path / "bare.git"
    site.install()
    assert broken(site) == {}


def test_what_mends_a_hook_can_be_pasted_whatever_the_clone_is_called(
    site: Site, tmp_path: Path
) -> None:
    site.clone = tmp_path / "Jürgen's clone"
    run("git", "clone", "-q", str(site.upstream), str(site.clone), cwd=tmp_path)
    site.install()
    hook_of(site).chmod(0o644)
    do(site, examine(site)["post-merge"]["mend"])
    assert broken(site) == {}


def test_a_hook_whose_package_is_gone_is_found(installed: Site, tmp_path: Path) -> None:
    venv.create(tmp_path / "upgraded", with_pip=False)
    python = str(tmp_path / "upgraded" / "bin" / "python")
    hook_of(installed).write_bytes(hookfile.render("post-merge", python))
    assert examine(installed)["post-merge"]["finding"] == (
        f"{python} cannot load mirage-hooks: ModuleNotFoundError: No module named 'mirage_hooks'"
    )


def test_a_hook_whose_package_is_gone_is_mended_as_it_says(installed: Site, tmp_path: Path) -> None:
    venv.create(tmp_path / "upgraded", with_pip=False)
    python = str(tmp_path / "upgraded" / "bin" / "python")
    hook_of(installed).write_bytes(hookfile.render("post-merge", python))
    assert "run: mirage-hooks install" in examine(installed)["post-merge"]["mend"]
    installed.command("install")
    assert broken(installed) == {}


def test_a_hook_of_another_version_is_a_warning(installed: Site) -> None:
    path = hook_of(installed)
    path.write_bytes(path.read_bytes() + b"# of another version\n")
    assert broken(installed) == {"post-merge": "warning"}


def test_a_kept_foreign_hook_is_no_finding(site: Site) -> None:
    put_a_foreign_one(hook_of(site))
    hook_of(site).chmod(0o755)
    site.install()
    assert broken(site) == {}


# Where git looks for hooks.


@pytest.mark.parametrize("key", ["core.hooksPath", "core.hookspath"])
def test_hooks_that_git_looks_for_elsewhere_are_found(installed: Site, key: str) -> None:
    installed.git("config", key, "/somewhere/else")
    assert broken(installed) == {"core.hooksPath": "failed"}


@pytest.mark.parametrize("scope", ["--local", "--global"])
def test_hooks_that_git_looks_for_elsewhere_are_mended_as_it_says(
    installed: Site, scope: str
) -> None:
    installed.git("config", scope, "core.hooksPath", "/somewhere/else")
    do(installed, examine(installed)["core.hooksPath"]["mend"])
    assert broken(installed) == {}


def test_a_relative_path_that_only_pulls_find_hooks_by_is_found(site: Site) -> None:
    site.git("config", "core.hooksPath", ".git/our-hooks")
    site.install()
    assert broken(site) == {"core.hooksPath": "warning"}


def test_a_relative_path_is_mended_for_pushes_as_it_says(site: Site) -> None:
    site.git("config", "receive.denyCurrentBranch", "updateInstead")
    site.git("config", "core.hooksPath", ".git/our-hooks")
    site.install()
    do(site, examine(site)["core.hooksPath"]["mend"])
    site.publish("two")
    site.push()
    assert (broken(site), site.page()) == ({}, "two")


# Whose the state is.


@as_root
def test_a_state_folder_of_another_user_is_found(installed: Site) -> None:
    shutil.chown(installed.state.folder, "nobody")
    assert "belongs to user nobody" in examine(installed)["state folder"]["finding"]


@as_root
def test_a_state_folder_of_another_user_says_who_has_to_run_this(installed: Site) -> None:
    shutil.chown(installed.state.folder, "nobody")
    assert "as that user" in examine(installed)["state folder"]["mend"]


def test_a_state_folder_that_everybody_may_write_is_found(installed: Site) -> None:
    installed.state.folder.chmod(0o702)
    assert broken(installed) == {"state folder": "failed"}


@as_root
def test_a_state_folder_that_a_group_may_write_is_found(installed: Site) -> None:
    shutil.chown(installed.state.folder, group="games")
    installed.state.folder.chmod(0o770)
    assert broken(installed) == {"state folder": "failed"}


def test_a_state_folder_that_others_may_write_is_mended_as_it_says(installed: Site) -> None:
    installed.state.folder.chmod(0o777)
    do(installed, examine(installed)["state folder"]["mend"])
    assert broken(installed) == {}


def test_a_damaged_record_is_one_finding_among_the_others(deployed: Site) -> None:
    generation = deployed.live()
    assert generation is not None
    folder = deployed.state.generation_folder("www", generation.number)
    intact = (folder / "generation.json").read_bytes()
    (folder / "generation.json").write_text("{")
    done = deployed.command("doctor", check=False)
    (folder / "generation.json").write_bytes(intact)
    assert (done.returncode, "LEVEL" in done.stdout, str(folder) in done.stdout) == (1, True, True)


# Branch, host file, guests.


def test_another_branch_that_is_checked_out_is_found(installed: Site) -> None:
    installed.git("checkout", "-q", "-b", "other")
    assert "other is checked out" in examine(installed)["branch"]["finding"]


def test_a_detached_head_is_found(installed: Site) -> None:
    installed.git("checkout", "-q", "--detach")
    assert "a detached HEAD is checked out" in examine(installed)["branch"]["finding"]


@pytest.mark.parametrize("way", [0, 1])
def test_another_branch_that_is_checked_out_is_mended_as_it_says(installed: Site, way: int) -> None:
    installed.git("checkout", "-q", "-b", "other", "--track", "origin/main")
    do(installed, examine(installed)["branch"]["mend"].split(", or: ")[way])
    assert broken(installed) == {}


def test_a_detached_head_is_mended_as_it_says(installed: Site) -> None:
    installed.git("checkout", "-q", "--detach")
    for command in examine(installed)["branch"]["mend"].split(", or: "):
        do(installed, command)
    assert broken(installed) == {}


def test_a_branch_without_an_upstream_is_mended_as_it_says(installed: Site) -> None:
    installed.git("branch", "--unset-upstream")
    do(installed, examine(installed)["upstream"]["mend"])
    assert broken(installed) == {}


def test_a_branch_that_is_gone_is_found(installed: Site) -> None:
    installed.git("checkout", "-q", "--detach")
    installed.git("branch", "-q", "-D", "main")
    assert "branch main" in examine(installed)["host.toml"]["finding"]


@pytest.mark.parametrize("text", ["branch = ", "brunch = 'main'", "branch = 1"])
def test_a_host_file_that_cannot_be_read_is_found(installed: Site, text: str) -> None:
    installed.state.host_file.write_text(text)
    assert broken(installed) == {"host.toml": "failed"}


def test_a_lost_host_file_is_mended_as_it_says(installed: Site) -> None:
    installed.state.host_file.unlink()
    assert "run: mirage-hooks install" in examine(installed)["host.toml"]["mend"]
    installed.install()
    assert broken(installed) == {}


@pytest.fixture
def empty(site: Site) -> Site:
    """A clone that describes no guest, and holds none by convention."""
    run("git", "rm", "-rq", "mirage-hooks.toml", "unix", cwd=site.upstream)
    site.commit("nothing")
    site.pull()
    site.install()
    return site


def test_a_repository_without_guests_is_found(empty: Site) -> None:
    assert broken(empty) == {"guests": "warning"}


def test_a_repository_without_guests_is_mended_by_naming_one(empty: Site) -> None:
    assert "mirage-hooks install" in examine(empty)["guests"]["mend"]
    empty.install("--guest=www", "--target=unix", "--image=unix/{latest}/www.unix")
    assert broken(empty) == {}


def test_a_manifest_that_cannot_be_read_is_found(site: Site) -> None:
    site.tables = "colour = 'red'"
    site.publish()
    site.pull()
    site.install()
    assert "unknown key 'colour'" in examine(site)["guests"]["finding"]


@as_root
def test_guests_that_root_would_have_to_run_are_found(site: Site) -> None:
    site.command("install")
    assert "user" in examine(site)["guests"]["mend"]


def test_a_chosen_guest_that_is_not_there_is_found(installed: Site) -> None:
    installed.tell_host(guests=["www", "wwww"])
    assert broken(installed) == {"guest wwww": "warning"}


def test_a_choice_of_no_guest_is_found_to_be_meant(installed: Site) -> None:
    installed.tell_host(guests=[])
    assert broken(installed) == {}
    assert (
        examine(installed)["guests"]["finding"] == "none is to run here: guests = [] in host.toml"
    )


def test_secrets_of_a_guest_that_is_not_there_are_found(installed: Site) -> None:
    installed.hide("--hello=hunter22", guest="wwww")
    assert broken(installed) == {"secrets of wwww": "warning"}


def test_secrets_that_are_as_they_should_be_are_listed(installed: Site) -> None:
    installed.hide("--hello=hunter22")
    assert broken(installed) == {}
    assert "secrets of www" in examine(installed)


def test_secrets_that_cannot_be_read_are_found_and_mended(installed: Site) -> None:
    installed.hide("--hello=hunter22").chmod(0o644)
    assert broken(installed) == {"secrets of www": "failed"}
    do(installed, examine(installed)["secrets of www"]["mend"].removeprefix("run: "))
    assert broken(installed) == {}


# A pause.


def test_a_pause_is_found_and_mended(installed: Site) -> None:
    installed.command("pause", "moving the disks")
    found = examine(installed)["pause"]
    assert (found["level"], "moving the disks: pulls deploy" in found["finding"]) == (
        "warning",
        True,
    )
    do(installed, found["mend"])
    assert "pause" not in examine(installed)


def test_a_damaged_pause_is_found_and_mended(installed: Site) -> None:
    (installed.state.folder / "paused").write_text("{")
    assert broken(installed) == {"pause": "failed"}
    do(installed, "mirage-hooks resume")
    assert broken(installed) == {}


# The host.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of its own, of 64 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root, where it may mount, can make a small file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def small_site(small_disk: Path, compiled: Callable[[str], Path]) -> Site:
    """A clone with little space for images."""
    site = make_site(small_disk, compiled)
    site.install()
    return site


def test_a_disk_that_is_nearly_full_is_found(small_site: Site) -> None:
    assert broken(small_site) == {"disk": "warning"}


def test_a_disk_that_is_nearly_full_is_named(small_site: Site) -> None:
    assert str(small_site.state.folder) in examine(small_site)["disk"]["finding"]


def test_a_disk_that_is_nearly_full_is_mended_by_space(small_site: Site, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=2g", small_disk], check=True)
    assert broken(small_site) == {}


@pytest.fixture
def in_a_session(deployed: Site) -> Iterator[Site]:
    """A clone whose guest's monitor is in the scope of a login session."""
    usable = [path for path in HIERARCHIES if (path / "cgroup.procs").exists()]
    if not usable or not os.access(usable[0], os.W_OK):
        pytest.skip("only root, where it may make cgroups, can make a session's scope")
    scope = usable[0] / f"session-test{os.getpid()}.scope"
    try:
        scope.mkdir()
        (scope / "cgroup.procs").write_text(str(deployed.monitor().monitor.pid))
    except OSError as error:
        pytest.skip(f"a session's scope cannot be made: {error}")
    yield deployed
    for monitor in monitors_of(deployed.state):
        control.stop(monitor)
        monitor.monitor.wait_gone(5)
    scope.rmdir()


def test_a_monitor_that_dies_with_a_session_is_found(in_a_session: Site) -> None:
    assert broken(in_a_session) == {"monitor of www": "warning"}


def test_a_monitor_that_dies_with_a_session_says_how_to_keep_it(in_a_session: Site) -> None:
    assert "mirage-hooks reboot www" in examine(in_a_session)["monitor of www"]["mend"]


def test_every_finding_that_is_not_well_says_how_to_mend_it(site: Site) -> None:
    site.command("install", *(["--user", USER] if USER else []))
    site.git("config", "core.hooksPath", "/somewhere/else")
    site.git("checkout", "-q", "-b", "other")
    site.git("branch", "-q", "--unset-upstream", "main")
    site.state.folder.chmod(0o777)
    for breakage, hook in zip((delete, damage), HOOKS[:2], strict=True):
        breakage(hook_of(site, hook))
    found = [one for one in examine(site).values() if one["level"] != "ok"]
    assert [one["subject"] for one in found if not one["mend"]] == []


def test_a_configuration_that_others_may_write_is_found(installed: Site) -> None:
    (installed.clone / ".git" / "config").chmod(0o666)
    done = installed.command("doctor", check=False)
    assert (done.returncode, "may be written by everybody" in done.stdout) == (1, True)
