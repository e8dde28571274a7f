"""Diagnostics: tasks for one player, each of which asks a memory for one thing. What is right is known, so an agent can also be taught."""
