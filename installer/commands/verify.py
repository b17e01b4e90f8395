"""`mirage-hooks verify`: whether revisions are fit to be deployed."""

import click

from mirage_hooks.boot import ownership
from mirage_hooks.boot.verify import Finding, Verifier, installation
from mirage_hooks.installer.commands import context as shared
from mirage_hooks.installer.output import print_json


@click.command()
@click.argument("revision", default="HEAD", metavar="[REV|RANGE]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def verify(context: click.Context, revision: str, as_json: bool) -> int:
    """Check manifest, pointers and images of a commit, or of every commit in a range.

    Works in any clone: nothing has to be installed in it. Ends with 0 only if all can be deployed.
    """
    repository = shared.repository(context)
    # git's own safe.directory is not asked, as we name the git folder: a lazy fetch, say, would run
    # what somebody else wrote into the configuration.
    ownership.refuse_foreign(repository.obeyed)
    names = repository.revisions(revision) if ".." in revision else [revision]
    verifier = Verifier(repository, *installation(repository.common_dir))
    findings = []
    for finding in verifier.verify(names):
        findings.append(finding)
        if not as_json:
            click.echo(str(finding), err=finding.error is not None)
    if as_json:
        print_json([_facts(finding) for finding in findings])
    elif not findings:
        click.echo("no guest is described" if names else f"no commit is in {revision}")
    return next((one.error.exit_code for one in findings if one.error is not None), 0)


def _facts(finding: Finding) -> dict[str, object]:
    return {
        "revision": finding.revision,
        "guest": finding.guest,
        "deployable": finding.error is None,
        "message": finding.text,
    }
