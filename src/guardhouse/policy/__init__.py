"""May this command run? Documents, shell text and rules in; decisions out. Pure."""
