"""`mirage-hooks install` and `uninstall`: what is put into a repository, and taken out again."""

import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import tomlkit

from mirage_hooks.boot.generation import Phase
from mirage_hooks.boot.process import ProcessId
from mirage_hooks.boot.record import State
from mirage_hooks.installer import hookfile
from support import COMMAND, USER, Site, monitors_of, run

# A user that guests can run as: anybody for root, oneself for others.
SOMEBODY = USER or pwd.getpwuid(os.geteuid()).pw_name

HOOKS = tuple(hookfile.HOOKS)

# A hook as somebody else may have put one there: it notes how, and with what, it was run.
FOREIGN = """\
#!/bin/sh
printf '%s\\n' foreign "$@" >>"$NOTES"
cat >>"$NOTES"
"""


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return every name below a folder, with its mode and its content or link target.

    What the lock says of its owner is left out: who held it last is nobody's concern.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            content = os.fsencode(path.readlink())
        else:
            content = path.read_bytes() if stat.S_ISREG(mode) and path.name != "lock" else b""
        found[str(path.relative_to(folder))] = (mode, content)
    return found


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def hook_of(site: Site, hook: str = "post-merge") -> Path:
    return site.clone / ".git" / "hooks" / hook


def add_foreign_hook(path: Path) -> None:
    path.write_text(FOREIGN)
    path.chmod(0o755)


def assert_refused(done: subprocess.CompletedProcess[str], code: int) -> None:
    """One message on standard error, and the exit code that stands for its kind."""
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert done.stderr.startswith("mirage-hooks: ")
    assert done.stderr.count("mirage-hooks: ") == 1
    assert "Traceback" not in done.stderr


# What an installation puts in place.


@pytest.mark.parametrize("hook", HOOKS)
def test_install_drops_an_executable_hook(site: Site, hook: str) -> None:
    site.install()
    assert mode_of(hook_of(site, hook)) == 0o755


def test_install_writes_a_host_file_that_names_the_branch(site: Site) -> None:
    site.install()
    assert tomlkit.parse(site.state.host_file.read_text())["branch"] == "main"


def test_install_writes_the_user_it_is_given(site: Site) -> None:
    site.command("install", "--user", SOMEBODY)
    assert tomlkit.parse(site.state.host_file.read_text())["user"] == SOMEBODY


@pytest.mark.parametrize("umask", [0, 0o077])
def test_install_keeps_its_files_private_whatever_the_umask(site: Site, umask: int) -> None:
    subprocess.run([COMMAND, "install"], cwd=site.clone, umask=umask, check=True)
    modes = [mode_of(path) for path in (site.state.folder, site.state.host_file, hook_of(site))]
    assert modes == [0o700, 0o600, 0o755]


def test_install_says_what_it_wrote(site: Site) -> None:
    said = site.install().stdout
    state = site.state
    written = [*(hook_of(site, hook) for hook in HOOKS), state.poll, state.host_file]
    assert [path for path in written if f"{path}: written" not in said] == []


def test_install_boots_nothing(site: Site) -> None:
    site.install()
    assert site.state.guest_names() == []


def test_install_names_the_command_that_boots(site: Site) -> None:
    assert "`mirage-hooks deploy`" in site.install().stdout


def test_install_leaves_the_work_tree_clean(site: Site) -> None:
    site.install()
    assert site.git("status", "--porcelain").stdout == ""


def test_install_makes_a_missing_hooks_folder(site: Site) -> None:
    shutil.rmtree(site.clone / ".git" / "hooks")
    site.install()
    assert hook_of(site).exists()


def test_install_with_deploy_boots_at_once(site: Site) -> None:
    site.install("--deploy")
    assert site.page() == "one"


def test_install_with_deploy_ends_as_the_deploy_does(site: Site) -> None:
    site.args = ["--exit=3"]
    site.publish()
    site.pull()
    user = ["--user", USER] if USER else []
    assert site.command("install", "--deploy", *user, check=False).returncode == 1


def test_install_takes_the_clone_as_an_argument(site: Site, tmp_path: Path) -> None:
    run(COMMAND, "install", "clone", cwd=tmp_path)
    assert site.state.host_file.exists()


