"""Request and response classes of the rag_engine."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from services.rag_engine.field_samples import Scalar
from shared.http.strict_json import By

MOST_ELEMENTS = 2000
"""Most elements on each side of a question."""

_STREAM: dict[str, Any] = {"namespace": None, "name": "orders"}
_TOTAL: dict[str, Any] = {"path": ["total"], "schema": {"type": ["null", "number"]}}
_AMOUNT: dict[str, Any] = {
    "path": ["amount"],
    "schema": {"type": ["null", "number"], "x-renamed-from": "total"},
}

Text = Annotated[str, Field(max_length=512)]
Part = Annotated[str, Field(min_length=1, max_length=512)]
Path = Annotated[list[Part], Field(min_length=1, max_length=64)]
SourceType = Annotated[
    str, Field(min_length=1, max_length=100, pattern=r"^[^\x00]*$", examples=["Salesforce"])
]
EntityName = Literal["field", "stream"]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class StreamName(_Body):
    """A stream, as Airbyte names it."""

    namespace: Text | None = None
    name: Part


class ElementShape(_Body):
    """A field by its path, or a stream by its name, with its JSON schema."""

    path: Path
    schema_: dict[str, Any] = Field(alias="schema", default_factory=dict)
    position: int | None = Field(
        default=None,
        strict=True,
        ge=0,
        le=100_000,
        description="Its position in the schema, if positions have a meaning.",
    )


_Samples = Annotated[
    dict[str, Annotated[list[Scalar], Field(max_length=1000)]], Field(max_length=200)
]


class Samples(_Body):
    """Values by dotted path, which are compared but never stored or logged; may be hashes."""

    removed: _Samples = Field(default_factory=dict)
    added: _Samples = Field(default_factory=dict)


class ConnectorChange(_Body):
    """A change of the connector's version that came with the removals and additions."""

    versions: Part = Field(description="Both versions, such as `2.10.3 → 3.0.0`.")
    guides: Annotated[
        list[Annotated[str, Field(max_length=2048, pattern=r"^https?://\S+$")]],
        Field(max_length=50),
    ] = Field(
        default_factory=list,
        description="URLs of the migration guides of the breaking changes in between; not fetched.",
    )


class Context(_Body):
    """Further context of a question."""

    unchanged: list[Text] = Field(
        default_factory=list,
        max_length=20_000,
        description=(
            "Names that exist before and after: words that many of them share are weak evidence."
        ),
    )
    connector: ConnectorChange | None = None


class Suggest(BaseModel):
    """A question: the removed and the added fields or streams."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "source_type": "Salesforce",
                    "stream": _STREAM,
                    "removed": [_TOTAL],
                    "added": [_AMOUNT],
                    "context": {"unchanged": ["id", "placed_at"]},
                }
            ]
        },
    )

    source_type: SourceType
    entity: EntityName = "field"
    stream: StreamName | None = Field(
        default=None, description="The stream of the fields; null for streams."
    )
    connection_id: UUID | None = Field(
        default=None,
        description=(
            "The connection that the question is about: its own past decisions have priority."
        ),
    )
    removed: list[ElementShape] = Field(max_length=MOST_ELEMENTS)
    added: list[ElementShape] = Field(max_length=MOST_ELEMENTS)
    samples: Samples | None = None
    context: Context | None = None

    @model_validator(mode="after")
    def _paths_are_unique(self) -> Self:
        paths = [tuple(element.path) for element in (*self.removed, *self.added)]
        if len(set(paths)) < len(paths):
            raise PydanticCustomError("aam_path_twice", "A path occurs twice, or on both sides")
        return self

    @model_validator(mode="after")
    def _fields_have_a_stream(self) -> Self:
        _check_stream(self.entity, self.stream)
        return self


def _check_stream(entity: EntityName, stream: StreamName | None) -> None:
    if entity == "field" and stream is None:
        raise PydanticCustomError("aam_no_stream", "Fields need their stream")


class EvidenceView(BaseModel):
    """One piece of evidence; `score` ranges from -1 (against) to 1 (for)."""

    kind: str
    score: float
    detail: str


class AlternativeView(BaseModel):
    """Another candidate for the same removed element."""

    became: list[str]
    confidence: float


class SuggestionView(BaseModel):
    """A suggested rename; `confidence` is the share of such suggestions that prove true.

    `more_than_names`: a declared hint, an identical decision of a person or matching values support
    this pair and no rival. Without it, a rename should not be applied without a person.
    `types_clash`: no value of the one type can be a value of the other. `rival` is the highest
    confidence of another pair with either of the two, 0 if there is none.
    """

    removed: list[str]
    became: list[str]
    confidence: float
    more_than_names: bool
    types_clash: bool
    rival: float
    evidence: list[EvidenceView]
    alternatives: list[AlternativeView]
    explanation: str | None = None


class Suggested(BaseModel):
    """The suggestions, highest confidence first, and the removed elements without one.

    Each added element is suggested at most once.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "suggestions": [
                        {
                            "removed": ["total"],
                            "became": ["amount"],
                            "confidence": 0.98,
                            "more_than_names": True,
                            "types_clash": False,
                            "rival": 0.0,
                            "evidence": [
                                {
                                    "kind": "hint",
                                    "score": 1.0,
                                    "detail": "The schema declares this rename.",
                                }
                            ],
                            "alternatives": [],
                        }
                    ],
                    "unmatched": [],
                }
            ]
        }
    )

    suggestions: list[SuggestionView]
    unmatched: list[list[str]]


