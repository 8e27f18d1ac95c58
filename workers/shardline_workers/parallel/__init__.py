"""How a model is dealt out to ranks: pure decisions, before there is any process."""
