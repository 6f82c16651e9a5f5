"""What the pages link to and name exists: links, headings, files, and methods of classes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCED = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_ELSEWHERE = re.compile(r"[a-z]+:")
_FILE = re.compile(r"((?:[\w.*-]+/)+(?:[\w.*-]+\.(?:py|sql|md|ya?ml|json|toml|txt|sh))?)(?:::\w+)?")
_METHOD = re.compile(r"([A-Z]\w*[a-z]\w*)\.([a-z_]\w*)")
_OURS = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
_METHODS_OF = ("shared", "services")


def _id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _prose(page: Path) -> str:
    """The text of a page without its blocks of code."""
    return _FENCED.sub("", page.read_text())


@cache
def _anchors(page: Path) -> frozenset[str]:
    """What a link to a heading may say, as GitHub makes it from the heading."""
    found: dict[str, int] = {}
    anchors = set()
    for heading in re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE):
        anchor = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        times = found[anchor] = found.get(anchor, -1) + 1
        anchors.add(f"{anchor}-{times}" if times else anchor)
    return frozenset(anchors)


def broken_links(page: Path, text: str) -> Iterator[str]:
    """The relative links of a text that lead nowhere; `page` is where it stands."""
    for target in _LINK.findall(_CODE.sub("", text)):
        if _ELSEWHERE.match(target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        if not file.exists() or (anchor and anchor not in _anchors(file.resolve())):
            yield target


def missing_files(text: str) -> Iterator[str]:
    """Files and folders of this repository that a text names in backticks and that are not there.

    A folder ends with a slash; a path counts as ours where it begins with a folder of the root, or
    is a Python file.
    """
    for code in _CODE.findall(text):
        found = _FILE.fullmatch(" ".join(code.split()))
        if found is None:
            continue
        path = found[1]
        is_ours = path.partition("/")[0] in _OURS or path.endswith(".py")
        is_ours = is_ours and not path.startswith(".aam/")  # what a running mesh writes
        if is_ours and not any(ROOT.glob(path.rstrip("/"))):
            yield path


@cache
def _classes() -> dict[str, set[str]]:
    """The classes of the services and of what they share, with all that each defines."""
    found: dict[str, set[str]] = {}
    for folder in _METHODS_OF:
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ClassDef):
                    found.setdefault(node.name, set()).update(_defined(node))
    return found


def _defined(node: ast.ClassDef) -> Iterator[str]:
    for one in node.body:
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef):
            yield one.name
        elif isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            yield one.target.id


def missing_methods(text: str) -> Iterator[str]:
    """`Class.method` in backticks of which there is no such class, or no such method in it."""
    for code in _CODE.findall(text):
        found = _METHOD.fullmatch(code)
        if found is not None and found[2] not in _classes().get(found[1], set()):
            yield code


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_relative_links_have_a_target(page: Path) -> None:
    """A file, and a heading of it where the link names one."""
    assert list(broken_links(page, _prose(page))) == []


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_named_files_exist(page: Path) -> None:
    """Of this repository, in backticks, from its root."""
    assert list(missing_files(_prose(page))) == []


@pytest.mark.parametrize("page", [ROOT / "CONTRIBUTING.md", ROOT / "docs/architecture.md"], ids=_id)
def test_named_methods_exist(page: Path) -> None:
    assert list(missing_methods(_prose(page))) == []


def test_every_page_is_listed() -> None:
    """Each decision in the list of decisions, each other page in the index."""
    decisions = ROOT / "docs/decisions/README.md"
    for index in (ROOT / "docs/index.md", decisions):
        listed = {(index.parent / one).resolve() for one in _LINK.findall(_prose(index))}
        expected = {
            page
            for page in PAGES
            if page.is_relative_to(ROOT / "docs")
            and page != index
            and (page.parent == decisions.parent and page != decisions) is (index == decisions)
        }
        assert {_id(page) for page in expected - listed} == set()


def test_missing_targets_are_found() -> None:
    """A link, a heading, a file, a folder and a method; foreign links are ignored."""
    page = ROOT / "docs/index.md"
    links = "[a](none.md) [b](../README.md#none) [c](#none) [d](https://example.com) [e](index.md)"
    assert list(broken_links(page, links)) == ["none.md", "../README.md#none", "#none"]
    files = "`shared/none.py` `none/main.py::build` `tests/none/` `shared/*.py` `secret/aam/x`"
    assert list(missing_files(files)) == ["shared/none.py", "none/main.py", "tests/none/"]
    methods = "`Operation.none` `None.once` `Operation.once` `registry.none`"
    assert list(missing_methods(methods)) == ["Operation.none", "None.once"]
