"""The command line: one place where commands are named, and errors become exit codes."""

import importlib
import os
import shutil
import sys
import tempfile
import traceback

import click

from mirage_hooks.boot import severity
from mirage_hooks.boot.environment import not_found
from mirage_hooks.boot.errors import Error, HostError

_BUG_EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h
_INTERRUPTED_EXIT_CODE = 130  # 128 + SIGINT, as shells have it


# Each command, and the module of `commands` that has it.
_COMMANDS = {
    "clone": "clone",
    "install": "setup",
    "uninstall": "setup",
    "doctor": "doctor",
    "status": "inspect",
    "plan": "operate",
    "poll": "poll",
    "verify": "verify",
    "publish": "publish",
    "deploy": "operate",
    "reboot": "operate",
    "stop": "operate",
    "start": "operate",
    "rollback": "operate",
    "pause": "operate",
    "resume": "operate",
    "up": "operate",
    "gc": "tidy",
    "history": "inspect",
    "logs": "logs",
    "completion": "setup",
}


class _Commands(click.Group):
    """The commands; only what the one that is called needs is imported."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return super().get_command(ctx, cmd_name)
        module = importlib.import_module(f"{__package__}.commands.{_COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-C",
    "--repo",
    default=".",
    metavar="PATH",
    help="The deployment repository, or a path inside it (default: this folder).",
)
@click.version_option(package_name="mirage-hooks", message="%(package)s %(version)s")
@click.pass_context
def cli(context: click.Context, repo: str) -> None:
    """Deploy MirageOS unikernels with `git pull`.

    Run `mirage-hooks install` in a clone of a deployment repository. From then on every pull that
    changes what should run makes this host run it, and goes back if it does not come up healthy.
    """
    context.obj = repo


def _run() -> int:
    """Run the command line. Not by click's own main: where a reader has gone, that ends with 1."""
    if "_MIRAGE_HOOKS_COMPLETE" in os.environ:
        cli.main(prog_name="mirage-hooks")
    if shutil.which("git") is None:  # GitPython would say so as an ImportError
        raise not_found("git")
    try:
        with cli.make_context("mirage-hooks", sys.argv[1:]) as context:
            return cli.invoke(context) or 0
    except click.exceptions.Exit as asked:  # --help, --version
        return asked.exit_code


def main() -> None:
    """Run the command line, and end with its exit code."""
    try:
        code = _run()
        sys.stdout.flush()
        sys.stderr.flush()
        # Nothing is left to be done, and Python would take 25 ms to take everything down.
        os._exit(code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(_INTERRUPTED_EXIT_CODE)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Error as error:
        _complain(str(error))
        sys.exit(error.exit_code)
    except OSError as error:
        # What is still buffered goes nowhere: it would only fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            sys.exit(0)  # whoever read our output, such as head(1), has enough of it
        _complain(str(error))
        sys.exit(HostError.exit_code)
    except Exception:
        with tempfile.NamedTemporaryFile(
            "w", prefix="mirage-hooks-bug-", suffix=".log", delete=False
        ) as log:
            log.write(f"{sys.argv}\n{traceback.format_exc()}")
        _complain(f"this is a bug of mirage-hooks; the log to report: {log.name}")
        sys.exit(_BUG_EXIT_CODE)


def _complain(text: str) -> None:
    print(severity.ranked(f"mirage-hooks: {text}", severity.ERROR, 2), file=sys.stderr)
