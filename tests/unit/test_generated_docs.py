"""The pages of docs/ that are made from the code are what `make docs` would write now."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import pytest
from pydantic_settings import BaseSettings

import services
from tests.docs import configuration, errors
from tests.docs.__main__ import PAGES, ROOT
from tests.docs.error_meanings import MEANINGS, PROBLEMS


@pytest.mark.parametrize("name", PAGES)
def test_generated_page_is_up_to_date(name: str) -> None:
    """Where it fails, `make docs` writes the page again."""
    assert (ROOT / name).read_text() == PAGES[name]()


def test_every_code_has_a_meaning() -> None:
    """No code is without a sentence, and no sentence without a code."""
    found = [one for one in errors.find() if not one.when]
    explained = {(one.status, one.code) for one in found if one.meaning}

    assert {(one.status, one.code) for one in found} == explained
    assert MEANINGS.keys() <= explained


def test_every_code_in_problems_has_a_meaning() -> None:
    refused = {code for status, code in MEANINGS if status == 422}

    assert errors.problem_codes() - refused == PROBLEMS.keys()


def test_every_computed_code_is_in_the_source() -> None:
    """`computed` says nothing about arguments that are gone."""
    assert errors.computed_places() == errors.computed().keys()


def test_every_setting_has_a_section_and_a_meaning() -> None:
    for module in pkgutil.walk_packages(services.__path__, "services."):
        importlib.import_module(module.name)
    known = {section.settings for section in configuration.SECTIONS}

    assert set(_of_the_product(BaseSettings)) == known
    undescribed = {
        name
        for settings in known
        for name, field in settings.model_fields.items()
        if not field.description
    }
    assert not undescribed


def _of_the_product(settings: type[BaseSettings]) -> Iterator[type[BaseSettings]]:
    for child in settings.__subclasses__():
        if child.__module__.startswith(("local.", "services.", "shared.")):
            yield child
        yield from _of_the_product(child)
