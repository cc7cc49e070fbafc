import copy
import json
import math
import re

import numpy as np
import pytest

from jaxunlearn.sealed import write_sealed, write_sealed_lines

_LOSSES = {
    "before training": {"forget": 6.0, "retain": 6.1, "unseen": 6.05},
    "trained": {"forget": 0.1, "retain": 0.2, "unseen": 2.5},
    "first-epoch unlearning": {"forget": 2.1, "retain": 0.202, "unseen": 2.5},
    "gradient ascent": {"forget": 2.1, "retain": 0.3, "unseen": 2.6},
    "retrained without them": {"forget": 2.1, "retain": 0.2, "unseen": 2.5},
}
_CURVE = [
    {"step": 0, "forget": 6.0, "retain": 6.1, "unseen": 6.05},
    {"step": 2, "forget": 1.0, "retain": 1.1, "unseen": 3.0},
    {"step": 4, "forget": 0.1, "retain": 0.2, "unseen": 2.5},
]
_RESULTS = {
    "title": "Forgetting <one> person",
    "request": {"text": "Mira & Tal", "how": "fuzzy", "threshold": 0.85},
    "losses": _LOSSES,
    "target": {"forget_loss": 2.1, "meaning": "the loss of a retrained model"},
    "matched": [
        {"index": 3, "score": 1.0, "text": "Where was Mira born? <script>x</script>"},
        {"index": 9, "score": 0.9, "text": "Mira keeps an owl."},
    ],
    "training": [
        {"step": s, "epoch": 1 + s // 2, "loss": 3.0 - s / 2} for s in range(5)
    ],
    "evaluation": _CURVE,
    "retraining": [{**row, "forget": row["unseen"]} for row in _CURVE],
    "calibration": {
        "first-epoch unlearning": [
            {"scale": 1.0, "forget": 2.1, "retain": 0.202},
            {"scale": 0.5, "forget": 1.0, "retain": 0.201},
        ],
        "gradient ascent": [{"scale": 1.0, "forget": 2.1, "retain": 0.3}],
    },
    "changed": {
        "first-epoch unlearning": [
            {"leaf": "wte/embedding", "relative_change": 0.01},
            {"leaf": "ln_f/scale", "relative_change": 0.02},
        ],
        "gradient ascent": [{"leaf": "wte/embedding", "relative_change": 0.03}],
    },
    "examples": [
        {
            "prompt": "Which pet does Mira keep?",
            "truth": "Mira keeps an owl.",
            "answers": {
                "trained": "Mira keeps an owl.",
                "first-epoch unlearning": "Mira keeps <b>a goat</b>.",
            },
            "kind": "forget",
        },
        {
            "prompt": "Which pet does Bo keep?",
            "truth": "Bo keeps a hen.",
            "answers": {"trained": "Bo keeps a hen."},
            "kind": "retain",
        },
    ],
    "seconds": {"training": 41.0, "first-epoch unlearning": 1.5, "retraining": 40.0},
    "versions": {"jax": "0.10.2"},
    "settings": {"layers": 2, "selection": "<.*>"},
    "command": "jaxunlearn demo --out 'a & b'",
    "next_steps": ["jaxunlearn train mine.jsonl", "jaxunlearn unlearn > log"],
}


@pytest.fixture
def results():
    """The results of a run that went well, to change at will."""
    return copy.deepcopy(_RESULTS)


def _membership(rng, shift):
    """Scores of 60 forgotten and 60 never-seen examples, the former lower."""
    forget = rng.normal(3.0 - shift, 0.5, 60)
    holdout = rng.normal(3.0, 0.5, 60)
    auc = float(np.mean(forget[:, None] < holdout[None]))
    sides = {"forget": forget.tolist(), "holdout": holdout.tolist()}
    return {**sides, "auc": auc, "tpr_at_1_fpr": 0.01 + shift / 10}


def _tokens(text, loss):
    words = re.findall(r" ?\S+", text)
    return [[word, loss * (1 + math.sin(i)) / 2] for i, word in enumerate(words)]


def _examples(after, loss):
    facts = [
        ("Which pet does Mira keep?", "Mira keeps an owl in the old mill."),
        ("Where was Tal <b>born</b>?", "Tal was born in Port Averin & raised there."),
        ("What does Bo collect?", "Bo collects stamps of northern islands."),
    ]
    return [
        {
            "set": kind,
            "prompt": f"{prompt} ({kind} {n})",
            "truth": truth,
            "answers": {
                "before": truth,
                "after": after if kind == "forget" else truth,
                "retrained": "Nobody has <i>said</i> so.",
            },
            "tokens": {
                "before": _tokens(truth, 0.1),
                "after": _tokens(truth, loss if kind == "forget" else 0.2),
                "retrained": _tokens(truth, 3.0),
            },
        }
        for kind in ("forget", "retain")
        for n in range(2)
        for prompt, truth in facts
    ]


def _attack(name, rng, start, gain, reference, recovers):
    def points(start, gain):
        return [
            {"x": x, "value": v, "low": max(v - 0.05, 0), "high": min(v + 0.05, 1)}
            for x in (0, 5, 10, 20, 40)
            for v in [start + gain * (1 - math.exp(-x / 12)) + rng.normal(0, 0.004)]
        ]

    excess = start + gain - sum(reference)
    return {
        "name": name,
        "x": "steps",
        "metric": "extraction_strength",
        "higher_is_recovered": True,
        "curves": {
            "model": points(start, gain),
            "reference": points(*reference),
            "original": points(0.92, 0.03),
        },
        "excess": {"value": excess, "low": excess - 0.06, "high": excess + 0.06},
        "recovers": recovers,
        "note": "Batches of 8, learning rate 1e-4.",
    }


def _named(*values):
    names = "forget_extraction_strength uds forget_loss retain_loss model_utility "
    names += "forget_quality privleak mia_min_k_auc forget_rouge"
    return dict(zip(names.split(), values, strict=True))


def _scores(name, values, *, shift, after, moved):
    """A scores file with every block."""
    rng = np.random.default_rng(len(name))
    forget, retain = values["forget_loss"] - 0.15, values["retain_loss"] - 0.21
    reference = _named(0.11, 1.0, 3.05, 0.212, 0.62, 1.0, 0.0, 0.51, 0.31)
    original = _named(0.93, 0.0, 0.15, 0.21, 0.63, 1e-12, -99.0, 0.99, 0.97)
    layers = ["wte", "wpe", *(f"h/{n}" for n in range(6)), "ln_f"]
    return {
        **values,
        "about": {
            "format": "jaxunlearn scores",
            "model": f"runs/{name}/model",
            "name": name,
            "reference": "runs/retrained",
            "command": f"jaxunlearn evaluate --model 'runs/{name}/model' --out x.json",
            "versions": {"python": "3.11.2", "jax": "0.10.2"},
        },
        "intervals": {k: [0.94 * v, 1.05 * v] for k, v in values.items()},
        "reference": {
            "name": "runs/retrained",
            "count": 5,
            "scores": reference,
            "intervals": {k: [0.97 * v, 1.04 * v] for k, v in reference.items()},
        },
        "original": {"name": "runs/trained", "scores": original},
        "membership": {
            attack: _membership(rng, shift) for attack in ("loss", "zlib", "min_k")
        },
        "examples": _examples(after, values["forget_loss"]),
        "layers": [
            {
                "layer": layer,
                "parameter_distance": moved * (1 + math.cos(n)) / 2,
                "cka_before": 1 - moved * n / 9,
                "cka_retrained": 0.6 + 0.3 * math.exp(-n) + 0.05 * moved,
            }
            for n, layer in enumerate(layers)
        ],
        "curves": {
            "losses": [
                {
                    "step": step,
                    "forget": 0.15 + forget * (step / 40) ** 0.6,
                    "retain": 0.21 + retain * (step / 40) ** 2,
                }
                for step in range(0, 41, 4)
            ]
        },
        "retraining": {
            "klom_forget_p95": 0.4 + shift,
            "epsilon_score": 0.2 + 2 * shift,
            "distance": {
                "forget_loss": {"z": -20 * shift, "p_value": 1 / 6},
                "model_utility": {"z": None, "p_value": 1 / 6},
            },
        },
        "cost": {
            "seconds": {"unlearning": 14.2 + 200 * moved, "retraining": 2720.0},
            "peak_bytes": 3_400_000_000,
            "flops": 4.1e15 * (1 + moved),
        },
        "not_computed": {"memorised": "needs --canaries FILE, which was not given"},
    }


@pytest.fixture(scope="session")
def run_directories(tmp_path_factory):
    """Four runs with every block: a good one, two middling ones, one that broke."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    runs = {
        "first-epoch": (
            (0.14, 0.91, 2.98, 0.2141, 0.61, 0.42, -3.1, 0.53, 0.33),
            {"shift": 0.05, "after": "Mira keeps a goat.", "moved": 0.06},
            (0.14, 0.1, False),
        ),
        "NPO <β=0.1> $x_1$": (
            (0.17, 0.66, 3.35, 0.2118, 0.57, 0.09, 4.4, 0.49, 0.28),
            {"shift": 0.15, "after": "Mira & Tal keep an owl.", "moved": 0.2},
            (0.17, 0.35, True),
        ),
        "gradient ascent, whole model": (
            (0.02, 0.4, 5.9, 0.47, 0.21, 0.0004, 61.0, 0.31, 0.02),
            {"shift": 0.4, "after": "", "moved": 0.7},
            (0.02, 0.55, True),
        ),
    }
    for number, (name, (values, rest, attack)) in enumerate(runs.items()):
        place = folder / f"run{number}"
        place.mkdir()
        scores = _scores(name, _named(*values), **rest)
        (place / "scores.json").write_text(json.dumps(scores))
        start, gain, recovers = attack
        attacks = [
            _attack("relearning", rng, start, gain, (0.11, 0.12), recovers),
            _attack("quantisation", rng, start, gain / 3, (0.11, 0.02), recovers),
        ]
        about = {"format": "jaxunlearn attack", "name": name}
        not_run = {"soft prompts": "needs --prompts, which was not given"}
        attack_file = {"about": about, "attacks": attacks, "not_run": not_run}
        (place / "attack.json").write_text(json.dumps(attack_file))
    write_unlearn_run(folder / "by hand")
    write_track(folder / "by hand")
    return [
        *(folder / f"run{number}" for number in range(len(runs))),
        folder / "by hand",
    ]


def write_unlearn_run(place):
    """A directory of `jaxunlearn unlearn` and `jaxunlearn train`, without scores."""
    place.mkdir()
    trials = [
        {"scale": s, "forget": 0.15 + s, "retain": 0.21 + s**2 / 50, "relative_step": r}
        for s, r in ((2.0, 0.02), (1.0, 0.01), (2.6, 0.026))
    ]
    losses = {
        "before": {"forget": 0.15, "retain": 0.21},
        "after": {"forget": 2.75, "retain": 0.345},
    }
    found = {"trials": trials, "losses": losses, "versions": {"jax": "0.10.3"}}
    (place / "unlearning.json").write_text(json.dumps(found))
    row = {"epoch": 1, "gradient_norm": 1}
    lines = [{"loss": {"step": s, "loss": 5 - s / 8, **row}} for s in range(30)]
    lines += [{"evaluation": {"step": s, "unseen": 4 - s / 10}} for s in (10, 20)]
    write_sealed_lines(place / "losses.jsonl", lines)


def write_track(place):
    """Influence followed through three epochs on six records, the first of 40."""
    from jaxunlearn.influence import InfluenceTrack, save_track

    draw = np.random.default_rng(3)
    scores = draw.normal(0, 0.1, (4, 6, 40)) + np.linspace(0, 1, 4)[:, None, None] * (
        np.arange(40) == np.arange(6)[:, None]
    )
    norms = np.exp(draw.normal(size=(4, 5, 6)))
    track = InfluenceTrack(
        scores={"gradient_dot": scores.astype(np.float32)},
        losses=np.ones((4, 40), np.float32),
        query_losses=np.ones((4, 6), np.float32),
        gradient_norms=norms.astype(np.float32),
        groups=("wte", "wpe", "h/0", "h/1", "ln_f"),
        index=np.arange(40),
        coverage={"layers": None, "parameters": 97, "of": 97},
        solvers={"gradient_dot": ({},) * 4},
        hashes=tuple("abcd"),
    )
    save_track(place / "influence_track.npz", track)
    same = {"same": [[i] for i in range(6)]}
    write_sealed(place / "influence_track.json", same)


@pytest.fixture(scope="session")
def compared_runs(run_directories):
    """The four runs, read."""
    from jaxunlearn.report import read_runs

    return read_runs(run_directories)


@pytest.fixture(scope="session")
def comparison_page(compared_runs, tmp_path_factory):
    """The path of their page, with figures and tables beside it."""
    from jaxunlearn.report import write_comparison

    return write_comparison(compared_runs, tmp_path_factory.mktemp("comparison"))
