"""Configurations of domains: what is written is what xl would read; templates break nothing."""

from hypothesis import given
from hypothesis import strategies as st

from mirage_hooks.boot import template, xlsyntax
from mirage_hooks.boot.errors import ConfigError
from mirage_hooks.boot.template import Bound

KEYS = st.from_regex(r"[a-z_][a-z0-9_]{0,12}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=30)
NUMBERS = st.integers(0, 10**9)
# Pieces of which a template may be made, right or wrong.
PIECES = st.sampled_from(
    (
        *("name", "memory", "vif", "disk", "on_crash", "=", "[", "]", ",", ";", "\n", "'@NAME@'"),
        *("@DISK@", "@MEMORY@", "'bridge=xenbr0'", "'@BLOCK:a@,raw,xvda,w'", '"\\x41', "256", "#"),
    )
)


@given(st.dictionaries(KEYS, NUMBERS | TEXTS | st.lists(TEXTS, max_size=4).map(tuple)))
def test_what_is_written_is_read_again(settings: dict[str, int | str | tuple[str, ...]]) -> None:
    read = {one.key: one.value for one in xlsyntax.parse(xlsyntax.write(settings))}
    assert read == {
        key: str(value) if isinstance(value, int) else value for key, value in settings.items()
    }


@given(st.lists(PIECES | TEXTS, max_size=20).map("".join))
def test_any_template_is_read_or_refused_with_its_line(text: str) -> None:
    try:
        table = template.read(text, "xl.conf.in", "www", Bound())
    except ConfigError as error:
        assert error.message.startswith("xl.conf.in: line ")
    else:
        assert table.keys() <= {"memory", "args", "network", "block", "domain"}


@given(st.sampled_from(["NAME", "KERNEL", "MEMORY", "DISK", "TLS", "X"]), KEYS)
def test_no_placeholder_is_ever_left(placeholder: str, key: str) -> None:
    text = f"name = '@NAME@'\n{key} = 'a @{placeholder}@ b'"
    try:
        table = template.read(text, "xl.conf.in", "www", Bound())
    except ConfigError:
        return
    assert f"@{placeholder}@" not in str(table)
