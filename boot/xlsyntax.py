"""The text of a domain's configuration, as xl reads it: taken apart, and written.

The syntax is that of xl.cfg(5), and of Xen's tools/libs/util/libxlu_cfg_{l.l,y.y}: statements of a
key, `=`, and a string, a number or a list of strings, which end with their line or with `;`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mirage_hooks.boot.errors import ConfigError

# What a template leaves open: `@NAME@`, `@BLOCK:disk.img@`.
PLACEHOLDER = re.compile(r"@([A-Z]+)(?::([^@\s'\"]+))?@")

_TOKEN = re.compile(
    rf"""(?P<space>[ \t\r]+|\#[^\n]*)
    |(?P<newline>\n)
    |(?P<string>'(?:[^'\\\n]|\\[^\n])*'|"(?:[^"\\\n]|\\[^\n])*")
    |(?P<open>{PLACEHOLDER.pattern})
    |(?P<number>0x[0-9a-fA-F]+|[0-9]+)
    |(?P<key>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<mark>[=\[\],;])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{1,2}|[0-7]{1,3}|.)")
_NAMED = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}

Value = str | tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """A statement: its line, counted from 1, its key, and its value; a number as it is written.

    A statement that is nothing but a placeholder, such as `@DISK@`, has the value "".
    """

    line: int
    key: str
    value: Value = ""


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    line: int


class Unfit(ConfigError):  # noqa: N818 - a ConfigError, whose name says enough
    """A configuration does not serve, at a line of it."""

    def __init__(self, line: int, what: str, hint: str = "") -> None:
        super().__init__(f"line {line}: {what}", hint)


def parse(text: str) -> list[Setting]:
    """Return the statements of a configuration, or of a template of one. Raises Unfit."""
    tokens = _Tokens(list(_tokens(text)))
    settings = []
    while (token := tokens.take()).kind != "end":
        if token.text in {"\n", ";"}:
            continue
        if token.kind == "open":
            settings.append(Setting(token.line, token.text))
        elif token.kind == "key":
            settings.append(_assignment(token, tokens))
        else:
            raise Unfit(token.line, f"{token.text!r} is no key")
        if (after := tokens.take()).text not in {"\n", ";", ""}:
            raise Unfit(after.line, f"{after.text!r} is one too many")
    return settings


def write(settings: Mapping[str, int | str | Sequence[str]]) -> str:
    """Return the configuration that has these settings."""
    return "".join(f"{key} = {_written(value)}\n" for key, value in settings.items())


class _Tokens:
    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = iter(tokens)
        self._last = tokens[-1].line if tokens else 1

    def take(self) -> _Token:
        return next(self._tokens, _Token("end", "", self._last))

    def take_in_list(self) -> _Token:
        """Return the next one that is no end of a line: a list may have any number of those."""
        while (token := self.take()).kind == "newline":
            pass
        return token


def _tokens(text: str) -> Iterator[_Token]:
    at, line = 0, 1
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise Unfit(line, f"{text[at:].splitlines()[0][:40]!r} is not understood")
        kind = next(name for name in _KINDS if match[name] is not None)
        if kind != "space":
            yield _Token(kind, match[kind], line)
        line += kind == "newline"
        at = match.end()


_KINDS = ("space", "newline", "string", "open", "number", "key", "mark")


def _assignment(key: _Token, tokens: _Tokens) -> Setting:
    sign = tokens.take()
    if sign.text != "=":
        raise Unfit(key.line, f"{key.text} is followed by no '='")
    token = tokens.take()
    if token.text == "[":
        return Setting(key.line, key.text, tuple(_elements(tokens)))
    return Setting(key.line, key.text, _atom(token))


def _elements(tokens: _Tokens) -> Iterator[str]:
    token = tokens.take_in_list()
    while token.text != "]":
        yield _atom(token)
        token = tokens.take_in_list()
        if token.text == ",":
            token = tokens.take_in_list()
        elif token.text != "]":
            raise Unfit(token.line, "a list is not closed by ']'")


def _atom(token: _Token) -> str:
    if token.kind == "string":
        return _ESCAPE.sub(_unescaped, token.text[1:-1])
    if token.kind in {"number", "open"}:
        return token.text
    raise Unfit(token.line, f"{token.text.strip() or 'the end'!r} is no value: quote it")


def _unescaped(match: re.Match[str]) -> str:
    text = match[1]
    if text[0] == "x" and len(text) > 1:
        return chr(int(text[1:], 16))
    if text[0] in "01234567":
        return chr(int(text, 8) & 0xFF)
    return _NAMED.get(text, text)


def _written(value: int | str | Sequence[str]) -> str:
    match value:
        case int():
            return str(value)
        case str():
            return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'
    return f"[ {', '.join(map(_written, value))} ]"
