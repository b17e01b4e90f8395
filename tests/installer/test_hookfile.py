"""The dropped hook: one file that is sh and Python, whatever the interpreter's path."""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mirage_hooks.boot.errors import HostError
from mirage_hooks.installer import hookfile
from support import COMMAND, Site

HOOKS = tuple(hookfile.HOOKS)

# Paths that have to work. The last is longer than what a #! line may hold (255 bytes).
PATHS = [
    "/usr/bin/python3",
    "/opt/my tools/bin/python",
    "/home/jürgen/日本/bin/python",
    "/opt/it's/bin/python",
    '/opt/"quoted"/bin/python',
    "/opt/''/'/bin/python'",
    "/opt/$HOME/`id`/$(id)/!!/bin/python",
    "/opt/#1 {0} {python} %s ~ * ;&|<>/python",
    "/opt/tab\there/python",
    f"/opt/{'deep folder/' * 30}python",
]

# One component of a path: anything that a file system takes.
COMPONENTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=60
).filter(lambda name: name not in {".", ".."} and len(name.encode()) <= 255)

# A stand-in for an interpreter: it notes what it was run with.
FAKE_INTERPRETER = """\
#!/bin/sh
printf '%s\\n' "$@" >"$NOTES"
"""

# What the hook of a clone runs it with, before git's own arguments.
RUN = ["-I", ".git/hooks/post-merge", ".git/hooks/../mirage-hooks"]