def test_install_takes_a_folder_inside_the_clone(site: Site) -> None:
    run(COMMAND, "install", cwd=site.clone / "unix")
    assert site.state.host_file.exists()


@pytest.mark.parametrize("name", ["a clone", "Jürgen 日本", 'it\'s "quoted"', "$HOME {0} %s *"])
def test_a_pull_deploys_in_a_clone_of_any_name(site: Site, tmp_path: Path, name: str) -> None:
    site.clone = tmp_path / name
    run("git", "clone", "-q", str(site.upstream), str(site.clone), cwd=tmp_path)
    site.install()
    site.command("deploy")
    site.publish("two")
    site.pull()
    assert site.page() == "two"


# Running it again.


def test_a_second_install_changes_no_byte(site: Site) -> None:
    site.install()
    before = tree(site.clone / ".git")
    site.install()
    assert tree(site.clone / ".git") == before


def test_a_second_install_says_that_all_is_as_it_should_be(site: Site) -> None:
    site.install()
    assert site.install().stdout.count("is as it should be") == len(HOOKS) + 2


def test_a_second_install_touches_no_running_guest(deployed: Site) -> None:
    before = deployed.live()
    deployed.install()
    assert deployed.live() == before


@pytest.mark.parametrize("hook", HOOKS)
def test_install_brings_a_deleted_hook_back(site: Site, hook: str) -> None:
    site.install()
    before = tree(site.clone / ".git")
    hook_of(site, hook).unlink()
    site.install()
    assert tree(site.clone / ".git") == before


@pytest.mark.parametrize("hook", HOOKS)
def test_install_repairs_a_hook_that_was_cut_short(site: Site, hook: str) -> None:
    site.install()
    before = tree(site.clone / ".git")
    path = hook_of(site, hook)
    path.write_bytes(path.read_bytes()[:300])
    site.install()
    assert tree(site.clone / ".git") == before


def test_install_makes_a_hook_executable_again(site: Site) -> None:
    site.install()
    hook_of(site).chmod(0o644)
    site.install()
    assert mode_of(hook_of(site)) == 0o755


def test_install_makes_the_host_file_private_again(site: Site) -> None:
    site.install()
    site.state.host_file.chmod(0o644)
    site.install()
    assert mode_of(site.state.host_file) == 0o600


def test_install_keeps_what_the_operator_wrote_into_the_host_file(site: Site) -> None:
    site.install()
    edited = (
        "# ours, see the wiki\n"
        'branch   =   "main"   # the one that is reviewed\nguests = [ "www" ] # not mail\n\n'
        '[limits]\nmemory = 64 # MiB\ntargets = ["unix"]\n\n'
        '[secrets.www]\nargs_file = "/etc/mirage/www.args"\n\n'
        '[guest.www]\n# the page\nargs = ["--port=80"]\n'
    )
    site.state.host_file.write_text(edited)
    site.command("install")
    assert site.state.host_file.read_text() == edited


def test_install_changes_the_branch_and_nothing_else_of_the_host_file(site: Site) -> None:
    site.install()
    site.git("branch", "stage")
    edited = '# ours\nbranch = "main" # reviewed\n\n[limits]\ntargets = ["unix"] # no more\n'
    site.state.host_file.write_text(edited)
    site.command("install", "--branch", "stage")
    assert site.state.host_file.read_text() == edited.replace("main", "stage")


def test_install_says_which_branch_deploys(site: Site) -> None:
    site.git("branch", "stage")
    assert "a pull or a push of stage deploys" in site.install("--branch", "stage").stdout


def test_install_without_a_branch_keeps_the_one_that_deploys(site: Site) -> None:
    site.git("branch", "stage")
    site.install("--branch", "stage")
    site.install()
    assert tomlkit.parse(site.state.host_file.read_text())["branch"] == "stage"


def test_install_names_a_user_in_a_host_file_that_has_tables_already(site: Site) -> None:
    site.command("install")
    site.command("install", "--user", SOMEBODY)
    assert tomlkit.parse(site.state.host_file.read_text())["user"] == SOMEBODY


@pytest.mark.parametrize("user", ["root", "no-such-user"])
def test_install_refuses_a_user_that_guests_cannot_run_as(site: Site, user: str) -> None:
    assert_refused(site.command("install", "--user", user, check=False), 3)


