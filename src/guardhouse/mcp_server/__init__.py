"""The MCP server through which an AI agent drives a fleet. It asks the hub by its REST interface, in no other way."""
