"""The command `gaussmeter`: arguments in, text out. Whatever it does, `engine.verbs` does."""
