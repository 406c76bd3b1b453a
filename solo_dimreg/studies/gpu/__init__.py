"""One table of what a GPU does: checks, times and short trainings, each section in a process of its own."""
