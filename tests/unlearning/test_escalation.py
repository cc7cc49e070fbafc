"""The way that was kept is bit for bit the one that the audit says."""

import pytest

from jaxunlearn.unlearning import Limits, Verdict, escalate, exact_replay, unlearn

ASCENT = {
    "target": 4.0,
    "limits": Limits(max_retain_nats=None, max_relative_step=None),
    "learning_rate": 0.05,
    "max_steps": 40,
}


class Auditor:
    """An audit of fixed verdict, which keeps what it was given."""

    def __init__(self, verdict):
        self.verdict, self.seen = verdict, []

    def __call__(self, params):
        self.seen.append(params)
        return self.verdict


@pytest.fixture(scope="module")
def ways(language):
    """What the method and the replay give by themselves."""
    task, params, sets, run, indices = language
    ascent = unlearn(task, params, sets, "gradient_ascent", **ASCENT)
    assert ascent.reached
    return ascent, exact_replay(run, indices)


def escalated(language, audit, **given):
    task, params, sets, run, indices = language
    known = {"run": run, "indices": indices} | ASCENT | given
    return escalate(task, params, sets, "gradient_ascent", audit=audit, **known)


@pytest.mark.parametrize("verdict", [True, Verdict(True, ("relearning: 0.01",))])
def test_a_passed_audit_keeps_the_method_s(language, ways, same_bits, verdict):
    audit = Auditor(verdict)
    found = escalated(language, audit)
    assert found.kept == "approximate"
    assert found.outcome is found.approximate
    assert same_bits(found.outcome.params, ways[0].params)
    assert len(audit.seen) == 1
    assert same_bits(audit.seen[0], ways[0].params)
    assert "passed the audit" in found.reason
    assert ("relearning: 0.01" in found.reason) == isinstance(verdict, Verdict)


@pytest.mark.parametrize("verdict", [False, Verdict(False, ("prefixes", "sampling"))])
def test_a_failed_audit_gives_the_replay(language, ways, same_bits, verdict, tmp_path):
    audit = Auditor(verdict)
    found = escalated(language, audit, replay_directory=tmp_path / "replay")
    assert found.kept == "exact"
    assert same_bits(found.outcome.params, ways[1].params)
    assert not same_bits(found.outcome.params, ways[0].params)
    assert same_bits(found.approximate.params, ways[0].params)
    assert len(audit.seen) == 1  # the replay needs none
    proof = found.outcome.details["params_sha256"]
    assert proof == ways[1].proof.params_sha256
    assert (tmp_path / "replay" / "replay_proof.json").exists()
    assert found.verdict == Verdict(False, getattr(verdict, "reasons", ()))
    assert "failed the audit" in found.reason
    assert ("prefixes; sampling" in found.reason) == isinstance(verdict, Verdict)


def test_what_fell_short_is_not_audited(language, ways, same_bits):
    audit = Auditor(True)
    found = escalated(language, audit, max_steps=1, learning_rate=1e-6)
    assert (found.kept, found.verdict, audit.seen) == ("exact", None, [])
    assert found.reason == f"the method ended short, with status {found.approximate[1]}"
    assert same_bits(found.outcome.params, ways[1].params)


def test_misuse_is_told_before_any_work(language, monkeypatch):
    from jaxunlearn.unlearning import escalation

    task, params, sets, run, indices = language
    audit = Auditor(True)
    with monkeypatch.context() as patch:
        patch.setattr(escalation, "unlearn", lambda *_, **__: pytest.fail("worked"))
        with pytest.raises(ValueError, match="forget=.*: name at least one example"):
            escalated(language, audit, indices=[])
        with pytest.raises(ValueError, match="method='exact_replay' is exact itself"):
            escalate(
                *(task, params, sets, "exact_replay"),
                **{"audit": audit, "run": run, "indices": indices},
            )
    with pytest.raises(ValueError, match="audit gave None: return a Verdict"):
        escalated(language, Auditor(None))