@pytest.mark.parametrize("text", [b'branch = "main\n', b'branch = "ma\xffn"\n', b"brunch = 1\n"])
def test_install_refuses_a_host_file_that_it_cannot_read(site: Site, text: bytes) -> None:
    site.install()
    site.state.host_file.write_bytes(text)
    assert_refused(site.command("install", check=False), 3)


# A repository without a manifest.


@pytest.fixture
def bare_of_manifest(site: Site) -> Site:
    """A clone of a repository that holds images, and no manifest."""
    (site.upstream / "mirage-hooks.toml").unlink()
    site.commit("no manifest")
    site.pull()
    return site


GUEST_OPTIONS = ("--guest", "www", "--target", "unix", "--image", "unix/{latest}/www.unix")


def test_install_describes_a_guest_where_the_repository_has_no_manifest(
    bare_of_manifest: Site,
) -> None:
    bare_of_manifest.install(*GUEST_OPTIONS)
    assert "www: start: first boot of image unix/…/www.unix" in (
        bare_of_manifest.command("plan").stdout
    )


def test_a_guest_of_the_host_file_is_deployed(bare_of_manifest: Site) -> None:
    site = bare_of_manifest
    site.install(*GUEST_OPTIONS)
    document = tomlkit.parse(site.state.host_file.read_text())
    args = ["--ipv4=127.0.0.1/8", f"--port={site.port}"]
    document["guest"]["www"]["args"] = args
    site.state.host_file.write_text(tomlkit.dumps(document))
    site.command("deploy")
    assert site.page() == "one"


def test_install_keeps_what_else_the_host_file_says_of_a_guest(bare_of_manifest: Site) -> None:
    site = bare_of_manifest
    site.install(*GUEST_OPTIONS)
    edited = site.state.host_file.read_text() + "memory = 16 # enough\n"
    site.state.host_file.write_text(edited)
    site.install(*GUEST_OPTIONS)
    assert site.state.host_file.read_text() == edited


def test_install_describes_several_guests(bare_of_manifest: Site) -> None:
    other = ("--guest", "dns", "--target", "unix", "--image", "unix/{latest}/dns.unix")
    bare_of_manifest.install(*GUEST_OPTIONS, *other)
    said = bare_of_manifest.command("plan").stdout
    assert ["dns: skip" in said, "www: start" in said] == [True, True]


def test_a_guest_without_a_target_and_an_image_is_a_usage_error(site: Site) -> None:
    assert site.command("install", "--guest", "www", check=False).returncode == 2


@pytest.mark.parametrize("name", ["../www", "-www", "w/w", "w\nw", ""])
def test_install_refuses_a_guest_that_cannot_be_named_so(site: Site, name: str) -> None:
    before = tree(site.clone / ".git")
    done = site.command(
        "install", f"--guest={name}", "--target=unix", "--image=www.unix", check=False
    )
    assert (done.returncode, tree(site.clone / ".git") == before) == (3, True)


# A hook that was there before.


@pytest.mark.parametrize("hook", HOOKS)
def test_a_foreign_hook_is_kept(site: Site, hook: str) -> None:
    add_foreign_hook(hook_of(site, hook))
    site.install()
    assert hook_of(site, f"{hook}.legacy").read_text() == FOREIGN


def test_install_says_that_a_foreign_hook_is_kept(site: Site) -> None:
    add_foreign_hook(hook_of(site))
    assert "post-merge.legacy" in site.install().stdout


