"""The attacks by name: their curves, what they measure, what they need."""

from collections.abc import Callable
from typing import NamedTuple

from jaxunlearn.evaluation.attacks import runs
from jaxunlearn.evaluation.attacks.inputs import Inputs, Settings
from jaxunlearn.evaluation.attacks.recovered import Recovered
from jaxunlearn.evaluation.loading import NamedModel


class Entry(NamedTuple):
    """One curve of an attack, as the file tells it."""

    name: str
    x: str
    metric: str
    note: str
    starts_unattacked: bool = True


class Attack(NamedTuple):
    """An attack: its curves, what it lacks (None: nothing), and its run on a model."""

    entries: tuple[Entry, ...]
    lacks: Callable[[runs.Records], str | None]
    run: Callable[[Inputs, Settings, NamedModel], list[Recovered]]


STRENGTH, LAYER = "extraction_strength", "layer (0: embeddings)"
HALF = "Half of the forget set is fine-tuned on (AdamW, constant rate)"
ATTACKS: dict[str, Attack] = {
    "relearn_forget": Attack(
        (
            Entry(
                "relearning from forget data, held-out half",
                "steps",
                STRENGTH,
                f"{HALF}; the other half is measured, which nothing taught anew.",
            ),
            Entry(
                "relearning from forget data, relearned half",
                "steps",
                STRENGTH,
                f"{HALF} and measured: it comes back to any model; sooner is more.",
            ),
        ),
        runs.nothing,
        runs.relearn("forget"),
    ),
    "relearn_related": Attack(
        (
            Entry(
                "relearning from related text",
                "steps",
                STRENGTH,
                "Fine-tuned on text about the same things, without the forgotten.",
            ),
        ),
        runs.file_of("related"),
        runs.relearn("related"),
    ),
    "relearn_unrelated": Attack(
        (
            Entry(
                "relearning from unrelated text",
                "steps",
                STRENGTH,
                "Fine-tuned on text that has nothing to do with the forgotten.",
            ),
        ),
        runs.file_of("unrelated"),
        runs.relearn("unrelated"),
    ),
    "quantization": Attack(
        (
            Entry(
                "quantisation",
                "weights",
                STRENGTH,
                "Kernels rounded to int8 an output channel, or NF4 in blocks of 64.",
            ),
        ),
        runs.nothing,
        runs.quantize,
    ),
    "context": Attack(
        (
            Entry(
                "in-context reintroduction",
                "records told",
                "probability",
                "Without context, plus the gain by relevant over irrelevant context "
                "of as many tokens.",
            ),
        ),
        runs.context_of,
        runs.context,
    ),
    "prefixes": Attack(
        (
            Entry(
                "prompt prefixes",
                "prefixes tried",
                STRENGTH,
                "The best of the plain prompt and those with words in front.",
            ),
        ),
        runs.nothing,
        runs.prefixes,
    ),
    "paraphrases": Attack(
        (
            Entry(
                "paraphrased questions",
                "paraphrases tried",
                STRENGTH,
                "The better of the question and its paraphrase.",
            ),
        ),
        runs.paraphrases_of,
        runs.paraphrases,
    ),
    "sampling": Attack(
        (
            Entry(
                "sampling",
                "answers drawn",
                "rouge_l_recall",
                "Greedy (0), then the expected best of k answers drawn. A confident "
                "refusal is drawn again and again; see first tokens.",
            ),
            Entry(
                "sampling by first tokens",
                "further first tokens",
                "rouge_l_recall",
                "Greedy (0), then the best answer that begins with one of the "
                "likeliest first tokens and goes on greedily.",
            ),
        ),
        runs.answers_of,
        runs.sample,
    ),
    "embedding": Attack(
        (
            Entry(
                "offset of prompt embeddings",
                "steps",
                "probability",
                "One vector added to all prompt tokens, found on half of the forget "
                "set and measured on the other.",
            ),
        ),
        runs.prompts_of,
        runs.embedding,
    ),
    "logit_lens": Attack(
        (
            Entry(
                "logit lens, rank",
                LAYER,
                "reciprocal_rank",
                "Each layer decoded by the model's own head: 1 / rank of true tokens.",
                starts_unattacked=False,
            ),
            Entry(
                "logit lens, probability",
                LAYER,
                "probability",
                "Each layer decoded by the model's own head.",
                starts_unattacked=False,
            ),
        ),
        runs.nothing,
        runs.lens,
    ),
    "membership_probe": Attack(
        (
            Entry(
                "membership probe",
                LAYER,
                "auc",
                "A linear probe of how states point to the true tokens, fitted on half "
                "of the forget set and the holdout and judged on the other half.",
                starts_unattacked=False,
            ),
        ),
        runs.file_of("holdout"),
        runs.probe,
    ),
}
