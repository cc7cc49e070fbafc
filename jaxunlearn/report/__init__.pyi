from .comparison.page import (
    write_comparison as write_comparison,
)
from .comparison.pareto import (
    pareto_front as pareto_front,
)
from .comparison.run import (
    ComparedRun as ComparedRun,
)
from .comparison.runs import (
    read_runs as read_runs,
)
from .comparison.scores import (
    sentence_of as sentence_of,
)
from .influence.page import (
    Influential as Influential,
)
from .influence.page import (
    QueryInfluence as QueryInfluence,
)
from .influence.page import (
    write_influence_page as write_influence_page,
)
from .kit.export import (
    csv_text as csv_text,
)
from .kit.export import (
    latex_table as latex_table,
)
from .kit.export import (
    write_tables as write_tables,
)
from .kit.tables import (
    console_table as console_table,
)
from .kit.tables import (
    html_table as html_table,
)
from .kit.tables import (
    text_of as text_of,
)
from .kit.tables import (
    visible as visible,
)
from .run.outcome import (
    Verdict as Verdict,
)
from .run.outcome import (
    loss_rows as loss_rows,
)
from .run.outcome import (
    verdict as verdict,
)
from .run.page import (
    write_report as write_report,
)