def test_a_foreign_hook_is_run_with_the_same_arguments(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    add_foreign_hook(hook_of(site))
    site.install()
    site.publish("two")
    site.pull()
    assert (tmp_path / "notes").read_text() == "foreign\n0\n"


def test_a_foreign_hook_is_given_what_git_says_on_standard_input(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    add_foreign_hook(hook_of(site, "post-rewrite"))
    site.install()
    old = site.git("rev-parse", "HEAD").stdout.strip()
    site.git("commit", "--amend", "-q", "-m", "reworded")
    new = site.git("rev-parse", "HEAD").stdout.strip()
    assert (tmp_path / "notes").read_text() == f"foreign\namend\n{old} {new}\n"


def test_a_foreign_hook_runs_before_the_deploy(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    path = hook_of(site)
    path.write_text(f'#!/bin/sh\nls "{site.state.folder}" >"$NOTES"\n')
    path.chmod(0o755)
    site.install()
    site.publish("two")
    site.pull()
    assert "runs" not in (tmp_path / "notes").read_text().split()


def test_a_foreign_hook_that_fails_does_not_stop_the_deploy(site: Site) -> None:
    path = hook_of(site)
    path.write_text("#!/bin/sh\nexit 1\n")
    path.chmod(0o755)
    site.install()
    site.publish("two")
    site.pull()
    assert site.page() == "two"


def test_a_second_install_leaves_a_kept_hook_as_it_is(site: Site) -> None:
    add_foreign_hook(hook_of(site))
    site.install()
    before = tree(site.clone / ".git")
    site.install()
    assert tree(site.clone / ".git") == before


@pytest.mark.parametrize("hook", HOOKS)
def test_install_changes_nothing_where_a_kept_hook_is_in_the_way(site: Site, hook: str) -> None:
    add_foreign_hook(hook_of(site, hook))
    hook_of(site, f"{hook}.legacy").write_text("#!/bin/sh\nexit 0\n")
    before = tree(site.clone / ".git")
    site.command("install", check=False)
    assert tree(site.clone / ".git") == before


def test_install_says_that_a_kept_hook_is_in_the_way(site: Site) -> None:
    add_foreign_hook(hook_of(site))
    hook_of(site, "post-merge.legacy").write_text("#!/bin/sh\nexit 0\n")
    assert_refused(site.command("install", check=False), 3)


# Every kind of repository.


@pytest.fixture
def bare(site: Site, tmp_path: Path) -> Path:
    """A bare repository with the same branch."""
    run("git", "clone", "-q", "--bare", str(site.upstream), "bare.git", cwd=tmp_path)
    return tmp_path / "bare.git"


@pytest.fixture
def linked(site: Site, tmp_path: Path) -> Path:
    """A linked worktree of the clone."""
    site.git("worktree", "add", "-q", "-b", "other", str(tmp_path / "linked"))
    return tmp_path / "linked"


@pytest.mark.parametrize("hook", HOOKS)
def test_install_drops_hooks_into_a_bare_repository(bare: Path, hook: str) -> None:
    run(COMMAND, "install", cwd=bare)
    assert mode_of(bare / "hooks" / hook) == 0o755


def test_install_into_a_bare_repository_takes_the_branch_of_its_head(bare: Path) -> None:
    run(COMMAND, "install", cwd=bare)
    assert tomlkit.parse(State(bare).host_file.read_text())["branch"] == "main"


def test_install_takes_an_empty_bare_repository(tmp_path: Path) -> None:
    run("git", "init", "-q", "--bare", "empty.git", cwd=tmp_path)
    assert "main deploys" in run(COMMAND, "install", cwd=tmp_path / "empty.git").stdout


def test_install_makes_an_empty_trigger_that_others_cannot_write(bare: Path) -> None:
    run(COMMAND, "install", cwd=bare)
    trigger = State(bare).trigger
    assert (trigger.read_bytes(), mode_of(trigger)) == (b"", 0o600)


def test_install_leaves_a_trigger_as_it_was_given_to_those_who_push(bare: Path) -> None:
    run(COMMAND, "install", cwd=bare)
    State(bare).trigger.chmod(0o620)
    run(COMMAND, "install", cwd=bare)
    assert mode_of(State(bare).trigger) == 0o620


def test_install_in_a_linked_worktree_serves_the_whole_repository(site: Site, linked: Path) -> None:
    run(COMMAND, "install", "--branch", "main", cwd=linked)
    assert (site.state.host_file.exists(), hook_of(site).exists()) == (True, True)


def test_uninstall_in_a_linked_worktree_leaves_every_byte_as_it_was(
    site: Site, linked: Path
) -> None:
    before = tree(site.clone / ".git")
    run(COMMAND, "install", cwd=linked)
    run(COMMAND, "uninstall", "--yes", cwd=linked)
    assert tree(site.clone / ".git") == before


def test_uninstall_leaves_every_byte_of_a_bare_repository_as_it_was(bare: Path) -> None:
    before = tree(bare)
    run(COMMAND, "install", cwd=bare)
    run(COMMAND, "uninstall", "--yes", cwd=bare)
    assert tree(bare) == before


# Where it cannot be installed.


def refused_unchanged(folder: Path, git_dir: Path, *options: str) -> None:
    """`install` refuses a repository (exit code 4) and writes nothing into it."""
    before = tree(git_dir)
    assert_refused(run(COMMAND, "install", *options, cwd=folder, check=False), 4)
    assert tree(git_dir) == before


def test_install_refuses_what_is_no_repository(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    refused_unchanged(folder, folder)


def test_install_refuses_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    assert_refused(run(COMMAND, "install", "nowhere", cwd=tmp_path, check=False), 4)


def test_install_refuses_a_submodule(site: Site, tmp_path: Path) -> None:
    run("git", "init", "-q", "super", cwd=tmp_path)
    add = ("submodule", "add", "-q", str(site.upstream), "sub")
    run("git", "-c", "protocol.file.allow=always", *add, cwd=tmp_path / "super")
    refused_unchanged(tmp_path / "super" / "sub", tmp_path / "super" / ".git")


@pytest.mark.parametrize("key", ["core.hooksPath", "core.hookspath", "CORE.HooksPath"])
def test_install_refuses_a_clone_whose_hooks_are_elsewhere(site: Site, key: str) -> None:
    site.git("config", key, "/somewhere/else")
    refused_unchanged(site.clone, site.clone / ".git")


def test_install_refuses_a_clone_where_the_user_keeps_all_hooks_elsewhere(site: Site) -> None:
    site.git("config", "--global", "core.hooksPath", "/somewhere/else")
    refused_unchanged(site.clone, site.clone / ".git")


def test_install_refuses_an_unborn_branch(tmp_path: Path) -> None:
    run("git", "init", "-q", "empty", cwd=tmp_path)
    refused_unchanged(tmp_path / "empty", tmp_path / "empty" / ".git")


def test_install_refuses_a_branch_that_does_not_exist(site: Site) -> None:
    refused_unchanged(site.clone, site.clone / ".git", "--branch", "nowhere")


def test_install_refuses_a_detached_head(site: Site) -> None:
    site.git("checkout", "-q", "--detach")
    refused_unchanged(site.clone, site.clone / ".git")


def test_install_takes_a_branch_by_name_while_the_head_is_detached(site: Site) -> None:
    site.git("checkout", "-q", "--detach")
    assert "a pull or a push of main deploys" in site.install("--branch", "main").stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a repository away")
def test_install_refuses_a_clone_of_another_user(site: Site) -> None:
    shutil.chown(site.clone / ".git", "nobody")
    assert_refused(site.command("install", check=False), 6)


# Taking it out again.


def test_uninstall_leaves_every_byte_as_it_was(site: Site) -> None:
    before = tree(site.clone / ".git")
    site.install()
    site.command("uninstall", "--yes")
    assert tree(site.clone / ".git") == before


def test_uninstall_leaves_every_byte_as_it_was_after_a_deploy(site: Site) -> None:
    before = tree(site.clone / ".git")
    site.install("--deploy")
    site.command("uninstall", "--yes", "--stop")
    assert tree(site.clone / ".git") == before


def test_uninstall_removes_the_hooks_folder_where_there_was_none(site: Site) -> None:
    shutil.rmtree(site.clone / ".git" / "hooks")
    before = tree(site.clone / ".git")
    site.install()
    site.command("uninstall", "--yes")
    assert tree(site.clone / ".git") == before


def test_uninstall_keeps_a_hook_that_came_into_the_folder_it_made(site: Site) -> None:
    shutil.rmtree(site.clone / ".git" / "hooks")
    before = tree(site.clone / ".git")
    site.install()
    add_foreign_hook(hook_of(site, "pre-commit"))
    after = {
        "hooks": (hook_of(site).parent.stat().st_mode, b""),
        "hooks/pre-commit": (hook_of(site, "pre-commit").stat().st_mode, FOREIGN.encode()),
    }
    site.command("uninstall", "--yes", check=False)
    assert tree(site.clone / ".git") == before | after


def foreign_script(path: Path) -> None:
    add_foreign_hook(path)


def foreign_script_of_an_odd_mode(path: Path) -> None:
    add_foreign_hook(path)
    path.chmod(0o510)


def foreign_script_that_is_not_executable(path: Path) -> None:
    path.write_text(FOREIGN)
    path.chmod(0o640)


def foreign_link(path: Path) -> None:
    path.symlink_to("../description")


def foreign_dangling_link(path: Path) -> None:
    path.symlink_to("../nowhere")


@pytest.mark.parametrize(
    "put",
    [
        foreign_script,
        foreign_script_of_an_odd_mode,
        foreign_script_that_is_not_executable,
        foreign_link,
        foreign_dangling_link,
    ],
)
def test_uninstall_puts_a_foreign_hook_back(site: Site, put: Callable[[Path], None]) -> None:
    for hook in HOOKS:
        put(hook_of(site, hook))
    before = tree(site.clone / ".git")
    site.install()
    site.command("uninstall", "--yes")
    assert tree(site.clone / ".git") == before


def test_uninstall_puts_a_foreign_hook_back_though_ours_was_deleted(site: Site) -> None:
    add_foreign_hook(hook_of(site))
    before = tree(site.clone / ".git")
    site.install()
    hook_of(site).unlink()
    site.command("uninstall", "--yes")
    assert tree(site.clone / ".git") == before


def test_uninstall_leaves_a_hook_alone_that_took_the_place_of_ours(site: Site) -> None:
    site.install()
    hook_of(site).write_text(FOREIGN)
    site.command("uninstall", "--yes")
    assert hook_of(site).read_text() == FOREIGN


ODD_CONFIGURATIONS = {
    "a comment at its end": "# a comment\n",
    "no newline at its end": "[a]\n\tb = c",
    "refs hidden already": "[transfer]\n\thideRefs = refs/other\n[z]\n\ty = 1\n",
    "a section with a comment alone": "[transfer]\n\t# fsckObjects = true\n",
    "ours hidden already": "[transfer]\n\thideRefs = refs/mirage-hooks\n",
}


@pytest.mark.parametrize("text", ODD_CONFIGURATIONS.values(), ids=ODD_CONFIGURATIONS)
def test_uninstall_leaves_gits_configuration_as_it_was(site: Site, text: str) -> None:
    config = site.clone / ".git" / "config"
    config.write_text(before := config.read_text() + text)
    site.install()
    site.install()
    site.command("uninstall", "--yes")
    assert config.read_text() == before


def test_pins_are_hidden_from_whoever_fetches(deployed: Site) -> None:
    assert deployed.git("for-each-ref", "refs/mirage-hooks").stdout != ""
    assert "mirage-hooks" not in run("git", "ls-remote", ".", cwd=deployed.clone).stdout


def test_uninstall_that_keeps_the_state_keeps_what_it_can_go_back_to(deployed: Site) -> None:
    deployed.command("uninstall", "--yes", "--stop", "--keep-state")
    assert deployed.git("for-each-ref", "refs/mirage-hooks").stdout != ""
    assert "mirage-hooks" not in run("git", "ls-remote", ".", cwd=deployed.clone).stdout


def test_uninstall_says_what_it_removed(site: Site) -> None:
    site.install()
    said = site.command("uninstall", "--yes").stdout
    removed = [*(hook_of(site, hook) for hook in HOOKS), site.state.folder]
    assert [path for path in removed if f"{path}: removed" not in said] == []


def test_uninstall_says_that_it_put_gits_configuration_back(site: Site) -> None:
    config = site.clone / ".git" / "config"
    assert f"{config}: hides our refs from whoever fetches\n" in site.install().stdout
    said = site.command("uninstall", "--yes").stdout
    assert said.count(f"{config}: hides our refs no more\n") == 1


def test_uninstall_says_nothing_of_a_configuration_that_is_somebody_elses(site: Site) -> None:
    site.git("config", "transfer.hideRefs", "refs/mirage-hooks")
    site.install()
    assert "hides our refs" not in site.command("uninstall", "--yes").stdout


def test_uninstall_without_anybody_to_ask_wants_yes(site: Site) -> None:
    site.install()
    assert_refused(site.command("uninstall", check=False), 3)


def test_uninstall_without_anybody_to_ask_removes_nothing(site: Site) -> None:
    site.install()
    before = tree(site.clone / ".git")
    site.command("uninstall", check=False)
    assert tree(site.clone / ".git") == before


def test_uninstall_refuses_where_nothing_is_installed(site: Site) -> None:
    before = tree(site.clone / ".git")
    assert_refused(site.command("uninstall", "--yes", check=False), 4)
    assert tree(site.clone / ".git") == before


def test_uninstall_names_the_guests_that_run(deployed: Site) -> None:
    done = deployed.command("uninstall", "--yes", check=False)
    assert_refused(done, 3)
    assert "guests are running: www" in done.stderr


def test_uninstall_removes_nothing_while_guests_run(deployed: Site) -> None:
    before = tree(deployed.clone / ".git")
    deployed.command("uninstall", "--yes", check=False)
    assert tree(deployed.clone / ".git") == before


def test_uninstall_leaves_a_guest_alone_that_it_refuses_to_stop(deployed: Site) -> None:
    deployed.command("uninstall", "--yes", check=False)
    assert deployed.page() == "one"


def test_uninstall_with_stop_ends_the_guests(deployed: Site) -> None:
    deployed.command("uninstall", "--yes", "--stop")
    assert deployed.page() is None


def processes_of(site: Site) -> list[ProcessId]:
    """Return the monitors of a site, and their guests."""
    monitors = monitors_of(site.state)
    return [
        process
        for monitor in monitors
        for process in (monitor.monitor, monitor.tender)
        if process is not None
    ]


def test_uninstall_with_stop_leaves_no_process_behind(deployed: Site) -> None:
    processes = processes_of(deployed)
    deployed.command("uninstall", "--yes", "--stop")
    assert [process.alive for process in processes] == [False, False]


def test_uninstall_leaves_no_control_socket_behind(deployed: Site) -> None:
    deployed.command("uninstall", "--yes", "--stop")
    assert list(Path(os.environ["XDG_RUNTIME_DIR"]).iterdir()) == []


def test_uninstall_may_leave_the_guests_running(deployed: Site) -> None:
    deployed.command("uninstall", "--yes", "--leave-running")
    assert deployed.page() == "one"


def test_uninstall_that_leaves_guests_running_removes_the_hooks(deployed: Site) -> None:
    deployed.command("uninstall", "--yes", "--leave-running")
    assert [hook for hook in HOOKS if hook_of(deployed, hook).exists()] == []


def test_a_pull_deploys_nothing_after_an_uninstall_that_left_guests_running(
    deployed: Site,
) -> None:
    deployed.command("uninstall", "--yes", "--leave-running")
    deployed.publish("two")
    deployed.pull()
    assert deployed.page() == "one"


def test_an_install_takes_guests_back_that_were_left_running(deployed: Site) -> None:
    before = processes_of(deployed)
    deployed.command("uninstall", "--yes", "--leave-running")
    deployed.install("--deploy")
    assert processes_of(deployed) == before


def test_a_second_uninstall_ends_what_the_first_left_running(deployed: Site) -> None:
    deployed.command("uninstall", "--yes", "--leave-running")
    deployed.command("uninstall", "--yes", "--stop")
    assert (deployed.page(), deployed.state.folder.exists()) == (None, False)


def test_uninstall_may_keep_the_state(deployed: Site) -> None:
    deployed.command("uninstall", "--yes", "--stop", "--keep-state")
    assert [str(one.phase) for one in deployed.state.generations("www")] != []


def test_uninstall_that_keeps_the_state_removes_the_hooks(site: Site) -> None:
    site.install()
    site.command("uninstall", "--yes", "--keep-state")
    assert [hook for hook in HOOKS if hook_of(site, hook).exists()] == []


def test_uninstall_that_keeps_the_state_records_that_the_guest_ended(deployed: Site) -> None:
    deployed.command("uninstall", "--yes", "--stop", "--keep-state")
    assert [one.phase for one in deployed.state.generations("www")] == [Phase.ENDED]


def test_stop_and_leave_running_exclude_each_other(site: Site) -> None:
    site.install()
    done = site.command("uninstall", "--yes", "--stop", "--leave-running", check=False)
    assert done.returncode == 2
