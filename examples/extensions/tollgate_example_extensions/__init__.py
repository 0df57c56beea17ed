"""Extensions to start from."""
