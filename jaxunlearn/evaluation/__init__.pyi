from . import (
    aggregates as aggregates,
)
from . import (
    attacks as attacks,
)
from . import (
    classification as classification,
)
from . import (
    internals as internals,
)
from . import (
    membership as membership,
)
from . import (
    retrained as retrained,
)
from . import (
    suite as suite,
)
from . import (
    text as text,
)
from .attacks.series import (
    attack as attack,
)
from .internals.concepts import (
    concept_change as concept_change,
)
from .internals.concepts import (
    concept_vector as concept_vector,
)
from .internals.depth import (
    depth_score as depth_score,
)
from .internals.depth import (
    layer_gaps as layer_gaps,
)
from .internals.depth import (
    unlearning_depth as unlearning_depth,
)
from .internals.parameters import (
    calibrated_mix as calibrated_mix,
)
from .internals.parameters import (
    linear_path as linear_path,
)
from .internals.parameters import (
    parameter_distance as parameter_distance,
)
from .internals.probes import (
    linear_probe as linear_probe,
)
from .internals.probes import (
    nearest_neighbour_accuracy as nearest_neighbour_accuracy,
)
from .internals.representations import (
    example_features as example_features,
)
from .internals.representations import (
    layer_cka as layer_cka,
)
from .internals.representations import (
    linear_cka as linear_cka,
)
from .loading import (
    NamedModel as NamedModel,
)
from .membership.roc import (
    against_reference as against_reference,
)
from .membership.roc import (
    auc as auc,
)
from .membership.roc import (
    privleak as privleak,
)
from .membership.roc import (
    roc_curve as roc_curve,
)
from .membership.roc import (
    s_mia as s_mia,
)
from .membership.roc import (
    tpr_at_fpr as tpr_at_fpr,
)
from .retrained.distance import (
    retrained_distance as retrained_distance,
)
from .retrained.ensembles import (
    klom as klom,
)
from .retrained.ensembles import (
    noise_floor as noise_floor,
)
from .retrained.ensembles import (
    u_lira as u_lira,
)
from .retrained.margins import (
    classification_margin as classification_margin,
)
from .retrained.margins import (
    language_model_margin as language_model_margin,
)
from .retrained.privacy import (
    forgetting_quality as forgetting_quality,
)
from .retrained.retraining import (
    TrainingParts as TrainingParts,
)
from .retrained.retraining import (
    retrain as retrain,
)
from .suite.file import (
    Evaluation as Evaluation,
)
from .suite.file import (
    write_scores as write_scores,
)
from .suite.logs import (
    evaluate_logs as evaluate_logs,
)
from .suite.measurement import (
    Measured as Measured,
)
from .suite.measurement import (
    Settings as Settings,
)
from .suite.measurement import (
    measure as measure,
)
from .suite.run import (
    evaluate as evaluate,
)
from .suite.scores import (
    SuiteScores as SuiteScores,
)
from .text.answer_log import (
    AnswerLog as AnswerLog,
)
from .text.answer_log import (
    Scores as Scores,
)
from .text.answer_log import (
    answer_scores as answer_scores,
)
from .text.facts import (
    known_facts as known_facts,
)
from .text.kolmogorov_smirnov import (
    ForgetQuality as ForgetQuality,
)
from .text.kolmogorov_smirnov import (
    forget_quality as forget_quality,
)
from .text.logs import (
    read_logs as read_logs,
)
from .text.logs import (
    write_open_unlearning as write_open_unlearning,
)
from .text.memorization import (
    exact_memorization as exact_memorization,
)
from .text.memorization import (
    extraction_likelihoods as extraction_likelihoods,
)
from .text.memorization import (
    extraction_strength as extraction_strength,
)
from .text.memorization import (
    memorization_accuracy as memorization_accuracy,
)
from .text.memorization import (
    perplexity as perplexity,
)
from .text.restor import (
    Fact as Fact,
)
from .text.restor import (
    knowledge as knowledge,
)
from .text.rouge_scores import (
    rouge_l as rouge_l,
)
from .text.token_pass import (
    TokenStatistics as TokenStatistics,
)
from .text.token_pass import (
    mean_losses as mean_losses,
)
from .text.utility import (
    closeness_to_one as closeness_to_one,
)
from .text.utility import (
    harmonic_mean as harmonic_mean,
)
from .text.utility import (
    model_utility as model_utility,
)
from .text.utility import (
    normalised_probability as normalised_probability,
)
from .text.utility import (
    preference_for_truth as preference_for_truth,
)
from .text.utility import (
    probability as probability,
)
from .text.utility import (
    share_of_truth as share_of_truth,
)
from .text.utility import (
    truth_ratio as truth_ratio,
)
