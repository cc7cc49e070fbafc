from jaxunlearn.evaluation.suite.scores import score_names
from jaxunlearn.evaluation.suite.wanted import needs_of


def test_the_needs_of_every_score_are_known():
    for name in score_names():
        assert needs_of(name)
    assert needs_of("mia_reference_auc") == ("holdout", "reference")
    assert needs_of("world_facts_truth_ratio_arithmetic") == (
        "world_facts",
        "world_facts.perturbed_answer",
    )
