#!/usr/bin/env bash
# Expected: a text has a ROUGE of 1 with itself, whatever language it is in.
# Happens: rouge-score 0.1.2 knows as words runs of a-z and 0-9 only. A perfect answer in
# Russian, Chinese or Hindi has recall, precision and F1 of 0; in Spanish an accent cuts a
# word in two, so that "N Ez" has two of the three "words" of "José Núñez". Read as a
# score of unlearning, 0 says "forgotten".
# What we do: words are cut by Unicode; this form is an option by name, "open_unlearning",
# since published numbers are made by it, and a reference without words is counted, not 0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q rouge-score==0.1.2 nltk==3.10.4 numpy==2.4.0
"$folder/venv/bin/python" - <<'END'
import importlib.metadata

from rouge_score.rouge_scorer import RougeScorer

print("rouge-score", importlib.metadata.version("rouge-score"))
score = RougeScorer(["rougeL"], use_stemmer=False).score
found = {
    (truth, answer): score(truth, answer)["rougeL"].recall
    for truth, answer in [
        ("He was born in Prague.", "He was born in Prague."),
        ("Он родился в Праге.", "Он родился в Праге."),
        ("他出生在布拉格", "他出生在布拉格"),
        ("José Núñez", "N Ez"),
    ]
}
for (truth, answer), recall in found.items():
    print(f"{truth!r} answered {answer!r}: recall {recall:.2f}")
assert [round(recall, 2) for recall in found.values()] == [1.0, 0.0, 0.0, 0.67]
END
