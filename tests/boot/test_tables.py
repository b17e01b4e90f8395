"""TOML becomes values, or one message that names file, table and key."""

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mirage_hooks.boot import tables
from mirage_hooks.boot.errors import ConfigError


class Inner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table in a table."""

    limit: int = 1

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ValueError("limit is too small")


class Outer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table."""

    name: str
    inner: Inner = Inner()
    args: tuple[str, ...] = ()


def test_toml_becomes_tables() -> None:
    assert tables.parse('[a]\nb = "c"\n', "file.toml") == {"a": {"b": "c"}}


@pytest.mark.parametrize("text", ["a", "a = ", "[a", "a = 1\na = 2", '"', "\ufeffa = 1", "a = \0"])
def test_what_is_no_toml_is_refused_by_the_files_name(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^file\.toml is no valid TOML: "):
        tables.parse(text, "file.toml")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a = " + "9" * 5000, id="a number of 5000 digits"),
        pytest.param("a = " + "[" * 5000, id="5000 arrays in each other"),
        pytest.param("a = " + "{a = " * 5000, id="5000 tables in each other"),
    ],
)
def test_toml_beyond_what_the_parser_can_take_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^file\.toml is no valid TOML: "):
        tables.parse(text, "file.toml")


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab01.=[]{}\"'#\n\\,-:TZ+_ ") | st.text())
@example("a = 2021-02-30")
@example('a = "\\ud800"')
def test_any_text_is_tables_or_refused(text: str) -> None:
    try:
        parsed = tables.parse(text, "file.toml")
    except ConfigError:
        return
    assert isinstance(parsed, dict)


def test_a_table_becomes_a_value() -> None:
    table = {"name": "x", "inner": {"limit": 2}, "args": ["a"]}
    assert tables.convert(table, Outer, "file.toml", "guest www") == Outer("x", Inner(2), ("a",))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": "x", "nam": 1}, "file.toml: guest www: unknown key 'nam'"),
        ({"name": 1}, "file.toml: guest www name: Expected 'str', got 'int'"),
        ({}, "file.toml: guest www: Object missing required field 'name'"),
        ({"name": "x", "inner": {"a": 1}}, "file.toml: guest www inner: unknown key 'a'"),
        (
            {"name": "x", "inner": {"limit": "1"}},
            "file.toml: guest www inner limit: Expected 'int', got 'str'",
        ),
        ({"name": "x", "inner": {"limit": -1}}, "file.toml: guest www inner: limit is too small"),
        ({"name": "x", "inner": 1}, "file.toml: guest www inner: Expected 'object', got 'int'"),
        ({"name": "x", "args": [1]}, "file.toml: guest www args[0]: Expected 'str', got 'int'"),
    ],
)
def test_a_mistake_is_told_by_file_table_and_key(table: object, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        tables.convert(table, Outer, "file.toml", "guest www")
    assert error.value.message == message


def test_a_mistake_at_the_top_of_a_file_names_no_table() -> None:
    with pytest.raises(ConfigError) as error:
        tables.convert({"name": "x", "nam": 1}, Outer, "file.toml", "")
    assert error.value.message == "file.toml: unknown key 'nam'"


def test_a_table_of_tables_is_taken_out() -> None:
    table: dict[str, object] = {"guest": {"www": {"a": 1}}, "rest": 1}
    assert tables.take_table(table, "guest", "file.toml") == {"www": {"a": 1}}
    assert table == {"rest": 1}


def test_a_table_of_tables_that_is_not_there_is_empty() -> None:
    assert tables.take_table({}, "guest", "file.toml") == {}


@pytest.mark.parametrize("value", [1, "x", [], [{"www": {}}], None])
def test_another_value_in_the_place_of_a_table_of_tables_is_refused(value: object) -> None:
    with pytest.raises(ConfigError) as error:
        tables.take_table({"network": value}, "network", "file.toml", "guest www")
    assert error.value.message == "file.toml: guest www: network has to be a table"


@pytest.mark.parametrize("value", [1, "x", [], None])
def test_another_value_in_the_place_of_a_table_is_refused(value: object) -> None:
    with pytest.raises(ConfigError) as error:
        tables.take_table({"guest": {"www": value}}, "guest", "file.toml")
    assert error.value.message == "file.toml: guest www: it has to be a table"
