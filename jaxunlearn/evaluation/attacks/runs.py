"""How each attack is run on a model, and what it lacks where it cannot be.

Attacks on the weights or the insides take a model without its wrapper: who has them
leaves it out.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxunlearn.data import (
    TokenizedData,
    in_order,
    prompt_and_completion,
    subset,
)
from jaxunlearn.evaluation.attacks.contexts import in_context, with_context
from jaxunlearn.evaluation.attacks.embedding_shift import soft_prompt
from jaxunlearn.evaluation.attacks.inputs import Inputs, Settings
from jaxunlearn.evaluation.attacks.measures import measure_of, probability
from jaxunlearn.evaluation.attacks.precision import quantization
from jaxunlearn.evaluation.attacks.probes import logit_lens, membership_probe
from jaxunlearn.evaluation.attacks.prompts import (
    PREFIXES,
    best_prompt,
    paraphrased,
    prefixed,
)
from jaxunlearn.evaluation.attacks.recovered import Recovered
from jaxunlearn.evaluation.attacks.relearned import halves, relearning
from jaxunlearn.evaluation.attacks.samples import branching, doublings, sampling
from jaxunlearn.evaluation.loading import NamedModel, without_wrapper
from jaxunlearn.evaluation.text.memorization import extraction_strength
from jaxunlearn.evaluation.text.rouge_scores import wordless
from jaxunlearn.randomness import random_key
from jaxunlearn.types import IGNORED_LABEL

CONTEXTS = (1, 2, 4)
Records = Mapping[str, Sequence[dict]]
"""The forgotten records, and what else was given, by name."""


def nothing(records: Records) -> None:
    """Return that an attack lacks nothing."""


def file_of(name: str) -> Callable[[Records], str | None]:
    """Return the check that a file was given."""
    return lambda records: None if name in records else f"needs {name}=FILE"


def prompts_of(records: Records) -> str | None:
    """Return what is lacking where records have no prompts."""
    if all(prompt_and_completion(r)[0] for r in records["forget"]):
        return None
    return "needs records with prompts (question and answer, prompt and gt, ...)"


def answers_of(records: Records) -> str | None:
    """Return what is lacking where no answer can be compared with the true one."""
    lacking = prompts_of(records)
    if lacking is not None:
        return lacking
    empty = int(
        wordless([prompt_and_completion(r)[1] for r in records["forget"]]).sum()
    )
    return f"needs true answers with words; {empty} have none" if empty else None


def context_of(records: Records) -> str | None:
    """Return what is lacking for relevant against irrelevant context."""
    if "unrelated" in records or "holdout" in records:
        return None
    return "needs unrelated=FILE (or holdout=FILE), for irrelevant context"


def paraphrases_of(records: Records) -> str | None:
    """Return what is lacking where no question has a paraphrase."""
    known = all("paraphrased_question" in r for r in records["forget"])
    if known or "paraphrases" in records:
        return None
    return (
        "needs paraphrases=FILE, or the field paraphrased_question in every record of "
        "what is to be forgotten"
    )


def strength(inputs: Inputs, one: NamedModel, data: TokenizedData, length: int):
    """Return the measure of extraction strength without the end of text."""

    def score(statistics):
        end = inputs.tokenizer.eos_token_id
        return extraction_strength(statistics, drop_last=True, end_of_text=end)

    return measured(inputs, one, data, length, score)


def measured(inputs: Inputs, one: NamedModel, data: TokenizedData, length: int, score):
    """Return a measure of a model's parameters."""
    return measure_of(one.model, in_order(data, length=length), score)


def relearn(source: str) -> Callable:
    """Return the relearning attack from the forget set or from a file."""

    def run(inputs: Inputs, settings: Settings, one: NamedModel) -> list[Recovered]:
        forget, one = inputs.forget, without_wrapper(one)
        if source == "forget":
            known, held_out = halves(len(forget.examples), seed=settings.seed)
            learned = subset(forget, known)
            parts = [subset(forget, held_out), learned]
        else:
            learned, parts = inputs.tokens(inputs.records[source]), [forget]
        length = max(forget.length, learned.length)
        return relearning(
            one.model,
            one.params,
            learned,
            [strength(inputs, one, part, length) for part in parts],
            steps=(0, *doublings(settings.steps)),
            learning_rate=settings.learning_rate,
            batch_size=settings.relearning_batch_size,
            length=length,
            seed=settings.seed,
        )

    return run


def quantize(inputs: Inputs, settings: Settings, one: NamedModel) -> list[Recovered]:
    """Measure under int8 and NF4."""
    measure = strength(inputs, one, inputs.forget, inputs.forget.length)
    return [quantization(one.params, measure, stacked=one.model.stacked)]