def make_fake_interpreter(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(FAKE_INTERPRETER)
    path.chmod(0o755)


def drop(folder: Path, python: str, hook: str = "post-merge", state: Path | None = None) -> None:
    """Drop a hook into a folder that looks enough like a clone for it."""
    (folder / ".git" / "hooks").mkdir(parents=True)
    (folder / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    path = folder / ".git" / "hooks" / hook
    path.write_bytes(hookfile.render(hook, python, state))
    path.chmod(0o755)


def arguments_of_interpreter(folder: Path, *arguments: str) -> list[str]:
    """Run the dropped hook as git does; return what its interpreter was run with."""
    notes = folder / "notes"
    environment = {**os.environ, "NOTES": str(notes)}
    hook = ".git/hooks/post-merge"
    subprocess.run([hook, *arguments], cwd=folder, env=environment, check=True, timeout=30)
    return notes.read_text().splitlines()


def replace_interpreter(site: Site, python: str) -> None:
    """Leave the hooks of a clone as an installation under another interpreter left them."""
    for hook in HOOKS:
        path = site.clone / ".git" / "hooks" / hook
        path.write_bytes(hookfile.render(hook, python))


# One file, two languages.


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_is_valid_python(hook: str, path: str) -> None:
    compile(hookfile.render(hook, path), hook, "exec")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_is_valid_sh_as_far_as_sh_reads(hook: str, path: str) -> None:
    text = hookfile.render(hook, path).partition(b"\n':'''\n")[0]
    done = subprocess.run(["sh", "-n"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("hook", HOOKS)
def test_sh_reads_no_further_than_to_the_run_of_the_interpreter(hook: str) -> None:
    last = hookfile.render(hook, PATHS[0]).partition(b"\n':'''\n")[0].splitlines()[-1]
    blocks = hookfile.HOOKS[hook].blocks
    assert last == (b"exit $?" if blocks else b'exec "$python" -I "$0" "$state" "$@"')


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_is_run_by_sh_however_long_the_path(hook: str) -> None:
    assert hookfile.render(hook, PATHS[-1]).startswith(b"#!/bin/sh\n")


@pytest.mark.parametrize("path", PATHS)
def test_a_hook_tells_its_interpreter(tmp_path: Path, path: str) -> None:
    hook = tmp_path / "post-merge"
    hook.write_bytes(hookfile.render("post-merge", path))
    assert hookfile.interpreter(hook) == path


@pytest.mark.parametrize("path", PATHS)
def test_sh_runs_the_interpreter(tmp_path: Path, path: str) -> None:
    python = f"{tmp_path}{path}"
    make_fake_interpreter(Path(python))
    drop(tmp_path, python)
    assert arguments_of_interpreter(tmp_path, "0") == [*RUN, "0"]


@given(st.lists(COMPONENTS, min_size=1, max_size=12))
@example(["a\rb", "python"])
@example(["x" * 250, "y" * 250, "python"])
@settings(deadline=None, database=None, max_examples=100)
def test_every_path_is_refused_or_run(components: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = "/".join([name, "root", *components])
        try:
            drop(folder, python)
        except HostError:
            return
        hook = folder / ".git" / "hooks" / "post-merge"
        compile(hook.read_bytes(), "hook", "exec")
        assert hookfile.interpreter(hook) == python
        make_fake_interpreter(Path(python))
        assert arguments_of_interpreter(folder, "0") == [*RUN, "0"]


@pytest.mark.parametrize("path", ["/opt/a\\b/python", "/opt/a\nb/python", "/opt/'''/python"])
def test_a_path_that_cannot_stand_in_both_languages_is_refused(path: str) -> None:
    with pytest.raises(HostError, match="cannot stand in a hook"):
        hookfile.render("post-merge", path)


def test_a_path_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(HostError, match="not UTF-8"):
        hookfile.render("post-merge", os.fsdecode(b"/opt/\xff/python"))


@pytest.mark.parametrize("path", PATHS)
def test_sh_hands_on_a_state_folder_of_any_name(tmp_path: Path, path: str) -> None:
    make_fake_interpreter(tmp_path / "python")
    drop(tmp_path, str(tmp_path / "python"), state=Path(path))
    assert arguments_of_interpreter(tmp_path)[2] == path


@pytest.mark.parametrize("path", ["/srv/a\\b", "/srv/a\nb"])
def test_a_state_folder_that_cannot_stand_in_both_languages_is_refused(path: str) -> None:
    with pytest.raises(HostError, match="cannot stand in a hook"):
        hookfile.render("post-merge", "/usr/bin/python3", Path(path))


# Whatever git, or whoever runs a hook, gives it.

# What a process can be given: arguments without NUL, and on standard input anything but that.
BYTES = st.binary(max_size=60).map(lambda data: data.replace(b"\0", b""))
LINES = st.one_of(
    st.sampled_from(
        [
            b"",
            b"END\n",
            b"$(touch broken) `touch broken` \\\\ * ~\n",
            b"0" * 40 + b" " + b"1" * 40 + b" refs/heads/main\n",
            b"1" * 40 + b" " + b"0" * 40 + b" refs/heads/main\n",
            b"refs/heads/x " + b"1" * 40 + b" refs/heads/main " + b"2" * 40 + b"\n",
            b"(delete) " + b"0" * 40 + b" refs/heads/main " + b"2" * 40,
            b"-n -e %s%n %d\n",
            b"\n\n\n",
        ]
    ),
    BYTES,
)
INPUTS = st.lists(LINES, max_size=5).map(b"".join)

# Stand-ins: the hook that was here before, and an interpreter, each note what they were given.
NOTING = """\
#!/bin/sh
{ printf '%s\\0' "$@"; cat; } >"${0##*/}.notes"
exit 0
"""


@pytest.mark.parametrize("hook", HOOKS)
@given(arguments=st.lists(BYTES, max_size=4), given_input=INPUTS)
@example(arguments=[b"0"], given_input=b"")
@settings(deadline=None, database=None, max_examples=25)
def test_a_hook_hands_on_whatever_it_is_given(
    hook: str, arguments: list[bytes], given_input: bytes
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        drop(folder, str(folder / "python"), hook)
        for path in (folder / "python", folder / ".git" / "hooks" / f"{hook}.kept"):
            path.write_text(NOTING)
            path.chmod(0o755)
        done = subprocess.run(
            [os.fsencode(f".git/hooks/{hook}"), *arguments],
            cwd=folder,
            input=given_input,
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        given_arguments = b"".join(one + b"\0" for one in arguments) or b"\0"
        reads = hookfile.HOOKS[hook].reads
        noted = (folder / f"{hook}.kept.notes").read_bytes()
        assert noted == given_arguments + (given_input if reads else noted[len(given_arguments) :])
        assert not (folder / "broken").exists()
        if (folder / "python.notes").exists():
            ran = [b"-I", f".git/hooks/{hook}".encode(), b".git/hooks/../mirage-hooks", *arguments]
            noted = (folder / "python.notes").read_bytes()
            assert noted.startswith(b"".join(one + b"\0" for one in ran))


@pytest.mark.parametrize("hook", ["post-receive", "pre-push"])
@pytest.mark.parametrize("text", ["", "garbage", "END", "a b", "a 00000 c", "x y z"])
def test_a_hook_that_is_told_nothing_of_a_branch_asks_python_at_most(
    tmp_path: Path, hook: str, text: str
) -> None:
    make_fake_interpreter(tmp_path / "python")
    drop(tmp_path, str(tmp_path / "python"), hook)
    done = subprocess.run(
        [f".git/hooks/{hook}", "origin", "url"],
        cwd=tmp_path,
        env={**os.environ, "NOTES": str(tmp_path / "notes")},
        input=text.encode(),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


# What is ours.


@pytest.mark.parametrize("hook", HOOKS)
def test_a_dropped_hook_is_known_as_ours(tmp_path: Path, hook: str) -> None:
    path = tmp_path / hook
    path.write_bytes(hookfile.render(hook, PATHS[-1]))
    assert hookfile.is_ours(path)


@pytest.mark.parametrize("text", [b"", b"#!/bin/sh\nmirage-hooks deploy\n", b"\xff\xfe"])
def test_another_hook_is_not_taken_for_ours(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "post-merge"
    path.write_bytes(text)
    assert not hookfile.is_ours(path)


def test_a_missing_hook_is_not_taken_for_ours(tmp_path: Path) -> None:
    assert not hookfile.is_ours(tmp_path / "post-merge")


@pytest.mark.parametrize("text", [b"#!/bin/sh\n", b"python='unfinished\n", b"python=\n", b"\xff"])
def test_a_damaged_hook_tells_no_interpreter(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "post-merge"
    path.write_bytes(text)
    assert hookfile.interpreter(path) is None


# In a clone.


def test_an_installed_hook_runs_the_interpreter_that_installed_it(site: Site) -> None:
    site.install()
    hook = site.clone / ".git" / "hooks" / "post-merge"
    named_by_pip = COMMAND.read_text().splitlines()[0].removeprefix("#!")
    assert hookfile.interpreter(hook) == named_by_pip


def test_a_pull_runs_the_interpreter_isolated(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install()
    python = tmp_path / "my tools" / "python"
    make_fake_interpreter(python)
    replace_interpreter(site, str(python))
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    site.publish("two")
    site.pull()
    assert (tmp_path / "notes").read_text().split("\n")[0] == "-I"


def test_a_pull_that_changes_nothing_that_runs_starts_no_interpreter(
    deployed: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_fake_interpreter(tmp_path / "python")
    replace_interpreter(deployed, str(tmp_path / "python"))
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    (deployed.upstream / "README").write_text("words\n")
    deployed.commit("words only")
    deployed.pull()
    assert not (tmp_path / "notes").exists()


def test_a_pull_is_not_led_astray_by_the_operators_python_settings(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "elsewhere" / "mirage_hooks"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('astray')\n")
    site.install()
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    site.publish("two")
    site.pull()
    assert site.page() == "two"


@pytest.fixture
def empty_interpreter(tmp_path: Path) -> str:
    """An interpreter that has no mirage-hooks, as a Python upgrade leaves one."""
    venv.create(tmp_path / "upgraded", with_pip=False)
    return str(tmp_path / "upgraded" / "bin" / "python")


def pull_with_interpreter(site: Site, python: str) -> subprocess.CompletedProcess[str]:
    """Pull something new while the hooks have another interpreter; git itself says nothing."""
    site.install()
    replace_interpreter(site, python)
    site.publish("two")
    return site.pull("--quiet", check=False)


def test_a_vanished_interpreter_does_not_fail_the_pull(site: Site) -> None:
    assert pull_with_interpreter(site, "/opt/gone/bin/python").returncode == 0


def test_a_vanished_interpreter_is_told_in_one_line(site: Site) -> None:
    done = pull_with_interpreter(site, "/opt/gone for good/bin/python")
    assert (done.stdout, done.stderr) == (
        "",
        "mirage-hooks: nothing was deployed: /opt/gone for good/bin/python is gone, "
        "or out of this user's reach; "
        "install mirage-hooks again, then run: mirage-hooks install\n",
    )


def test_a_vanished_package_does_not_fail_the_pull(site: Site, empty_interpreter: str) -> None:
    assert pull_with_interpreter(site, empty_interpreter).returncode == 0


def test_a_vanished_package_is_told_in_one_line(site: Site, empty_interpreter: str) -> None:
    done = pull_with_interpreter(site, empty_interpreter)
    assert (done.stdout, done.stderr) == (
        "",
        "mirage-hooks: nothing was deployed: No module named 'mirage_hooks' "
        f"({empty_interpreter}); install mirage-hooks again, then run: mirage-hooks install\n",
    )


def test_an_interpreter_that_is_not_executable_is_told_in_one_line(
    site: Site, tmp_path: Path
) -> None:
    (tmp_path / "python").touch(mode=0o644)
    said = pull_with_interpreter(site, str(tmp_path / "python")).stderr.splitlines()
    assert ["run: mirage-hooks install" in line for line in said] == [True]


def test_a_vanished_interpreter_is_mended_as_the_line_says(site: Site) -> None:
    pull_with_interpreter(site, "/opt/gone/bin/python")
    site.command("install")
    site.publish("three")
    site.pull()
    assert site.page() == "three"


def test_an_interpreter_behind_a_link_is_kept_as_it_was_named(site: Site, tmp_path: Path) -> None:
    # Resolved, the path of an environment's interpreter would lead out of the environment.
    link = tmp_path / "environment"
    link.symlink_to(Path(sys.executable).parent.parent)
    python = str(link / "bin" / Path(sys.executable).name)
    subprocess.run(
        [python, "-I", "-c", "from mirage_hooks.installer.cli import main; main()", "install"],
        cwd=site.clone,
        check=True,
    )
    hook = site.clone / ".git" / "hooks" / "post-merge"
    assert hookfile.interpreter(hook) == python
