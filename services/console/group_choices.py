"""One form that decides about the same change on several connections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.console.diffs import Json, dotted
from services.console.forms import Form
from services.console.repair_choices import LATER, OTHER, REJECT, Item, item_of

_ASK: Final = "Choose what happened to it."
_ASK_NAME: Final = "Enter the name, or choose another answer."
_ASK_COLUMN: Final = "Choose whether the column keeps its old name or a new column starts."
_WHY: Final = "Give a reason: something is lost or read again."


@dataclass(slots=True)
class Group:
    """A group of repairs with the same change, and the answers of the form to that change."""

    shown: Json
    """The group as the API returns it; its change is that of its first repair."""
    item: Item
    reason: str = ""
    why_error: str = ""
    is_sent: bool = False

    @classmethod
    def of(cls, group: Json, number: int) -> Group:
        """The group before a form is submitted; `number` is its place on the page."""
        suggested = [list(one["suggested"]) for one in group["members"] if one.get("suggested")]
        # Each answer is about all connections, so "leave it open" is not offered.
        item = item_of({**group["change"], "id": f"g{number}"}, group.get("pair"), {})
        item.options = tuple(one for one in item.options if one.value not in (LATER, REJECT))
        item.candidates = {dotted(path): path for path in suggested}
        item.number = number
        item.asks_column = True
        if len(item.options) == 1:
            item.default = item.value = item.options[0].value
        return cls(group, item)

    @property
    def id(self) -> str:
        """Its id in the API."""
        return str(self.shown["id"])

    def fill(self, form: Form) -> None:
        """Take the answers of a submitted form."""
        self.item.fill(form)
        self.reason = form.line("why")
        self.is_sent = True

    def check(self) -> bool:
        """Set the errors of an approval; return whether there are no errors."""
        item = self.item
        if item.is_open:
            item.error = _ASK
        elif item.value == OTHER and not item.other:
            item.error = _ASK_NAME
        elif item.lacks_column:
            item.column_error = _ASK_COLUMN
        if item.loses_or_resets and not self.reason:
            self.why_error = _WHY
        return not (item.error or item.column_error or self.why_error)
