"""One decoder, driven by declarative family specs."""
