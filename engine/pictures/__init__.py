"""Pictures: each is one definition, from numbers to a specification; the only floor that knows altair."""
