"""A test that is skipped defends nothing: in CI the absence of a broker is a failure."""

import pytest

from tests.brokers import absent


def test_without_a_broker_a_person_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no mvn here"):
        absent("no mvn here")


def test_without_a_broker_ci_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no mvn here"):
        absent("no mvn here")
