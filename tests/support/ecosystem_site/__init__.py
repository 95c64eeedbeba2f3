"""A small Django site for what people build around one: long commands, test frameworks, tools."""
