"""Words of a Hugging Face config.json that several readers of it know, and their advice where it is wrong."""

FULL_ATTENTION, SLIDING_ATTENTION = "full_attention", "sliding_attention"
LAYER_TYPES = (FULL_ATTENTION, SLIDING_ATTENTION)
REMEDY = "Take a model of a supported family, or convert this one."