class Schemas(_Body):
    """The JSON schemas of both sides at the time of the decision."""

    removed: dict[str, Any] | None = None
    added: dict[str, Any] | None = None


_DECISION_ID = "0d9f6f0e-1f3e-4a53-9f0b-6a1f2c3d4e5f"
_CONNECTION_ID = "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f"


class Learn(BaseModel):
    """A person's decision about what a removed field or stream became."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "decision_id": _DECISION_ID,
                    "source_type": "Salesforce",
                    "stream": _STREAM,
                    "removed": ["total"],
                    "became": ["amount"],
                    "verdict": "accepted",
                    "decided_by": "ada@example.com",
                    "reason": "Finance renamed it.",
                }
            ]
        },
    )

    decision_id: UUID = Field(
        description="The decision's id; a repeated request with it has no further effect."
    )
    source_type: SourceType
    entity: EntityName = "field"
    stream: StreamName | None = None
    removed: Path
    became: Path | None = Field(default=None, description="Null if it has no replacement.")
    schemas: Schemas | None = None
    verdict: Literal["accepted", "rejected"]
    decided_by: By | None = Field(
        default=None,
        description="Who decided. Default: the caller, who is always recorded.",
    )
    requested_by: Part | None = Field(
        default=None,
        description="The caller who requested it; only AAM's own services may set it.",
    )
    decided_at: datetime | None = Field(
        default=None,
        description="When it was decided; only AAM's own services may set it. Default: now.",
    )
    reason: Annotated[str, Field(max_length=2000)] | None = None
    connection_id: UUID | None = Field(
        default=None,
        description="The connection that it is about. Default: all of the source type.",
    )

    @model_validator(mode="after")
    def _fields_have_a_stream(self) -> Self:
        _check_stream(self.entity, self.stream)
        return self


class Learned(BaseModel):
    """Whether the decision was new."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"learned": True}]})

    learned: bool


KNOWLEDGE: dict[str, Any] = {
    "decision_id": _DECISION_ID,
    "source_type": "Salesforce",
    "entity": "field",
    "stream": _STREAM,
    "removed": ["total"],
    "became": ["amount"],
    "verdict": "accepted",
    "decided_by": "ada@example.com",
    "requested_by": "ada@example.com (key ab12cd34)",
    "reason": "Finance renamed it.",
    "connection_id": _CONNECTION_ID,
    "connection_name": "Salesforce production",
    "created_at": "2026-11-22T09:31:00.123456Z",
}


class KnowledgeView(BaseModel):
    """A person's stored decision."""

    model_config = ConfigDict(json_schema_extra={"examples": [KNOWLEDGE]})

    decision_id: UUID
    source_type: str
    entity: EntityName
    stream: StreamName
    removed: list[str]
    became: list[str] | None
    verdict: Literal["accepted", "rejected"]
    decided_by: str
    requested_by: str | None
    """The caller who requested it."""
    reason: str | None
    connection_id: UUID | None
    connection_name: str | None = None
    created_at: datetime
