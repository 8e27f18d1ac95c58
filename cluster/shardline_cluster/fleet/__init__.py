"""The nouns that router, controller and command line share."""
