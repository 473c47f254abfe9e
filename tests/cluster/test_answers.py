"""The table from answers to errors."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from certbaton.cluster.answers import Answer, Asked, error_for
from certbaton.cluster.contract import AlreadyExists, Expired, Kind
from certbaton.errors import (
    CertbatonError,
    ClusterUnavailable,
    Conflict,
    ObjectGone,
    PermanentError,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SERVICE = Asked("apply", Kind.SERVICE, "shop", "shop")
SECRET = Asked("merge", Kind.SECRET, "certbaton", "one")

FORCED = ({"reason": "FieldManagerConflict", "field": ".metadata.annotations.x"},)

CASES: dict[str, tuple[Asked, Answer, type[CertbatonError]]] = {
    "a lost race": (SERVICE, Answer(409, "Conflict"), Conflict),
    "a name that is taken": (SERVICE, Answer(409, "AlreadyExists"), AlreadyExists),
    "a field manager's conflict is no lost race": (
        SERVICE,
        Answer(409, "Conflict", causes=FORCED),
        PermanentError,
    ),
    "an object of another uid is a lost race": (
        SERVICE,
        Answer(422, "Invalid", causes=({"field": "metadata.uid"},)),
        Conflict,
    ),
    "gone": (SERVICE, Answer(404, "NotFound"), ObjectGone),
    "a create into nowhere": (Asked("create", Kind.EVENT, "x", "y"), Answer(404), PermanentError),
    "refused credentials": (SERVICE, Answer(401, "Unauthorized"), ClusterUnavailable),
    "a missing right": (SERVICE, Answer(403, "Forbidden"), PermanentError),
    "too old": (Asked("watch", Kind.SECRET, "x"), Answer(410, "Expired"), Expired),
    "invalid": (SERVICE, Answer(422, "Invalid", "spec.ports: bad"), PermanentError),
    "bad request": (SERVICE, Answer(400, "BadRequest", "no"), PermanentError),
    "slow down": (SERVICE, Answer(429, "TooManyRequests"), ClusterUnavailable),
    "broken": (SERVICE, Answer(500, "InternalError"), ClusterUnavailable),
    "not ready": (SERVICE, Answer(503), ClusterUnavailable),
}


@pytest.mark.parametrize(("asked", "answer", "expected"), CASES.values(), ids=CASES.keys())
def test_each_answer_is_one_error(
    asked: Asked, answer: Answer, expected: type[CertbatonError]
) -> None:
    """Exactly this class, and one line for a person."""
    error = error_for(asked, answer, NOW)
    assert type(error) is expected
    assert "\n" not in str(error)
    assert str(asked.kind) in str(error) or asked.kind.plural in str(error)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("7", NOW + timedelta(seconds=7)),
        ("Thu, 01 Jan 2026 00:01:00 GMT", NOW + timedelta(minutes=1)),
        ("soon", None),
        (None, None),
        ("999999999", NOW + timedelta(hours=1)),
    ],
)
def test_retry_after_is_obeyed(header: str | None, expected: datetime | None) -> None:
    """In seconds (an hour at most) or as a date; nonsense is none."""
    error = error_for(SERVICE, Answer(429, retry_after=header), NOW)
    assert isinstance(error, ClusterUnavailable)
    assert error.retry_at == expected


def test_the_servers_words_are_shown_for_a_service() -> None:
    """They tell what to change."""
    error = error_for(SERVICE, Answer(422, "Invalid", "spec.ports[1].name: Required value"), NOW)
    assert "spec.ports[1].name: Required value" in str(error)


@pytest.mark.parametrize("status", [400, 409, 422, 500])
def test_no_words_are_shown_that_could_quote_a_secret(status: int) -> None:
    """Only the names of fields, and the server's own sentences about rights and quotas."""
    causes = ({"reason": "FieldValueInvalid", "field": "data[tls.key]", "message": "S3CRET"},)
    error = error_for(SECRET, Answer(status, "Invalid", 'Invalid value: "S3CRET"', causes), NOW)
    assert "S3CRET" not in str(error)
    assert "data[tls.key]" in str(error)


def test_a_quota_is_told_for_a_secret_too() -> None:
    """Its sentence holds no content."""
    text = 'secrets "one" is forbidden: exceeded quota: q, requested: secrets=1'
    assert "exceeded quota" in str(error_for(SECRET, Answer(403, "Forbidden", text), NOW))


@pytest.mark.parametrize("body", [None, [], "text", {}, {"details": None}, {"details": {}}])
def test_a_body_that_is_no_status_is_passed_over(body: object) -> None:
    """A proxy's page, an empty body."""
    assert Answer.of(503, body).status == 503


def test_a_status_is_read() -> None:
    """Reason, causes, and the delay that stands in the details."""
    body = json.loads(
        '{"reason": "Conflict", "message": "m", "details": {"retryAfterSeconds": 3,'
        ' "causes": [{"reason": "FieldManagerConflict"}, "odd"]}}'
    )
    answer = Answer.of(409, body)
    assert (answer.reason, answer.message, answer.retry_after) == ("Conflict", "m", "3")
    assert [dict(cause) for cause in answer.causes] == [{"reason": "FieldManagerConflict"}]
