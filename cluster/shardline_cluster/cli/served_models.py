"""The models that `shardline serve` is to begin with: the one of the command line, or those that its file lists."""

import argparse
from collections import Counter
from dataclasses import fields

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment import EngineOptions
from shardline_cluster.serve.serve_options import ServeOptions

# What may differ from model to model; all else is the server's.
MODEL_FLAGS = frozenset(
    ("model", "served-model-name", "replicas", *(field.name.replace("_", "-") for field in fields(EngineOptions)))
)


def model_arguments(arguments: argparse.Namespace) -> list[argparse.Namespace]:
    """The arguments of each model: what an element of `models` leaves out is as it stands beside the list.

    Raises:
        ConfigurationError: MODEL is named beside the list.
    """
    elements = arguments.models.elements
    if not elements:
        return [arguments]
    beside = [name for name in ("model", "served_model_name") if getattr(arguments, name)]
    if beside:
        flag = "MODEL" if beside == ["model"] else "--served-model-name"
        raise ConfigurationError(
            f"{flag} is {getattr(arguments, beside[0])!r}, but the file lists `models`: leave one of the two out"
        )
    return [argparse.Namespace(**{**vars(arguments), **element}) for element in elements]


def refuse_equal_names(options: list[ServeOptions]) -> None:
    """Clients choose a model by its name.

    Raises:
        ConfigurationError: two have the same.
    """
    name, count = Counter(each.served_model_name for each in options).most_common(1)[0]
    if count > 1:
        raise ConfigurationError(
            f"{count} of the `models` are called {name!r}: give each another served-model-name; for several copies of "
            "one there is `replicas`"
        )
