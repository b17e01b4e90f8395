"""Who else may write what is obeyed: that is refused, and what runs goes on running."""

import grp
import os
import pwd
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mirage_hooks.boot import ownership
from mirage_hooks.boot.errors import HostError
from support import Site

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")

Group = Callable[[int], "grp.struct_group"]


def me() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that is ours alone."""
    path = tmp_path / "it's ours"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def members(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say who is in the group of every file: by name, or as a user's own group."""

    def say(*names: str, own: str | None = None) -> None:
        group = grp.struct_group(("staff", "x", os.getegid(), list(names)))
        users = [
            pwd.struct_passwd((name, "x", 0, gid, "", "/", "/bin/sh"))
            for name, gid in ((own, os.getegid()), ("stranger", os.getegid() + 1))
            if name is not None
        ]
        monkeypatch.setattr(grp, "getgrgid", lambda gid: group)
        monkeypatch.setattr(pwd, "getpwall", lambda: users)

    return say


def test_what_only_we_may_write_is_obeyed(folder: Path) -> None:
    ownership.refuse_foreign([folder])


def test_what_does_not_exist_is_nobodys(folder: Path) -> None:
    ownership.refuse_foreign([folder / "missing"])


def test_what_everybody_may_write_is_refused(folder: Path) -> None:
    folder.chmod(0o702)
    with pytest.raises(HostError, match="may be written by everybody"):
        ownership.refuse_foreign([folder])


def test_each_of_several_is_looked_at(folder: Path) -> None:
    (folder / "config").touch(mode=0o600)
    (folder / "config").chmod(0o602)
    with pytest.raises(HostError, match="config may be written"):
        ownership.refuse_foreign([folder, folder / "config"])


def test_what_a_link_leads_to_is_looked_at(folder: Path, tmp_path: Path) -> None:
    folder.chmod(0o702)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(HostError):
        ownership.refuse_foreign([tmp_path / "link"])


def test_a_group_with_another_member_is_refused(folder: Path, members: Callable[..., None]) -> None:
    members(me(), "somebody")
    folder.chmod(0o770)
    with pytest.raises(HostError, match="may be written by group staff"):
        ownership.refuse_foreign([folder])


def test_a_group_that_is_another_users_own_is_refused(
    folder: Path, members: Callable[..., None]
) -> None:
    members(own="somebody")
    folder.chmod(0o770)
    with pytest.raises(HostError):
        ownership.refuse_foreign([folder])


@pytest.mark.parametrize("names", [[], ["root"], ["us"], ["us", "root"]])
def test_a_group_of_our_own_is_fine_as_with_a_umask_of_002(
    folder: Path, members: Callable[..., None], names: list[str]
) -> None:
    members(*(me() if name == "us" else name for name in names), own=me())
    folder.chmod(0o775)
    ownership.refuse_foreign([folder])


def test_a_group_without_a_name_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(gid: int) -> "grp.struct_group":
        raise KeyError(gid)

    monkeypatch.setattr(grp, "getgrgid", unknown)
    folder.chmod(0o770)
    with pytest.raises(HostError, match=f"may be written by group {os.getegid()}"):
        ownership.refuse_foreign([folder])


@as_root
def test_what_belongs_to_another_user_is_refused(folder: Path) -> None:
    shutil.chown(folder, "nobody")
    with pytest.raises(HostError, match="belongs to user nobody"):
        ownership.refuse_foreign([folder])


def test_the_command_that_mends_it_can_be_pasted(folder: Path) -> None:
    folder.chmod(0o777)
    with pytest.raises(HostError) as refused:
        ownership.refuse_foreign([folder])
    hint = refused.value.hint
    assert hint is not None
    assert os.system(hint.removeprefix("run: ")) == 0
    ownership.refuse_foreign([folder])


# In a repository.


def everybody(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o002)


def a_group(path: Path) -> None:
    shutil.chown(path, group="games")
    path.chmod(path.stat().st_mode | 0o020)


def another_user(path: Path) -> None:
    shutil.chown(path, "nobody")


OBEYED = ["", "config", "hooks"]
WAYS = [
    everybody,
    pytest.param(a_group, marks=as_root),
    pytest.param(another_user, marks=as_root),
]


@pytest.mark.parametrize("name", OBEYED)
@pytest.mark.parametrize("give", WAYS)
def test_install_refuses_a_repository_that_others_may_write(
    site: Site, name: str, give: Callable[[Path], None]
) -> None:
    give(site.clone / ".git" / name)
    done = site.command("install", check=False)
    assert (done.returncode, site.state.folder.exists()) == (6, False)


@pytest.mark.parametrize("name", OBEYED)
def test_a_converge_refuses_a_repository_that_others_may_write(installed: Site, name: str) -> None:
    everybody(installed.clone / ".git" / name)
    done = installed.command("deploy", check=False)
    assert (done.returncode, "may be written by everybody" in done.stderr) == (6, True)


def test_a_pull_into_a_repository_that_others_may_write_leaves_what_runs(deployed: Site) -> None:
    everybody(deployed.clone / ".git" / "config")
    deployed.publish("two")
    pull = deployed.pull()
    assert "may be written by everybody" in pull.stderr
    assert deployed.page() == "one"


def test_a_host_file_that_others_may_write_is_refused(installed: Site) -> None:
    everybody(installed.state.host_file)
    assert installed.command("deploy", check=False).returncode == 6


@as_root
def test_root_refuses_to_deploy_the_repository_of_another_user(installed: Site) -> None:
    another_user(installed.clone / ".git")
    assert installed.command("deploy", check=False).returncode == 6
