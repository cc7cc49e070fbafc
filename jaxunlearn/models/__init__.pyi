from .checkpoints.config_file import (
    load_config as load_config,
)
from .checkpoints.huggingface import (
    load_pretrained as load_pretrained,
)
from .checkpoints.saving import (
    save_pretrained as save_pretrained,
)
from .generation import (
    generate as generate,
)
from .gpt2 import (
    GPT2 as GPT2,
)
from .gpt2_config import (
    GPT2Config as GPT2Config,
)