def context(inputs: Inputs, settings: Settings, one: NamedModel) -> list[Recovered]:
    """Measure with relevant and irrelevant text in front."""
    records, texts = inputs.records, inputs.records.get("context")
    available = len(records["forget"]) - 1 if texts is None else len(texts)
    counts = [count for count in CONTEXTS if count <= available]
    pairs = [
        with_context(
            inputs.forget,
            records["forget"],
            records.get("unrelated") or records["holdout"],
            inputs.tokenizer,
            count=count,
            max_length=inputs.max_length,
            texts=texts,
            seed=settings.seed,
        )
        for count in counts
    ]
    length = max(data.length for pair in pairs for data in pair)

    def probable(data: TokenizedData):
        return measured(inputs, one, data, length, probability)

    measures = [(probable(relevant), probable(other)) for relevant, other in pairs]
    return [in_context(one.params, probable(inputs.forget), measures, counts)]


def prefixes(inputs: Inputs, settings: Settings, one: NamedModel) -> list[Recovered]:
    """Measure with words in front, the best so far."""
    words = PREFIXES if inputs.prefixes is None else inputs.prefixes
    sets = [inputs.forget]
    sets += [
        prefixed(inputs.forget, word, inputs.tokenizer, max_length=inputs.max_length)
        for word in words
    ]
    length = max(data.length for data in sets)
    measures = [strength(inputs, one, data, length) for data in sets]
    return [best_prompt(one.params, measures)]


def paraphrases(inputs: Inputs, settings: Settings, one: NamedModel) -> list[Recovered]:
    """Measure with the question in other words, the best of both."""
    forget = inputs.records["forget"]
    if "paraphrases" in inputs.records:
        others = [
            {"prompt": prompt_and_completion(p)[0], "gt": prompt_and_completion(r)[1]}
            for p, r in zip(inputs.records["paraphrases"], forget, strict=True)
        ]
    else:
        others = paraphrased(forget)
    sets = [inputs.forget, inputs.tokens(others)]
    length = max(data.length for data in sets)
    measures = [strength(inputs, one, data, length) for data in sets]
    return [best_prompt(one.params, measures)]


def sample(inputs: Inputs, settings: Settings, one: NamedModel) -> list[Recovered]:
    """Draw answers, and branch at the first token."""
    pairs = [prompt_and_completion(r) for r in inputs.records["forget"]]
    prompts, truths = [p for p, _ in pairs], [t.strip() for _, t in pairs]
    sizes = [int((e.labels != IGNORED_LABEL).sum()) for e in inputs.forget.examples]
    longest = max(
        len(e.input_ids) - size
        for e, size in zip(inputs.forget.examples, sizes, strict=True)
    )
    room = one.model.positions - longest
    how: dict[str, Any] = {
        "max_new_tokens": max(2, min(max(sizes), room)),
        "batch_size": settings.batch_size,
    }
    asked = (one.model, one.params, inputs.tokenizer, prompts, truths)
    draws = sampling(
        *asked,
        key=random_key(settings.seed),
        samples=settings.samples,
        temperature=settings.temperature,
        **how,
    )
    branches = min(settings.samples, one.model.config.vocab_size)
    return [draws, branching(*asked, branches=branches, **how)]


def embedding(inputs: Inputs, settings: Settings, one: NamedModel) -> list[Recovered]:
    """Find an offset of prompt embeddings on one half; measure on the other."""
    one = without_wrapper(one)
    parts = [
        subset(inputs.forget, rows)
        for rows in halves(len(inputs.forget.examples), seed=settings.seed)
    ]
    length = max(part.length for part in parts)
    known, held_out = (
        in_order(part, batch_size=settings.batch_size, length=length) for part in parts
    )
    steps = (0, *doublings(settings.offset_steps))
    return [soft_prompt(one.model, one.params, known, held_out, steps=steps)]


def lens(inputs: Inputs, settings: Settings, one: NamedModel) -> list[Recovered]:
    """Decode every layer."""
    one = without_wrapper(one)
    batches = in_order(inputs.forget, batch_size=settings.batch_size)
    found = logit_lens(one.model, one.params, batches)
    return [found.reciprocal_rank, found.probability]


def probe(inputs: Inputs, settings: Settings, one: NamedModel) -> list[Recovered]:
    """Tell forgotten from unseen examples, layer by layer."""
    one = without_wrapper(one)
    forget, holdout = (
        in_order(data, batch_size=settings.batch_size)
        for data in (inputs.forget, inputs.tokens(inputs.records["holdout"]))
    )
    return [
        membership_probe(one.model, one.params, forget, holdout, seed=settings.seed)
    ]
