"""The processes that serve programs without Python: they join jobs and choose schedules; started by `csrc/helper/`."""
