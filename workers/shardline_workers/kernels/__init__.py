"""The operations that a decoder is made of, in one interface with several implementations."""
