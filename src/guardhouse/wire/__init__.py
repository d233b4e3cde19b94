"""What a platform and a runner say to each other: messages and the session state machine. Pure."""
