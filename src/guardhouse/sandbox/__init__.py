"""What may a command touch? Profiles in; finished plans for the launcher out. Pure."""
